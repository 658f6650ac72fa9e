"""Where the remote takes two names for one, two files never share an object: deleting one would take both."""

from __future__ import annotations

import ftplib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages

from queued_storage import examining, sweeping
from queued_storage.examining import Found
from queued_storage.models import TransferRecord
from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.remotes.ftp import FTPStorage
from queued_storage.remotes.ftp_session import Session
from tests.conftest import serve
from tests.fixtures import MakePair, Pair, finish, put, read, record_of
from tests.servers import dropbox, ftp, sftp
from tests.servers.folding import folded
from tests.storages import SpyStorage

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db
DROPBOX = "queued_storage.remotes.dropbox.DropboxStorage"


class FoldingStorage(SpyStorage, RemoteStorage):
    """A remote for which upper and lower case are the same, and which tells how a name is spelled."""

    def stat(self, name: str) -> Stat | None:
        """Return the size, and whether the name is spelled in another way."""
        wanted = Path(super().path(name))
        for found in wanted.parent.glob("*"):
            if found.name.lower() == wanted.name.lower():
                return Stat(found.stat().st_size, is_namesake=found.name != wanted.name)
        return None


class FoldingFileSystem(SpyStorage):
    """Django's own storage on a file system for which upper and lower case are the same."""

    def path(self, name: Any) -> str:
        """Return the path that such a file system has for the name."""
        return folded(super().path(name), self.location)


# Which storage, the package that it needs, its server, and where it is to begin.
SERVED = {
    "dropbox": (DROPBOX, "storages.backends.dropbox", dropbox.server, {"root_path": "/twins"}),
    "ftp": ("queued_storage.remotes.ftp.FTPStorage", "pyftpdlib", partial(ftp.server, folding=True), {}),
    "sftp": ("queued_storage.remotes.sftp.SFTPStorage", "asyncssh", partial(sftp.server, folding=True), {}),
}


@pytest.fixture(params=["FoldingStorage", "FoldingFileSystem", *SERVED])
def pair(request: pytest.FixtureRequest, make_pair: MakePair, settings: Any) -> Iterator[Pair]:
    """A storage that keeps no local copy, on such a remote."""
    if request.param not in SERVED:
        yield make_pair(remote=f"tests.test_review_twins.{request.param}", keep_local=False)
        return
    path, package, start, options = SERVED[request.param]
    pytest.importorskip(package, reason=f"needs {package}")
    for server in serve(start):
        entry = settings.STORAGES["default"]
        changes = {"remote": path, "remote_options": server.options(**options), "keep_local": False}
        changed = {**entry, "OPTIONS": {**entry["OPTIONS"], **changes}}
        settings.STORAGES = {**settings.STORAGES, "default": changed}
        yield storages["default"]


def both(pair: Pair) -> tuple[TransferRecord, TransferRecord]:
    """Save the same bytes under two spellings and transfer the first."""
    one, two = put(pair, "docs/A.txt"), put(pair, "docs/a.txt")
    assert sweeping.process(one.pk) == "transferred"
    return one, two


def test_one_of_two_is_deleted(pair: Pair) -> None:
    """The other one stays readable."""
    one, two = both(pair)
    assert sweeping.process(two.pk) == "transferred"
    pair.delete("docs/A.txt")
    sweeping.process(one.pk)
    assert read(pair, "docs/a.txt") == b"content"


def test_one_is_deleted_before_its_transfer(pair: Pair) -> None:
    """What lies there is the other one's."""
    _, two = both(pair)
    pair.delete("docs/a.txt")
    sweeping.process(two.pk)
    assert read(pair, "docs/A.txt") == b"content"


def test_a_namesake_is_not_what_was_transferred(pair: Pair) -> None:
    """Who looks for one finds the other, and is told so."""
    _, two = both(pair)
    look = examining.look_remotely(record_of(pair, "docs/a.txt"), pair)
    assert look.found == Found.DIFFERENT
    assert "upper and lower case" in look.reason
    assert two.state == "queued"


def test_both_arrive(pair: Pair) -> None:
    """Files whose names differ in case alone arrive both, each at a place of its own, whatever their bytes are."""
    contents = {"docs/A.txt": b"content", "docs/a.txt": b"content", "docs/B.txt": b"one", "docs/b.txt": b"another"}
    for name, content in contents.items():
        put(pair, name, content)
    finish()
    places = TransferRecord.objects.values_list("state", "remote_name")
    assert {state for state, _ in places} == {"transferred"}
    assert len({place.lower() for _, place in places}) == 4
    assert {name: read(pair, name) for name in contents} == contents


def test_two_spellings_wait_for_each_other() -> None:
    """FTP has no rename that spares what is there; while one client looks and renames, no namesake comes between."""
    pytest.importorskip("pyftpdlib")
    for server in serve(partial(ftp.server, folding=True)):
        storage = FTPStorage(**server.options(read_timeout=1))
        storage.save("b.txt", ContentFile(b"makes the folder for what is staged"))
        path = storage._path("A.TXT")
        with Session(storage._server) as session:
            session.command(f"MKD {storage._staging}/held.part")
            held = storage._lock(session, path, f"{storage._staging}/held.part")
            with pytest.raises(ftplib.error_perm):
                storage.save("a.txt", ContentFile(b"content"))
            session.command(f"RMD {held}")
        assert storage.save("a.txt", ContentFile(b"content")) == "a.txt"
