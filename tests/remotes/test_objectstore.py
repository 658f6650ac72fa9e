"""Object stores through obstore: the round trip on moto, rclone and a directory, and what only obstore does."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from queued_storage.exceptions import ErrorKind, StorageConfigurationError
from queued_storage.remotes.base import Stat
from tests.conftest import serve
from tests.remotes.gate import Gate, Request, gate_to
from tests.remotes.material import Upload, digests_of, error_of, text, upload
from tests.remotes.roundtrip import RoundTrip
from tests.servers import rclone
from tests.servers.s3 import S3Server

pytest.importorskip("obstore", reason="needs the extra obstore")

from queued_storage.remotes.objectstore import ObjectStorage
from queued_storage.remotes.objectstore_errors import ForkedError, ObjectStoreError

MB = 1 << 20
LARGE = 17 * MB + 3
SECRET = "test-secret"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rclone_server() -> Iterator[S3Server]:
    """An S3 server that checks signatures and digests."""
    yield from serve(rclone.server)


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> str:
    """A bucket of this module."""
    return s3_server.create_bucket(f"b{uuid.uuid4().hex}")


@pytest.fixture
def gate(s3_server: S3Server) -> Iterator[Gate]:
    """A gate in front of the S3 server."""
    address = urlsplit(s3_server.endpoint)
    with gate_to((str(address.hostname), int(address.port or 0))) as gate:
        yield gate


def config(endpoint: str, **more: Any) -> dict[str, Any]:
    """Return the options of a storage at this address."""
    keys = {"access_key_id": "test-key", "secret_access_key": SECRET, "region": "us-east-1"}
    return {"endpoint": endpoint, "virtual_hosted_style_request": False, **keys, **more}


@pytest.fixture
def storage(gate: Gate, bucket: str) -> ObjectStorage:
    """A storage behind the gate."""
    return ObjectStorage(f"s3://{bucket}/{uuid.uuid4().hex}", config(gate.url))


class S3RoundTrip(RoundTrip):
    backend = "queued_storage.remotes.objectstore.ObjectStorage"
    digest_algorithms = frozenset({"md5"})
    checks_known_digests = frozenset({"crc32", "md5", "sha256"})
    has_times = True
    has_public_url = True
    secrets = (SECRET,)
    # Three parts of 8 MB on their way, one being read, one being copied.
    memory_limit = 48 * MB

    def options_at(self, options: dict[str, Any], port: int) -> dict[str, Any]:
        at = {"config": options["config"] | {"endpoint": f"http://127.0.0.1:{port}"}}
        return options | at | {"connect_timeout": 0.5, "read_timeout": 0.5}

    def content_type(self, storage: Any, name: str) -> str:
        with urllib.request.urlopen(storage.url(name), timeout=10) as answer:
            return str(answer.headers["Content-Type"])


class TestMoto(S3RoundTrip):
    """The whole contract on moto."""

    # moto checks no signatures; rclone does.
    has_credentials = False

    @pytest.fixture
    def options(self, s3_server: S3Server, bucket: str) -> dict[str, Any]:
        return {"url": f"s3://{bucket}/a prefix", "config": config(s3_server.endpoint), "etag_is_md5": True}


class TestRclone(S3RoundTrip):
    """The whole contract on rclone's server, which checks signatures."""

    @pytest.fixture
    def options(self, rclone_server: S3Server) -> dict[str, Any]:
        return {"url": f"s3://{rclone.BUCKET}", "config": config(rclone_server.endpoint), "etag_is_md5": True}

    def options_denied(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | {"config": options["config"] | {"secret_access_key": "wrong"}}

    @pytest.mark.skip(reason="rclone's server takes the composed and the decomposed accent for one name")
    def test_names_that_look_alike_are_different_files(self, storage: Any, folder: str) -> None:
        """Not here."""

    @pytest.mark.skip(reason="rclone's server ignores If-None-Match and replaces the file")
    def test_a_taken_name_is_not_overwritten(self, storage: Any, folder: str) -> None:
        """Not here."""

    @pytest.mark.skip(reason="rclone's server ignores If-None-Match and replaces the file")
    def test_of_two_writers_at_once_one_wins(self, storage: Any, folder: str) -> None:
        """Not here."""

    @pytest.mark.skip(reason="rclone's server answers a range with 200 in place of 206, which obstore refuses")
    def test_a_large_file_streams_both_ways(self, options: Any, folder: str, record_property: Any) -> None:
        """Not here."""


class TestDirectory(S3RoundTrip):
    """The whole contract on a directory."""

    digest_algorithms = frozenset()
    has_url = has_public_url = has_network = has_credentials = False
    # A directory has no place for it.
    keeps_content_type = False

    @pytest.fixture
    def options(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        return {"url": f"file://{tmp_path_factory.mktemp('objects')}"}


def parts_left(s3_server: S3Server, bucket: str) -> list[Any]:
    """Return the uploads that were begun and not ended."""
    left: list[Any] = s3_server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return left


def test_requests(storage: ObjectStorage, gate: Gate) -> None:
    """A small file is one PUT, a large one two looks, two POSTs and a PUT a part; a look is one HEAD."""
    # The first one twice, to see whether the server refuses a taken name.
    storage._save("first.bin", upload(100))
    assert gate.counts() == {"PUT": 2}
    assert storage.refuses_taken is True
    gate.requests.clear()
    storage._save("small.bin", upload(100))
    assert gate.counts() == {"PUT": 1}
    storage.stat("small.bin")
    assert gate.counts() == {"PUT": 1, "HEAD": 1}
    gate.requests.clear()
    storage._save("large.bin", upload(LARGE))
    assert gate.counts() == {"HEAD": 2, "POST": 2, "PUT": 3}


def test_large_name_taken_while_it_was_on_its_way(storage: ObjectStorage, s3_server: S3Server, bucket: str) -> None:
    """Somebody who takes the name during a large upload keeps it, and no parts are left."""

    class Overtaken(Upload):
        overtaken = False

        def read(self, size: int = -1) -> Any:
            block = super().read(size)
            if not block and not self.overtaken:
                self.overtaken = True
                key = str(storage._store.prefix) + "/a.bin"
                s3_server.client().put_object(Bucket=bucket, Key=key, Body=b"first")
            return block

    with pytest.raises(FileExistsError):
        storage._save("a.bin", Overtaken(upload(LARGE).file, LARGE))
    with storage.open("a.bin") as file:
        assert file.read() == b"first"
    assert parts_left(s3_server, bucket) == []


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_broken_source_leaves_no_parts(
    storage: ObjectStorage, s3_server: S3Server, bucket: str, error: type[BaseException]
) -> None:
    """A source that fails half way, whatever it raises, leaves neither an object nor parts."""

    class Broken(Upload):
        def read(self, size: int = -1) -> Any:
            if self.file.tell() > 9 * MB:
                raise error("the source broke")
            return super().read(size)

    with pytest.raises(error, match="the source broke"):
        storage._save("a.bin", Broken(upload(LARGE).file, LARGE))
    assert storage.stat("a.bin") is None
    assert parts_left(s3_server, bucket) == []


def test_large_source_of_another_length(storage: ObjectStorage, s3_server: S3Server, bucket: str) -> None:
    """Fewer bytes than announced are never stored, and their parts are taken back."""
    error = error_of(lambda: storage._save("a.bin", upload(LARGE, end_at=LARGE - 1)))
    assert storage.sort_error(error) is ErrorKind.MISMATCH
    assert storage.stat("a.bin") is None
    assert parts_left(s3_server, bucket) == []


def test_large_name_taken_before(storage: ObjectStorage, gate: Gate) -> None:
    """A large file for a taken name is refused after one look, before it is read to its end."""
    storage._save("a.bin", text(b"first"))
    gate.requests.clear()
    source = upload(LARGE)
    with pytest.raises(FileExistsError):
        storage._save("a.bin", source)
    assert gate.counts() == {"HEAD": 1}
    assert source.file.highest < LARGE


def test_look_that_fails_at_the_end(storage: ObjectStorage, gate: Gate, s3_server: S3Server, bucket: str) -> None:
    """When nobody can tell whether the name is still free, the upload is taken back."""
    seen: list[Request] = []

    def second(request: Request) -> bool:
        seen.extend([request] * (request.method == "HEAD"))
        return request.method == "HEAD" and len(seen) == 2

    gate.fail("HEAD", 500).matches = second
    error = error_of(lambda: storage._save("a.bin", upload(LARGE)))
    assert storage.sort_error(error) is ErrorKind.PASSING
    assert storage.stat("a.bin") is None
    assert parts_left(s3_server, bucket) == []


def test_attributes_are_headers(gate: Gate, bucket: str, s3_server: S3Server) -> None:
    """Every object carries the storage's headers and its own content type, small or large."""
    storage = ObjectStorage(f"s3://{bucket}/with", config(gate.url), attributes={"Cache-Control": "max-age=9"})
    for name, size in (("small.csv", 10), ("large.csv", LARGE)):
        storage._save(name, upload(size, content_type="text/x-own"))
        head = s3_server.client().head_object(Bucket=bucket, Key=f"with/{name}")
        assert (head["CacheControl"], head["ContentType"]) == ("max-age=9", "text/x-own")


def test_bytes_changed_on_the_way(gate: Gate, bucket: str) -> None:
    """A server that stored other bytes than it was sent is found out by the ETag, where that is an MD5."""
    storage = ObjectStorage(f"s3://{bucket}/flipped", config(gate.url), etag_is_md5=True)
    gate.fail("PUT", action="flip")
    error = error_of(lambda: storage._save("a.bin", upload(100)))
    assert storage.sort_error(error) is ErrorKind.MISMATCH


def test_server_is_given_a_digest(storage: ObjectStorage, gate: Gate) -> None:
    """The bytes of a PUT carry their SHA-256, so that the server can refuse others."""
    storage._save("a.bin", text(b"x"))
    sent = {name.lower() for name in gate.requests[0].headers}
    assert "x-amz-checksum-sha256" in sent


def test_etag_is_no_digest_by_itself(storage: ObjectStorage) -> None:
    """Unless the settings say so, an ETag proves nothing."""
    storage._save("a.bin", upload(100))
    assert storage.stat("a.bin") == Stat(100)


def test_large_etag_is_no_digest(gate: Gate, bucket: str) -> None:
    """The ETag of a multipart upload is never taken for an MD5."""
    storage = ObjectStorage(f"s3://{bucket}/tags", config(gate.url), etag_is_md5=True)
    storage._save("large.bin", upload(LARGE))
    assert storage.stat("large.bin") == Stat(LARGE)
    storage._save("small.bin", upload(100))
    assert storage.stat("small.bin") == Stat(100, {"md5": digests_of(100)["md5"]})


@pytest.mark.parametrize("size", [LARGE, 16 * MB])
def test_large_etag_proves_an_upload(gate: Gate, bucket: str, size: int) -> None:
    """The ETag of what was sent in parts is that of these parts: nothing needs to be read back."""
    storage = ObjectStorage(f"s3://{bucket}/parts", config(gate.url), etag_is_md5=True)
    digests = digests_of(size)
    # Of what was announced it vouches for what was compared on the way alone.
    assert storage.create(f"{size}.bin", upload(size, digests=digests)).stat == Stat(size, {"crc32": digests["crc32"]})
    plain = ObjectStorage(f"s3://{bucket}/plain", config(gate.url))
    assert plain.create(f"{size}.bin", upload(size)).stat is None


def test_large_etag_of_other_parts_proves_nothing(gate: Gate, bucket: str) -> None:
    """Where the server has other bytes, or makes its ETags otherwise, the upload is looked at afterwards."""
    storage = ObjectStorage(f"s3://{bucket}/flipped-parts", config(gate.url), etag_is_md5=True)
    gate.fail("PUT", action="flip")
    assert storage.create("large.bin", upload(LARGE, digests=digests_of(LARGE))).stat is None


def test_object_replaced_while_read(storage: ObjectStorage, s3_server: S3Server, bucket: str) -> None:
    """A reader never gets bytes of an object that took the first one's place."""
    storage._save("a.bin", upload(LARGE))
    with storage.open("a.bin") as file:
        file.read(10)
        s3_server.client().put_object(Bucket=bucket, Key=f"{storage._store.prefix}/a.bin", Body=b"\0" * LARGE)
        file.seek(9 * MB)
        with pytest.raises(ObjectStoreError, match="412"):
            file.read(10)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", ErrorKind.DENIED),
        (401, "Whatever", ErrorKind.DENIED),
        (400, "ExpiredToken", ErrorKind.DENIED),
        (404, "NoSuchBucket", ErrorKind.DENIED),
        (400, "EntityTooLarge", ErrorKind.REFUSED),
        (400, "KeyTooLongError", ErrorKind.REFUSED),
        (503, "SlowDown", ErrorKind.THROTTLED),
        (429, "TooManyRequests", ErrorKind.THROTTLED),
        (400, "BadDigest", ErrorKind.MISMATCH),
        (403, "RequestTimeTooSkewed", ErrorKind.PASSING),
        (500, "InternalError", ErrorKind.PASSING),
        (502, "", ErrorKind.PASSING),
        (418, "Teapot", ErrorKind.PASSING),
    ],
)
def test_answers_are_sorted(storage: ObjectStorage, gate: Gate, status: int, code: str, kind: ErrorKind) -> None:
    """Each answer of the server has its kind, after exactly one request, and no secret in its text."""
    gate.fail("PUT", status, code, times=9)
    error = error_of(lambda: storage._save("a.bin", text(b"x")))
    assert storage.sort_error(error) is kind
    assert gate.counts() == {"PUT": 1}
    assert "\n\n" not in str(error), "the client's inner life"
    signature = gate.requests[0].headers["authorization"].rpartition("Signature=")[2]
    for secret in (SECRET, signature):
        assert secret not in str(error) + repr(error) + repr(storage) + repr(vars(storage))


