"""FTP: the whole contract on pyftpdlib, with and without TLS and machine-readable listings, and FTP's own traps."""

from __future__ import annotations

import contextlib
import ftplib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile

from queued_storage.exceptions import ErrorKind, StorageConfigurationError
from queued_storage.names import STAGING_DIRECTORY
from queued_storage.remotes.ftp import FTPStorage
from queued_storage.remotes.ftp_session import Session
from tests.conftest import serve
from tests.remotes.material import error_of, text, upload
from tests.remotes.roundtrip import RoundTrip
from tests.servers import ftp
from tests.servers.ftp import FTPServer

MB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[FTPServer]:
    """An FTP server of this module."""
    yield from serve(ftp.server)


@pytest.fixture(scope="module")
def plain_server() -> Iterator[FTPServer]:
    """An FTP server that knows only the commands of the first standard."""
    yield from serve(lambda: ftp.server(without=tuple(ftp.MACHINE_COMMANDS)))


@pytest.fixture(scope="module")
def tls_server() -> Iterator[FTPServer]:
    """An FTP server that wants TLS."""
    yield from serve(lambda: ftp.server(tls=True))


@pytest.fixture
def storage(server: FTPServer) -> FTPStorage:
    """A storage on the server."""
    storage = FTPStorage(**server.options())
    # Of workers that were killed in other tests.
    storage.delete_leftovers(timedelta(seconds=-5))
    return storage


