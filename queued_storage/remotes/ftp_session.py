"""One connection to an FTP server: login, facts about a file, listings, bodies."""

from __future__ import annotations

import contextlib
import ftplib
import socket
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from queued_storage.exceptions import ErrorKind
from queued_storage.remotes.ftp_answers import (
    UNKNOWN_COMMAND,
    Entry,
    is_missing,
    kind_of,
    parse_facts,
    parse_line,
    parse_time,
)
from queued_storage.remotes.hiding import Hidden


@dataclass(frozen=True)
class Server:
    """Where the server is and how to log in."""

    host: str
    port: int
    user: str
    password: str
    context: ssl.SSLContext | None
    passive: bool
    encoding: str
    connect_timeout: float
    read_timeout: float


class _TLSClient(ftplib.FTP_TLS):
    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        connection, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        # Many servers demand that a data connection resumes the TLS session of the control connection.
        session = getattr(self.sock, "session", None)
        return self.context.wrap_socket(connection, server_hostname=self.host, session=session), size


class Session:
    """A connection that is logged in, in binary mode; a context manager that hangs up."""

    def __init__(self, server: Server) -> None:
        self._server = server
        options: dict[str, Any] = {"timeout": server.connect_timeout, "encoding": server.encoding}
        context = server.context
        self._ftp: ftplib.FTP = _TLSClient(context=context, **options) if context else ftplib.FTP(**options)
        self._ftp.set_pasv(server.passive)
        try:
            self._ftp.connect(server.host, server.port)
            assert self._ftp.sock is not None
            self._ftp.sock.settimeout(server.read_timeout)
            self._log_in()
        except BaseException:
            self._ftp.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        # After an error the server may never answer another command.
        if kind is None:
            with contextlib.suppress(OSError, EOFError, ftplib.Error):
                self.command("QUIT")
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._ftp.close()

    def command(self, line: str) -> str:
        """Send one command and return the answer; raises ``ftplib.Error`` when the server says no."""
        return self._ftp.sendcmd(line)

    def entry(self, path: str) -> Entry | None:
        """Return what the server knows of ``path``, ``None`` if it is certain that nothing is there."""
        try:
            return self._facts(path)
        except ftplib.error_perm as error:
            if is_missing(error):
                return None
            if kind_of(error) is ErrorKind.DENIED or not str(error).startswith("550"):
                raise
            found = self._look_in_parent(path, error)
        # A file that is listed after it could not be measured has appeared in between: measure it now.
        return self._facts(path) if found and not found.is_folder else found

    def entries(self, path: str) -> list[Entry]:
        """Return what lies in the directory ``path``."""
        try:
            lines = self._lines(f"MLSD {path}")
            return [entry for line in lines if (entry := parse_facts(line)) and entry.name not in {".", ".."}]
        except ftplib.error_perm as error:
            if str(error)[:3] not in UNKNOWN_COMMAND:
                raise
        return [entry for line in self._lines(f"LIST {path}") if (entry := parse_line(line))]

    def store(self, path: str, blocks: Iterable[bytes]) -> None:
        """Write ``blocks`` to ``path``; a source that breaks leaves a part of them there."""
        connection = self._transfer(f"STOR {path}")
        try:
            for block in blocks:
                connection.sendall(block)
            if isinstance(connection, ssl.SSLSocket):
                connection.unwrap()
        except (OSError, EOFError) as error:
            # The server closes the data connection first and gives its reason on the other one.
            connection.close()
            if isinstance(error, (BrokenPipeError, ConnectionResetError)):
                self._ftp.voidresp()
            raise
        finally:
            connection.close()
        self._ftp.voidresp()

    def retrieve(self, path: str, offset: int) -> socket.socket:
        """Return a connection from which the file can be read, starting at ``offset``."""
        return self._transfer(f"RETR {path}", offset or None)

    def _log_in(self) -> None:
        server = self._server
        if isinstance(self._ftp, ftplib.FTP_TLS):
            self._ftp.auth()
        failure = None
        try:
            self._ftp.login(server.user, Hidden(server.password))
        except ftplib.Error as error:
            failure = error
        if failure is not None:
            # Without the frames that hold the password in a command line.
            raise failure.with_traceback(None) from None
        if isinstance(self._ftp, ftplib.FTP_TLS):
            self._ftp.prot_p()
        if server.encoding == "utf-8":
            with contextlib.suppress(ftplib.error_perm):
                self.command("OPTS UTF8 ON")
        self.command("TYPE I")

    def _facts(self, path: str) -> Entry | None:
        try:
            answer = self.command(f"MLST {path}")
        except ftplib.error_perm as error:
            if str(error)[:3] not in UNKNOWN_COMMAND:
                raise
            return self._size_and_time(path)
        lines = [line for line in answer.splitlines() if line.startswith(" ")]
        return parse_facts(lines[0].strip(" ")) if lines else None

    def _size_and_time(self, path: str) -> Entry:
        size = int(self.command(f"SIZE {path}").split()[1])
        modified = None
        with contextlib.suppress(ftplib.error_perm):
            modified = parse_time(self.command(f"MDTM {path}").split()[1])
        return Entry(path.rpartition("/")[2], False, size, modified)

    def _look_in_parent(self, path: str, error: Exception) -> Entry | None:
        parent, _, base = path.rpartition("/")
        try:
            found = [entry for entry in self.entries(parent or ".") if entry.name == base]
        except ftplib.error_perm as refusal:
            if is_missing(refusal):
                return None
            raise error from refusal
        return found[0] if found else None

    def _lines(self, command: str) -> Iterator[str]:
        connection = self._transfer(command)
        with connection, connection.makefile("rb") as stream:
            # One name in another encoding must not hide all the others.
            text = stream.read().decode(self._server.encoding, "backslashreplace")
        self._ftp.voidresp()
        return iter(text.splitlines())

    def _transfer(self, command: str, offset: int | None = None) -> socket.socket:
        self._ftp.timeout = self._server.connect_timeout
        connection = self._ftp.transfercmd(command, offset)
        connection.settimeout(self._server.read_timeout)
        return connection


class Body:
    """The bytes of one file from some offset, with the connection that they come on."""

    def __init__(self, session: Session, path: str, offset: int) -> None:
        self._session = session
        try:
            self._data = session.retrieve(path, offset)
        except BaseException:
            session.close()
            raise

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none only at the end."""
        return self._data.recv(size)

    def close(self) -> None:
        """Hang up."""
        self._data.close()
        self._session.close()