def test_hidden_is_not_absent(storage: ObjectStorage, gate: Gate) -> None:
    """404 is None; 403 is an error, never "absent"."""
    assert storage.stat("nothing") is None
    gate.fail("HEAD", 403)
    assert storage.sort_error(error_of(lambda: storage.stat("nothing"))) is ErrorKind.DENIED


def test_bucket_that_is_not_there(gate: Gate) -> None:
    """A missing bucket is a matter of the whole storage, not a missing file."""
    storage = ObjectStorage("s3://nothing-here-at-all", config(gate.url))
    for size in (10, LARGE):
        assert storage.sort_error(error_of(lambda: storage._save("a", upload(size)))) is ErrorKind.DENIED  # noqa: B023


def test_addresses() -> None:
    """With a public address nothing is signed; a store that can neither sign nor has one says so."""
    storage = ObjectStorage("s3://bucket", config("http://127.0.0.1:9"), base_url="https://files.example/media")
    assert storage.url("a b/ü.txt") == "https://files.example/media/a%20b/%C3%BC.txt"
    with pytest.raises(ValueError, match="base_url"):
        ObjectStorage("memory:///").url("a")


@pytest.mark.parametrize("url", ["nonsense", "ftp://host/", "s3://"])
def test_url_that_is_none(url: str) -> None:
    """An address of no object store is an error of the settings."""
    with pytest.raises(StorageConfigurationError, match="ObjectStorage"):
        ObjectStorage(url)