class FTPRoundTrip(RoundTrip):
    backend = "queued_storage.remotes.ftp.FTPStorage"
    has_times = True
    # The protocol has no place for it.
    keeps_content_type = False
    checks_known_digests = frozenset({"crc32", "md5", "sha256"})
    secrets = (ftp.PASSWORD,)

    def options_at(self, options: dict[str, Any], port: int) -> dict[str, Any]:
        return options | {"host": "127.0.0.1", "port": port, "connect_timeout": 1, "read_timeout": 1}

    def options_denied(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | {"password": ftp.PASSWORD + "!"}


class TestPlain(FTPRoundTrip):
    """The whole contract without TLS."""

    @pytest.fixture
    def options(self, server: FTPServer) -> dict[str, Any]:
        return server.options(base_url="http://files.example/ftp")


class TestTLS(FTPRoundTrip):
    """The whole contract on a server that takes nothing without TLS."""

    @pytest.fixture
    def options(self, tls_server: FTPServer) -> dict[str, Any]:
        return tls_server.options(base_url="http://files.example/ftp")


class TestWithoutMachineListings(FTPRoundTrip):
    """The whole contract on a server that only knows LIST, SIZE and MDTM."""

    @pytest.fixture
    def options(self, plain_server: FTPServer) -> dict[str, Any]:
        return plain_server.options(base_url="http://files.example/ftp")


def staged(server: FTPServer) -> list[str]:
    """Return the temporary names that lie on the server."""
    return sorted(os.listdir(server.root / STAGING_DIRECTORY))


def test_half_a_file_is_never_visible(storage: FTPStorage, server: FTPServer) -> None:
    """While a file is written nothing lies under its name, and afterwards nothing in the staging directory."""
    seen = []

    class Watching:
        size = 3 * MB
        digests: dict[str, str] = {}

        def __init__(self) -> None:
            self.source = upload(self.size)

        def seekable(self) -> bool:
            return False

        def read(self, size: int) -> bytes:
            seen.append((server.root / "watched" / "a.bin").exists())
            block: bytes = self.source.read(size)
            return block

    storage._save("watched/a.bin", Watching())  # type: ignore[arg-type]
    assert seen == [False] * len(seen)
    assert len(seen) > 2
    assert storage.size("watched/a.bin") == 3 * MB
    assert staged(server) == []


def test_killed_in_mid_upload(storage: FTPStorage, server: FTPServer) -> None:
    """A process that dies half way leaves a part in the staging directory, which delete_leftovers removes by age."""
    pid = os.fork()
    if pid == 0:

        class Deadly:
            size = 3 * MB
            digests: dict[str, str] = {}
            left = 2

            def read(self, size: int) -> bytes:
                if not self.left:
                    os._exit(9)
                self.left -= 1
                return bytes(size)

        storage._save("killed.bin", Deadly())  # type: ignore[arg-type]
    os.waitpid(pid, 0)
    assert storage.stat("killed.bin") is None
    (part,) = staged(server)
    assert storage.listdir("")[0].count(STAGING_DIRECTORY) == 0
    assert storage.delete_leftovers(timedelta(hours=1)) == []
    assert storage.delete_leftovers(timedelta(seconds=-5)) == [part]
    assert staged(server) == []


def test_lock_of_the_living_is_respected(server: FTPServer, storage: FTPStorage) -> None:
    """A name that somebody else is giving out at this moment is waited for, and the wait has an end."""
    quick = FTPStorage(**server.options(read_timeout=1))
    lock = lock_of(server, storage, "locked.bin")
    lock.mkdir(parents=True)
    started = time.monotonic()
    error = error_of(lambda: quick._save("locked.bin", text(b"x")))
    assert quick.sort_error(error) is ErrorKind.PASSING
    assert 1 < time.monotonic() - started < 5
    timer = threading.Timer(0.5, lock.rmdir)
    timer.start()
    quick._save("locked.bin", text(b"x"))
    timer.join()
    assert staged(server) == []


def test_lock_of_the_dead_is_broken(server: FTPServer, storage: FTPStorage) -> None:
    """A lock that a killed process left is removed once it is too old to be anybody's."""
    lock = lock_of(server, storage, "stale.bin")
    lock.mkdir(parents=True)
    os.utime(lock, (time.time() - 3600, time.time() - 3600))
    storage._save("stale.bin", text(b"x"))
    assert staged(server) == []


def lock_of(server: FTPServer, storage: FTPStorage, name: str) -> Any:
    """Return the lock that guards a name on the server."""
    import hashlib

    return server.root / STAGING_DIRECTORY / f"{hashlib.sha256(storage._path(name).encode()).hexdigest()}.lock"


def test_full_disk_is_passing() -> None:
    """A server that cannot write all bytes says so; nothing stays, and the error may pass."""
    for server in serve(lambda: ftp.server(largest=MB)):
        # pyftpdlib answers nothing when a write fails.
        storage = FTPStorage(**server.options(read_timeout=2))
        error = error_of(lambda: storage._save("large.bin", upload(3 * MB)))  # noqa: B023 - called at once
        assert storage.sort_error(error) is ErrorKind.PASSING or isinstance(error, ConnectionError), repr(error)
        assert storage.stat("large.bin") is None
        assert staged(server) == []
        storage._save("small.bin", upload(MB // 2))


def test_forbidden_is_not_absent() -> None:
    """A file that may not be looked at is an error, never "absent"; so is one that may not be written."""
    for server in serve(lambda: ftp.server(may="e")):
        storage = FTPStorage(**server.options())
        for method in (storage.stat, storage.exists, storage.open, storage.size, storage.listdir):
            error = error_of(lambda: method("x"))  # noqa: B023 - called at once
            assert storage.sort_error(error) is ErrorKind.DENIED, method
    for server in serve(lambda: ftp.server(may="elr")):
        storage = FTPStorage(**server.options())
        error = error_of(lambda: storage._save("x", text(b"x")))  # noqa: B023 - called at once
        assert storage.sort_error(error) is ErrorKind.DENIED


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("421 Too many connections from your address", ErrorKind.THROTTLED),
        ("421 Service shutting down", ErrorKind.PASSING),
        ("425 Can't open data connection", ErrorKind.PASSING),
        ("452 Insufficient storage space", ErrorKind.PASSING),
        ("530 Login incorrect", ErrorKind.DENIED),
        ("534 Policy requires SSL", ErrorKind.DENIED),
        ("550 Permission denied.", ErrorKind.DENIED),
        ("550 Something else", ErrorKind.PASSING),
        ("552 Quota exceeded", ErrorKind.PASSING),
        ("553 File name not allowed", ErrorKind.REFUSED),
    ],
)
def test_answers_are_sorted(answer: str, kind: ErrorKind) -> None:
    """Each answer that a server greets with has its kind."""
    with greeting(answer) as port:
        storage = FTPStorage(host="127.0.0.1", port=port)
        assert storage.sort_error(error_of(lambda: storage.stat("x"))) is kind


@contextmanager
def greeting(answer: str) -> Iterator[int]:
    """A server that says one thing and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(f"{answer}\r\n".encode())

        thread = threading.Thread(target=talk)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_certificate_is_checked(tls_server: FTPServer) -> None:
    """A server whose certificate nobody vouches for is not spoken to, unless that is asked for."""
    stranger = FTPStorage(**(tls_server.options() | {"ca_file": None}))
    with pytest.raises(ssl.SSLCertVerificationError):
        stranger.exists("x")
    assert FTPStorage(**(tls_server.options() | {"ca_file": None, "verify": False})).exists("x") is False


def test_server_demands_tls(tls_server: FTPServer) -> None:
    """Without TLS a server that demands it refuses the user, and that is a matter of the settings."""
    storage = FTPStorage(**(tls_server.options() | {"tls": False}))
    assert storage.sort_error(error_of(lambda: storage.exists("x"))) is not None


def test_location_says_it_all(server: FTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One URL holds host, port, user, password and root; user and password may come from the environment."""
    address = f"ftp://{ftp.USER}:ftp-s3cr3t%20pass@127.0.0.1:{server.port}/in/here/"
    storage = FTPStorage(address)
    storage.save("a.txt", ContentFile(b"text"))
    assert (server.root / "in" / "here" / "a.txt").read_bytes() == b"text"
    assert ftp.PASSWORD not in repr(storage)
    monkeypatch.setenv("FTP_STORAGE_USER", ftp.USER)
    monkeypatch.setenv("FTP_STORAGE_PASSWORD", ftp.PASSWORD)
    assert FTPStorage(f"ftp://127.0.0.1:{server.port}/in/here").size("a.txt") == 4


def test_no_address() -> None:
    """Without a host, or with an address of another kind, the storage says what it needs."""
    for location in ("", "http://host/"):
        with pytest.raises(StorageConfigurationError, match="ftp://"):
            FTPStorage(location)


def test_no_base_url(storage: FTPStorage) -> None:
    """Without a public address there is no URL."""
    with pytest.raises(ValueError, match="base_url"):
        storage.url("a.txt")


def test_directory_is_not_a_file(storage: FTPStorage, server: FTPServer) -> None:
    """A directory takes a name but is no file: it has no stat, no size, and nothing is saved over it."""
    (server.root / "folder").mkdir()
    assert storage.exists("folder") is True
    assert storage.stat("folder") is None
    with pytest.raises(FileNotFoundError):
        storage.open("folder")
    with pytest.raises(FileExistsError):
        storage._save("folder", text(b"x"))
    error = error_of(lambda: storage.delete("folder"))
    assert isinstance(error, ftplib.error_perm)


def test_listing_of_nothing(storage: FTPStorage) -> None:
    """A directory that is not there is empty, as in an object store."""
    assert storage.listdir("never/was") == ([], [])


def test_names_that_leave_the_root() -> None:
    """Parent segments and absolute names are refused before a connection is made."""
    storage = FTPStorage(host="127.0.0.1", port=9, base_url="http://files.example/")
    for name in ("../x", "a/../x", "/etc/passwd"):
        for method in (storage.stat, storage.open, storage.delete, storage.url):
            with pytest.raises(Exception, match="path traversal"):
                method(name)


class Scripted:
    """A server that says what it is told to: ``size`` of every file, and ``body`` when one is read."""

    def __init__(self, *, size: int = 0, body: bytes = b"", hang_at: str = "") -> None:
        self.size, self.body, self.hang_at = size, body, hang_at
        self.commands: list[str] = []
        self.released = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)

    def __enter__(self) -> Scripted:
        self.thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.released.set()
        # Wakes the thread up, which then finds that it is over.
        with socket.create_connection(("127.0.0.1", self.port)):
            self.thread.join()
        self.listener.close()

    def serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection, connection.makefile("rw", newline="\r\n") as stream:
                if self.released.is_set():
                    return
                # Clients in trouble hang up in the middle of a word.
                with contextlib.suppress(OSError):
                    self.talk(stream)

    def talk(self, stream: Any) -> None:
        data = socket.create_server(("127.0.0.1", 0))
        with data:
            self.say(stream, "220 hello")
            for line in stream:
                command = line.split()[0]
                self.commands.append(command)
                if command == self.hang_at:
                    self.released.wait(20)
                    return
                self.answer(stream, command, data)

    def answer(self, stream: Any, command: str, data: socket.socket) -> None:
        if command == "PASV":
            port = data.getsockname()[1]
            self.say(stream, f"227 ok (127,0,0,1,{port // 256},{port % 256})")
        elif command == "MLST":
            found = "STOR" in self.commands or self.body
            self.say(stream, f"250-facts\n type=file;size={self.size}; x\n250 end" if found else "550 no such file")
        elif command in {"STOR", "RETR", "MLSD"}:
            self.say(stream, "150 go")
            with data.accept()[0] as connection:
                connection.sendall(self.body)
                if self.hang_at == "data":
                    self.released.wait(20)
                while command == "STOR" and connection.recv(65536):
                    pass
            self.say(stream, "226 done")
        else:
            self.say(stream, {"USER": "331 password", "PASS": "230 in"}.get(command, "200 ok"))

    def say(self, stream: Any, line: str) -> None:
        stream.write(f"{line}\n")
        stream.flush()


