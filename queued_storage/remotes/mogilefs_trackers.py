"""The line protocol of MogileFS trackers, with failover over a list of them."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode

from queued_storage.exceptions import ErrorKind, StorageConfigurationError, TransferError
from queued_storage.remotes.plain_http import AnswerError, UnreachableError, unreachable

PORT = 7001
MAX_LINE = 4 << 20
# What a second tracker may be asked when the first one fell silent: asking twice changes nothing.
QUESTIONS = {"create_open", "file_info", "get_paths", "list_keys"}
CODE_KINDS = {
    **dict.fromkeys(["domain_not_found", "unreg_domain", "no_domain", "class_not_found"], ErrorKind.DENIED),
    **dict.fromkeys(["size_mismatch", "checksum_mismatch"], ErrorKind.MISMATCH),
    **dict.fromkeys(["no_key", "empty_file", "invalid_chars"], ErrorKind.REFUSED),
}


class TrackerError(AnswerError):
    """A tracker answered ``ERR``; ``code`` is its word for the reason."""

    def __init__(self, message: str | None = None, code: str = "") -> None:
        super().__init__(message, CODE_KINDS.get(code, ErrorKind.PASSING))
        self.code = code


class Trackers:
    """A list of trackers of which any may be down; one that failed is asked last from then on."""

    def __init__(self, addresses: Sequence[str], connect_timeout: float, read_timeout: float) -> None:
        self._addresses = tuple(_address(each) for each in addresses)
        if not self._addresses:
            raise StorageConfigurationError("'trackers' is a list such as ['tracker1:7001', 'tracker2:7001'].")
        self._timeouts = connect_timeout, read_timeout

    def ask(self, command: str, seconds: float = 0, /, **arguments: str | int) -> dict[str, str]:
        """Return what the first tracker that can be reached answers; ``seconds`` are added to its time to do so.

        Raises ``TrackerError`` for an ``ERR``, and ``UnreachableError`` when no tracker can be reached, or when one
        fell silent after a command that may have been carried out.
        """
        line = f"{command} {urlencode(arguments)}\r\n".encode()
        failure = UnreachableError("no tracker could be reached")
        for address in self._addresses:
            try:
                connection = socket.create_connection(address, self._timeouts[0])
            except OSError as error:
                failure = unreachable("connecting to a tracker", error)
                self._demote(address)
                continue
            try:
                with connection:
                    connection.settimeout(self._timeouts[1] + seconds)
                    return _parse(command, _exchange(connection, line))
            except TransferError:
                raise
            except OSError as error:
                failure = unreachable(f"asking a tracker to {command}", error)
                self._demote(address)
                if command not in QUESTIONS:
                    break
        raise failure

    def _demote(self, address: tuple[str, int]) -> None:
        others = tuple(each for each in self._addresses if each != address)
        self._addresses = (*others, address)


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:]+)\]|([^\s:/@]+))(?::(\d+))?", text)
    if match is None:
        raise StorageConfigurationError("A tracker must be written as host:port.")
    return match[1] or match[2], int(match[3] or PORT)


def _exchange(connection: socket.socket, line: bytes) -> str:
    connection.sendall(line)
    with connection.makefile("rb") as stream:
        answer = stream.readline(MAX_LINE)
    if not answer.endswith(b"\n"):
        raise ConnectionError("the tracker hung up")
    return answer.decode("ascii", "replace").strip()


def _parse(command: str, answer: str) -> dict[str, str]:
    word, _, rest = answer.partition(" ")
    if word == "OK":
        return dict(parse_qsl(rest, keep_blank_values=True, errors="surrogateescape"))
    code = rest.partition(" ")[0]
    if word != "ERR" or not re.fullmatch(r"\w+", code):
        raise ConnectionError("the tracker does not speak its protocol")
    raise TrackerError(f"The tracker answered {command} with {code}", code)
