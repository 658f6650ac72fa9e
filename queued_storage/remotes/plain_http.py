"""Plain HTTP for the remotes that need no client library: streamed bodies, time-outs, and errors that have a kind."""

from __future__ import annotations

import http.client
import json
import selectors
import ssl
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from queued_storage.exceptions import ErrorKind, StorageConfigurationError, TransferError

STATUS_KINDS = {
    **dict.fromkeys([301, 302, 303, 307, 308, 401, 402, 403, 404, 407], ErrorKind.DENIED),
    **dict.fromkeys([408, 409, 423, 425, 499], ErrorKind.PASSING),
    422: ErrorKind.MISMATCH,
    **dict.fromkeys([429, 498], ErrorKind.THROTTLED),
}


class UnreachableError(TransferError, ConnectionError):
    """The remote could not be reached or did not answer in time: try again later."""


class AnswerError(TransferError, OSError):
    """The remote answered with an error; ``status`` and the message say which."""

    def __init__(self, message: str | None = None, kind: ErrorKind | None = None, status: int = 0) -> None:
        super().__init__(message, kind)
        self.status = status


def kind_of_status(status: int, retry_after: bool = False) -> ErrorKind:
    """Return what an HTTP error status means for the file that was on its way; 503 throttles if it names a time."""
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE and retry_after:
        return ErrorKind.THROTTLED
    default = ErrorKind.REFUSED if http.HTTPStatus.BAD_REQUEST <= status < 500 else ErrorKind.PASSING
    return STATUS_KINDS.get(status, default)


class Answer:
    """One HTTP answer whose body is still on the wire; a context manager that hangs up."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response
        self.status = response.status
        self.headers = response.headers

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; what was not read is lost."""
        self._response.close()
        self._connection.close()

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes of the body, none only at its end; ``UnreachableError`` if it breaks off."""
        try:
            block = self._response.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise unreachable("reading", error) from None
        if not block and self._response.length:
            raise UnreachableError(f"the server broke off {self._response.length} bytes before the end")
        return block

    def json(self, limit: int = 16 << 20) -> Any:
        """Return the body, up to ``limit`` bytes of it, as JSON; anything else is an ``AnswerError``."""
        pieces = []
        while limit > 0 and (piece := self.read(limit)):
            pieces.append(piece)
            limit -= len(piece)
        try:
            return json.loads(b"".join(pieces))
        except ValueError:
            raise AnswerError("the server's answer is not JSON", status=self.status) from None

    def error(self, doing: str, hint: str = "") -> AnswerError:
        """Return the exception for this answer; ``doing`` says what was asked for, without a credential."""
        message = f"{doing} was answered with status {self.status}{hint and f' ({hint})'}"
        return AnswerError(message, kind_of_status(self.status, "Retry-After" in self.headers), self.status)


class Endpoint:
    """One HTTP server. Every request has its own connection, so that threads and forks share nothing; no retries."""

    def __init__(
        self, url: str, *, connect_timeout: float = 5, read_timeout: float = 30, ca_file: str | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise StorageConfigurationError("A server must be written as http://host:port or https://host:port.")
        self.root = parts.path.rstrip("/")
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._address = (parts.hostname, parts.port)
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Iterable[bytes] = (),
    ) -> Answer:
        """Send one request and return the answer, whatever its status.

        ``path`` is quoted and relative to the URL's own path. Raises ``UnreachableError`` when there is no answer; an
        error of ``body`` itself comes out as it is, and then the server has not got the whole body.
        """
        connection = self._connect()
        try:
            complete = _send(connection, method, self.root + path, headers or {}, body)
            answer = Answer(connection, _response(connection))
        except BaseException:
            connection.close()
            raise
        if not complete and answer.status < http.HTTPStatus.MULTIPLE_CHOICES:
            answer.close()
            raise UnreachableError("the server accepted the upload before it had all of it")
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._tls is None:
            connection = http.client.HTTPConnection(host, port, timeout=self._connect_timeout)
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=self._connect_timeout, context=self._tls)
        try:
            connection.connect()
        except OSError as error:
            raise unreachable("connecting", error) from None
        connection.sock.settimeout(self._read_timeout)
        return connection


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: Iterable[bytes],
) -> bool:
    """Send the request; False if the server answered, or hung up, before it had all of the body."""
    connection.putrequest(method, path)
    for name, value in headers.items():
        connection.putheader(name, value)
    try:
        connection.endheaders()
    except OSError as error:
        raise unreachable("sending", error) from None
    with selectors.DefaultSelector() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        for block in body:
            # A refusal often comes before the body is read; without this look it drowns in a reset connection.
            # TLS is left out: there, bytes to read may be a session ticket.
            if not isinstance(connection.sock, ssl.SSLSocket) and selector.select(0):
                return False
            try:
                connection.send(block)
            except (BrokenPipeError, ConnectionResetError):
                return False
            except OSError as error:
                raise unreachable("sending", error) from None
    return True


def _response(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    try:
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise unreachable("waiting for the answer", error) from None


def unreachable(doing: str, error: Exception) -> UnreachableError:
    """Return the error for what a socket or ``http.client`` raised; raise it ``from None``."""
    # Only the error's class and system text: the frames below hold request headers, and so do some messages.
    text = getattr(error, "strerror", None) or ""
    return UnreachableError(f"{type(error).__name__} while {doing}{text and f': {text}'}")
