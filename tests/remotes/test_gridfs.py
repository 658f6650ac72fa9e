"""GridFS: the round trip against SecantusDB, and what only GridFS does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from queued_storage.exceptions import ErrorKind
from queued_storage.remotes.base import Stat
from tests.conftest import serve
from tests.remotes.material import Upload, digests_of, error_of, text, upload
from tests.remotes.roundtrip import RoundTrip
from tests.remotes.stalled import stalled_save
from tests.servers import gridfs as servers
from tests.servers.gridfs import PASSWORD, MongoServer

pytest.importorskip("pymongo", reason="needs the extra gridfs")

from bson import ObjectId
from gridfs import GridFSBucket
from pymongo import errors

from queued_storage.remotes.gridfs import CHUNK, GridFSStorage

MB = 1 << 20
BACKEND = "queued_storage.remotes.gridfs.GridFSStorage"


@pytest.fixture(scope="module")
def server() -> Iterator[MongoServer]:
    """A server that speaks the protocol of MongoDB."""
    yield from serve(servers.server)


@pytest.fixture
def options(server: MongoServer, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options of a storage in a database of this test."""
    return {"uri": server.uri(), "database": "files", "bucket": f"b{abs(hash(request.node.name))}"}


@pytest.fixture
def storage(options: dict[str, Any]) -> GridFSStorage:
    """A storage on the server."""
    return GridFSStorage(**options)


@pytest.fixture
def database(server: MongoServer) -> Iterator[Any]:
    """The same database, as another program sees it."""
    with server.client() as client:
        yield client.files