def test_server_that_loses_bytes() -> None:
    """A server that stored fewer bytes than it was sent is found out before the file gets its name."""
    with Scripted(size=99) as server:
        storage = FTPStorage(host="127.0.0.1", port=server.port)
        error = error_of(lambda: storage._save("x", upload(100)))
    assert storage.sort_error(error) is ErrorKind.MISMATCH
    assert "RNTO" not in server.commands
    assert "DELE" in server.commands


def test_reading_that_is_cut_short() -> None:
    """A server that sends fewer bytes than the file has is an error, never a short file."""
    with Scripted(size=100, body=b"x" * 99) as server:
        storage = FTPStorage(host="127.0.0.1", port=server.port)
        with storage.open("x") as file, pytest.raises(OSError, match="99 bytes of 100"):
            file.read()


@pytest.mark.parametrize("where", ["MLST", "PASS", "data"])
def test_server_that_falls_silent(where: str) -> None:
    """A server that stops answering in the middle costs the read time-out, on either connection."""
    with Scripted(size=100, body=b"x" * 99, hang_at=where) as server:
        storage = FTPStorage(host="127.0.0.1", port=server.port, read_timeout=0.5, connect_timeout=9)
        started = time.monotonic()

        def read() -> None:
            with storage.open("x") as file:
                file.read()

        assert storage.sort_error(error_of(read)) is ErrorKind.PASSING
        assert time.monotonic() - started < 3