def test_option_that_is_none() -> None:
    """An option that the store does not know is an error of the settings, without its value."""
    with pytest.raises(StorageConfigurationError) as caught:
        ObjectStorage("s3://bucket", {"secret_acces_key": SECRET})
    assert SECRET not in str(caught.value)


FORKING = """
import os, sys
from django.conf import settings
settings.configure(USE_TZ=True)
from django.core.files.base import ContentFile
from queued_storage.remotes.objectstore import ObjectStorage
storage = ObjectStorage("memory:///")
if sys.argv[1] == "used":
    storage.save("a", ContentFile(b"x"))
if os.fork() == 0:
    try:
        storage.save("b", ContentFile(b"x"))
        os.write(1, b"saved")
    except Exception as error:
        os.write(1, type(error).__name__.encode())
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize(("used", "outcome"), [("used", "ForkedError"), ("unused", "saved")])
def test_forked_child(used: str, outcome: str) -> None:
    """A child whose parent used an object store gets an error in place of a hang; one whose parent did not, works."""
    process = subprocess.Popen([sys.executable, "-c", FORKING, used], cwd=ROOT, stdout=subprocess.PIPE, process_group=0)
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], 30)
        assert ready, "the child hangs"
        assert os.read(process.stdout.fileno(), 100).decode() == outcome
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


def test_the_error_of_a_forked_child_says_what_to_do(storage: ObjectStorage) -> None:
    """The message names the ways out, and the record waits for the settings."""
    assert "spawn" in str(ForkedError())
    assert storage.sort_error(ForkedError()) is ErrorKind.SETTINGS
    assert storage.sort_error(ValueError()) is None