class TestGridFS(RoundTrip):
    """Every promise of the round trip, with a password."""

    backend = BACKEND
    digest_algorithms = frozenset({"sha256"})
    checks_known_digests = frozenset({"crc32", "md5", "sha256"})
    has_times = True
    secrets = (PASSWORD,)
    # The driver reads up to 16 MB in one message, and takes it apart in as many again.
    memory_limit = 44 * MB

    @pytest.fixture
    def options(self, server: MongoServer) -> dict[str, Any]:
        return {"uri": server.uri(), "database": "files", "base_url": "http://files.example/gridfs"}

    def options_at(self, options: dict[str, Any], port: int) -> dict[str, Any]:
        return options | {"uri": f"mongodb://127.0.0.1:{port}", "connect_timeout": 0.5, "read_timeout": 0.5}

    def options_denied(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | {"uri": options["uri"].replace(PASSWORD, PASSWORD + "-not")}

    def content_type(self, storage: Any, name: str) -> str:
        found = storage._connect().files.fs.files.find_one({"filename": name})
        return str(found["metadata"]["contentType"])


def test_other_programs_read_it(storage: GridFSStorage, options: dict[str, Any], database: Any) -> None:
    """What was saved is an ordinary GridFS file to everybody else, and the other way round."""
    size = 3 * CHUNK + 5
    storage._save("a.bin", upload(size))
    bucket = GridFSBucket(database, options["bucket"])
    with bucket.open_download_stream_by_name("a.bin") as stream:
        assert stream.read() == upload(size).read()
        assert stream.length == size
    bucket.upload_from_stream("theirs.bin", b"theirs")
    with storage.open("theirs.bin") as file:
        assert file.read() == b"theirs"
    assert storage.stat("theirs.bin") == Stat(6)
    with pytest.raises(FileExistsError):
        storage._save("theirs.bin", text(b"ours"))


def test_the_loser_of_a_race_takes_nothing_with_it(
    storage: GridFSStorage, options: dict[str, Any], database: Any
) -> None:
    """A writer that finds the name taken at the very end removes its own chunks and no others."""

    class Overtaken(Upload):
        overtaken = False

        def read(self, size: int = -1) -> Any:
            if not self.overtaken:
                self.overtaken = True
                GridFSStorage(**options)._save("a.bin", text(b"first"))
            return super().read(size)

    source = upload(MB)
    with pytest.raises(FileExistsError):
        storage._save("a.bin", Overtaken(source.file, MB))
    with storage.open("a.bin") as file:
        assert file.read() == b"first"
    assert database[options["bucket"]].chunks.count_documents({}) == 1


def test_broken_upload_leaves_no_chunks(storage: GridFSStorage, options: dict[str, Any], database: Any) -> None:
    """Chunks of an upload whose source failed are removed at once."""
    error_of(lambda: storage._save("a.bin", upload(9 * MB, break_at=8 * MB)))
    assert database[options["bucket"]].chunks.count_documents({}) == 0


def test_leftovers_of_the_dead(storage: GridFSStorage, options: dict[str, Any], database: Any) -> None:
    """Chunks that a killed process left are found by age and removed; those of files never are."""
    storage._save("kept.bin", upload(MB))
    with stalled_save(BACKEND, options, "killed.bin", 20 * MB):
        pass
    chunks = database[options["bucket"]].chunks
    before = chunks.count_documents({})
    assert before > 6
    assert storage.delete_leftovers(timedelta(hours=1)) == 0
    assert storage.delete_leftovers(timedelta(seconds=-5)) == 1
    assert chunks.count_documents({}) == 5
    assert storage.size("kept.bin") == MB


def test_an_upload_that_is_still_going_on(storage: GridFSStorage, options: dict[str, Any], database: Any) -> None:
    """An upload that began long ago is no leftover while chunks still come."""
    upload, long_ago = ObjectId(), datetime.now(timezone.utc) - timedelta(days=2)
    chunks = database[options["bucket"]].chunks
    chunks.insert_one({"_id": ObjectId.from_datetime(long_ago), "files_id": upload, "n": 0, "data": b"x"})
    chunks.insert_one({"files_id": upload, "n": 1, "data": b"x"})
    assert storage.delete_leftovers(timedelta(hours=1)) == 0
    chunks.delete_one({"n": 1})
    assert storage.delete_leftovers(timedelta(hours=1)) == 1


def test_a_chunk_that_is_gone_is_an_error(storage: GridFSStorage, options: dict[str, Any], database: Any) -> None:
    """A file with a hole in it is an error of its own kind, never a short file."""
    storage._save("a.bin", upload(MB))
    database[options["bucket"]].chunks.delete_one({"n": 2})

    def read() -> None:
        with storage.open("a.bin") as file:
            file.read()

    assert storage.sort_error(error_of(read)) is ErrorKind.MISMATCH


def test_a_server_that_lost_a_chunk(storage: GridFSStorage, options: dict[str, Any], database: Any) -> None:
    """Chunks are counted before the file gets its name."""

    class Stolen(Upload):
        def read(self, size: int = -1) -> Any:
            block = super().read(size)
            if not block:
                database[options["bucket"]].chunks.delete_one({"n": 2})
            return block

    error = error_of(lambda: storage._save("a.bin", Stolen(upload(9 * MB).file, 9 * MB)))
    assert storage.sort_error(error) is ErrorKind.MISMATCH
    assert storage.stat("a.bin") is None


def test_delete_takes_every_revision(storage: GridFSStorage, options: dict[str, Any], database: Any) -> None:
    """A name with older revisions of another program is gone after one delete, chunks included."""
    bucket = GridFSBucket(database, options["bucket"])
    for body in (b"one", b"two"):
        bucket.upload_from_stream("a.bin", body)
    with storage.open("a.bin") as file:
        assert file.read() == b"two"
    storage.delete("a.bin")
    assert storage.stat("a.bin") is None
    assert database[options["bucket"]].chunks.count_documents({}) == 0


def test_a_client_is_made_anew_after_a_fork(storage: GridFSStorage) -> None:
    """A storage that was used before a fork works in the child."""
    storage._save("a.bin", text(b"x"))
    pid = os.fork()
    if pid == 0:
        try:
            code = 7 if storage.size("a.bin") == 1 else 8
        except BaseException:
            code = 9
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_the_address_may_come_from_the_environment(server: MongoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an option the address is that of the environment."""
    monkeypatch.setenv("GRIDFS_URI", server.uri())
    assert GridFSStorage(database="files").exists("nothing") is False


def test_no_base_url(storage: GridFSStorage) -> None:
    """Without a public address there is no URL."""
    with pytest.raises(ValueError, match="base_url"):
        storage.url("a.txt")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.OperationFailure("auth", 18), ErrorKind.DENIED),
        (errors.OperationFailure("not authorized", 13), ErrorKind.DENIED),
        (errors.OperationFailure("you are over your space quota", 8000), ErrorKind.PASSING),
        (errors.OperationFailure("slow down", 462), ErrorKind.THROTTLED),
        (errors.OperationFailure("out of disk space", 14031), ErrorKind.PASSING),
        (errors.OperationFailure("too large", 10334), ErrorKind.REFUSED),
        (errors.DocumentTooLarge("too large"), ErrorKind.REFUSED),
        (errors.ServerSelectionTimeoutError("nobody"), ErrorKind.PASSING),
        (errors.NetworkTimeout("timed out"), ErrorKind.PASSING),
        (errors.ExecutionTimeout("timed out", 50), ErrorKind.PASSING),
        (errors.WTimeoutError("not replicated", 64), ErrorKind.PASSING),
        (errors.InvalidURI("no"), ErrorKind.SETTINGS),
        (errors.ConfigurationError("no"), ErrorKind.SETTINGS),
        (ValueError("x"), None),
    ],
)
def test_errors_are_sorted(error: Exception, kind: ErrorKind | None) -> None:
    """Each error of the driver has its kind, and nothing else has."""
    assert GridFSStorage().sort_error(error) is kind


def test_digest_is_of_the_bytes_that_were_sent(storage: GridFSStorage) -> None:
    """The SHA-256 beside the file is right also when the content announced none."""
    storage._save("a.bin", upload(MB))
    assert storage.stat("a.bin") == Stat(MB, {"sha256": digests_of(MB)["sha256"]})
    assert storage.stat("nothing") is None
