"""SFTP: the round trip on OpenSSH's and asyncssh's file servers, and what the functions do for django-storages."""

from __future__ import annotations

import os
import stat as modes
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from queued_storage.exceptions import ErrorKind, MismatchError
from queued_storage.names import STAGING_DIRECTORY
from queued_storage.remotes.base import Stat
from tests.conftest import serve
from tests.remotes.material import Upload, error_of, text, upload
from tests.remotes.roundtrip import RoundTrip
from tests.remotes.stalled import stalled_save
from tests.servers import sftp as servers
from tests.servers.sftp import PASSWORD, SFTPServer

pytest.importorskip("paramiko", reason="needs the extra sftp")

import paramiko
from storages.backends.sftpstorage import SFTPStorage as PlainSFTPStorage

from queued_storage.remotes import sftp

MB = 1 << 20
BACKEND = "queued_storage.remotes.sftp.SFTPStorage"


@pytest.fixture(scope="module")
def server() -> Iterator[SFTPServer]:
    """asyncssh's own file server."""
    yield from serve(servers.server)


@pytest.fixture(scope="module")
def openssh_server() -> Iterator[SFTPServer]:
    """OpenSSH's file server."""
    yield from serve(lambda: servers.server(openssh=True))


@pytest.fixture
def storage(server: SFTPServer) -> Iterator[sftp.SFTPStorage]:
    """A storage of ours, its staging directory empty."""
    storage = sftp.SFTPStorage(**server.options())
    # Of workers that were killed in other tests.
    sftp.delete_leftovers(storage, timedelta(seconds=-5))
    yield storage
    storage.close()


@pytest.fixture
def plain(server: SFTPServer, storage: Any) -> Iterator[PlainSFTPStorage]:
    """django-storages' own class, as users configure it."""
    plain = PlainSFTPStorage(**server.options(base_url="/"))
    yield plain
    plain.close()