def test_staging_directory_cleaned_up_by_somebody(storage: FTPStorage, server: FTPServer) -> None:
    """When the staging directory disappears one save fails, and the next makes it again."""
    storage._save("before", text(b"x"))
    (server.root / STAGING_DIRECTORY).rmdir()
    assert storage.sort_error(error_of(lambda: storage._save("after", text(b"x")))) is ErrorKind.PASSING
    storage._save("after", text(b"x"))


def test_name_in_other_encoding() -> None:
    """A name that is not UTF-8 hides no other name in a listing."""
    with Scripted(body=b"type=file; bad \xe9\r\ntype=file; good \xc3\xa9\r\n") as server:
        storage = FTPStorage(host="127.0.0.1", port=server.port)
        assert storage.listdir("mixed") == ([], ["bad \\xe9", "good é"])


def test_a_file_that_appears_between_two_questions(plain_server: FTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another writer publishes between SIZE and LIST is there, not an error."""
    storage = FTPStorage(**plain_server.options())
    look = Session._look_in_parent

    def late(self: Session, *arguments: Any) -> Any:
        (plain_server.root / "late.bin").write_bytes(b"late")
        return look(self, *arguments)

    monkeypatch.setattr(Session, "_look_in_parent", late)
    assert storage.size("late.bin") == 4