class SFTPRoundTrip(RoundTrip):
    backend = BACKEND
    has_times = True
    # The protocol has no place for it.
    keeps_content_type = False
    checks_known_digests = frozenset({"crc32", "md5", "sha256"})
    secrets = (PASSWORD,)
    # A window of 2 MB that is read ahead, in as many small packets, before and after they are deciphered.
    memory_limit = 32 * MB

    def options_at(self, options: dict[str, Any], port: int) -> dict[str, Any]:
        return options | {"params": options["params"] | {"port": port}, "connect_timeout": 0.5, "read_timeout": 0.5}

    def options_denied(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | {"params": options["params"] | {"password": PASSWORD + "-not"}}


class TestOpenSSH(SFTPRoundTrip):
    """The whole contract on OpenSSH's file server."""

    @pytest.fixture
    def options(self, openssh_server: SFTPServer) -> dict[str, Any]:
        return openssh_server.options(base_url="https://files.example/sftp")


class TestAsyncSSH(SFTPRoundTrip):
    """The whole contract on asyncssh's file server, below a directory that is made with the first file."""

    @pytest.fixture
    def options(self, server: SFTPServer) -> dict[str, Any]:
        return server.options(base_url="https://files.example/sftp", root_path="deep/down")


def staged(server: SFTPServer) -> list[str]:
    """Return what lies in the staging directory."""
    return sorted(os.listdir(server.root / STAGING_DIRECTORY))


def test_functions_serve_the_plain_class(plain: PlainSFTPStorage, server: SFTPServer) -> None:
    """What was uploaded is measured by stat and read by django-storages; a taken name is refused."""
    assert sftp.stat(plain, "plain/a b.bin") is None
    assert sftp.upload(plain, "plain/a b.bin", upload(MB)) == "plain/a b.bin"
    assert sftp.stat(plain, "plain/a b.bin") == Stat(MB)
    assert (server.root / "plain" / "a b.bin").read_bytes() == upload(MB).read()
    with pytest.raises(FileExistsError):
        sftp.upload(plain, "plain/a b.bin", text(b"second"))
    assert sftp.stat(plain, "plain") is None
    assert staged(server) == []


def test_name_taken_at_the_last_moment(plain: PlainSFTPStorage, server: SFTPServer) -> None:
    """A file that appears during the upload is not replaced."""

    class Overtaken(Upload):
        def read(self, size: int = -1) -> Any:
            block = super().read(size)
            if not block:
                (server.root / "taken.bin").write_bytes(b"first")
            return block

    with pytest.raises(FileExistsError):
        sftp.upload(plain, "taken.bin", Overtaken(upload(MB).file, MB))
    assert (server.root / "taken.bin").read_bytes() == b"first"
    assert staged(server) == []


def test_half_a_file_is_never_visible(plain: PlainSFTPStorage, server: SFTPServer) -> None:
    """While a file is written nothing lies under its name."""
    seen = []

    class Watching(Upload):
        def read(self, size: int = -1) -> Any:
            seen.append((server.root / "watched.bin").exists())
            return super().read(size)

    sftp.upload(plain, "watched.bin", Watching(upload(3 * MB).file, 3 * MB))
    assert seen == [False] * len(seen)
    assert len(seen) > 12


def test_mode_is_the_storages_own(server: SFTPServer) -> None:
    """Modes of files and directories are those that django-storages would set."""
    plain = PlainSFTPStorage(**server.options(file_mode=0o640, dir_mode=0o750))
    with plain:
        sftp.upload(plain, "modes/deep/a.bin", text(b"x"))
    mode = {path: modes.S_IMODE((server.root / path).stat().st_mode) for path in ("modes/deep/a.bin", "modes/deep")}
    assert mode == {"modes/deep/a.bin": 0o640, "modes/deep": 0o750}


def test_own_save_is_respected(server: SFTPServer) -> None:
    """A subclass that saves in its own way keeps doing so, and still nothing is replaced."""

    class Stamped(PlainSFTPStorage):  # type: ignore[misc]
        def _save(self, name: str, content: Any) -> str:
            return str(super()._save(f"stamped-{name}", content))

    with Stamped(**server.options()) as storage:
        assert sftp.upload(storage, "a.bin", text(b"x")) == "stamped-a.bin"
        with pytest.raises(FileExistsError):
            sftp.upload(storage, "stamped-a.bin", text(b"x"))


def test_leftovers_of_the_dead(storage: sftp.SFTPStorage, server: SFTPServer) -> None:
    """What a killed process left in the staging directory is removed by age, and shown by no listing."""
    with stalled_save(BACKEND, server.options(), "killed.bin", 3 * MB):
        pass
    (part,) = staged(server)
    assert STAGING_DIRECTORY not in storage.listdir("")[0]
    assert sftp.delete_leftovers(storage, timedelta(hours=1)) == []
    assert sftp.delete_leftovers(storage, timedelta(seconds=-5)) == [part]
    assert staged(server) == []


def test_full_disk_is_passing() -> None:
    """A server that cannot write all bytes says so; nothing stays, and the error may pass."""
    for server in serve(lambda: servers.server(openssh=True, largest=MB)):
        storage = sftp.SFTPStorage(**server.options())
        error = error_of(lambda: storage._save("large.bin", upload(3 * MB)))  # noqa: B023 - called at once
        assert storage.sort_error(error) is ErrorKind.PASSING
        assert storage.listdir("") == ([], [])
        assert staged(server) == []
        storage.close()


def test_server_that_loses_bytes(plain: PlainSFTPStorage, server: SFTPServer) -> None:
    """A part that is shorter than what was sent is found out before the file gets its name."""

    class Cutting(Upload):
        def read(self, size: int = -1) -> Any:
            block = super().read(size)
            if not block:
                (part,) = (server.root / STAGING_DIRECTORY).iterdir()
                # All that was written has arrived once its size stands still at that of the source.
                while part.stat().st_size < self.size:
                    time.sleep(0.01)
                os.truncate(part, 10)
            return block

    with pytest.raises(OSError, match="disk full"):
        sftp.upload(plain, "cut.bin", Cutting(upload(MB).file, MB))
    assert sftp.stat(plain, "cut.bin") is None


def test_unknown_server_is_not_spoken_to(server: SFTPServer, tmp_path: Path) -> None:
    """A server whose key is not known is refused before the password leaves, unless new keys are accepted."""
    stranger = sftp.SFTPStorage(**server.options(known_host_file=str(tmp_path / "none")))
    error = error_of(lambda: stranger.exists("x"))
    assert stranger.sort_error(error) is ErrorKind.DENIED
    trusting = sftp.SFTPStorage(**server.options(known_host_file=str(tmp_path / "none"), accept_new_host_keys=True))
    assert trusting.exists("x") is False
    trusting.close()


def test_server_with_another_key_is_denied(server: SFTPServer, tmp_path: Path) -> None:
    """A server whose key is not the known one is refused, also where new keys are accepted."""
    host, kind, _ = server.known_hosts.read_text().split()
    other = paramiko.RSAKey.generate(2048)
    (tmp_path / "known").write_text(f"{host} {other.get_name()} {other.get_base64()}\n")
    assert kind != other.get_name()
    storage = sftp.SFTPStorage(**server.options(known_host_file=str(tmp_path / "known"), accept_new_host_keys=True))
    assert storage.sort_error(error_of(lambda: storage.exists("x"))) is ErrorKind.DENIED


def test_forbidden_is_not_absent(storage: sftp.SFTPStorage) -> None:
    """Permission refused is denied in every call, never "absent" or "deleted"."""

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            def refuse(*args: Any) -> Any:
                raise PermissionError(13, "Permission denied")

            return refuse

    storage.exists("x")
    storage._own.client = Refusing()
    for call in (storage.stat, storage.exists, storage.size, storage.delete, storage.listdir):
        error = error_of(lambda: call("x"))  # noqa: B023 - called at once
        assert storage.sort_error(error) is ErrorKind.DENIED, call
    storage.forget_connection()


def test_connection_is_made_anew(storage: sftp.SFTPStorage) -> None:
    """After an error, and in a forked child, the next call has a connection of its own."""
    storage._save("again.bin", text(b"x"))
    storage._own.transport.sock.close()
    error = error_of(lambda: storage.size("again.bin"))
    assert storage.sort_error(error) is ErrorKind.PASSING
    assert storage.size("again.bin") == 1
    pid = os.fork()
    if pid == 0:
        try:
            code = 7 if storage.size("again.bin") == 1 else 8
        except BaseException:
            code = 9
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert storage.size("again.bin") == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (paramiko.AuthenticationException("no"), ErrorKind.DENIED),
        (paramiko.SSHException("Server '[x]:22' not found in known_hosts"), ErrorKind.DENIED),
        (paramiko.SSHException("Error reading SSH protocol banner"), ErrorKind.PASSING),
        (EOFError(), ErrorKind.PASSING),
        (TimeoutError(), ErrorKind.PASSING),
        (OSError("Failure"), ErrorKind.PASSING),
        (PermissionError(13, "no"), ErrorKind.DENIED),
        (OSError(36, "File name too long"), None),
        (MismatchError(), ErrorKind.MISMATCH),
        (ValueError(), None),
    ],
)
def test_errors_are_sorted(error: Exception, kind: ErrorKind | None) -> None:
    """Each error of paramiko has its kind; numbered ones of the system are left to the general rules."""
    assert sftp.sort_error(error) is kind


def test_no_base_url(storage: sftp.SFTPStorage) -> None:
    """Without a public address there is no URL."""
    storage.base_url = None
    with pytest.raises(ValueError, match="base_url"):
        storage.url("a.txt")


def test_names_that_leave_the_root(storage: sftp.SFTPStorage, plain: PlainSFTPStorage) -> None:
    """Parent segments and absolute names are refused."""
    for name in ("../x", "a/../x", "/etc/passwd"):
        for call in (storage.stat, storage.open, storage.delete, lambda name: sftp.upload(plain, name, text(b"x"))):
            with pytest.raises(Exception, match="path traversal"):
                call(name)


def test_answers_have_a_time_out(storage: sftp.SFTPStorage) -> None:
    """A server that falls silent after the login costs the read time-out."""
    channel = storage.sftp.get_channel()
    assert channel is not None
    assert channel.gettimeout() == 30
