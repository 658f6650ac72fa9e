"""Google Cloud Storage: the round trip on an emulator with preconditions, and what the functions do."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import pytest
import requests
from google.auth import exceptions as auth_errors

from queued_storage.exceptions import ErrorKind, MismatchError
from queued_storage.remotes.base import Stat
from tests.conftest import serve
from tests.remotes.gate import Gate, Request, gate_to
from tests.remotes.material import Upload, digests_of, error_of, text, upload
from tests.remotes.roundtrip import RoundTrip
from tests.servers import gcs as servers
from tests.servers.gcs import BUCKET, GCS

pytest.importorskip("storages.backends.gcloud", reason="needs the extra google")

from google.api_core.exceptions import GoogleAPICallError
from storages.backends.gcloud import GoogleCloudStorage as PlainGoogleStorage

from queued_storage.remotes import gcloud

MB = 1 << 20
LARGE = 17 * MB + 3  # three chunks
BACKEND = "queued_storage.remotes.gcloud.GoogleCloudStorage"


@pytest.fixture(scope="module")
def server() -> Iterator[GCS]:
    """The emulator, for the whole module."""
    yield from serve(servers.server)


@pytest.fixture(scope="module")
def the_gate(server: GCS) -> Iterator[Gate]:
    """A gate that keeps to the precondition that the emulator ignores."""
    with gate_to(("127.0.0.1", server.port)) as gate:

        def instead(request: Request) -> tuple[int, str] | None:
            wanted = request.method == "POST" and "ifGenerationMatch=0" in request.path
            return (412, "conditionNotMet") if wanted and exists(server, name_in(request)) else None

        gate.instead = instead
        yield gate


def name_in(request: Request) -> str:
    """Return the name of the object that an upload is about to create."""
    body = request.body
    start = body.index(b"{")
    decoded = json.JSONDecoder().raw_decode(body[start : start + 5000].decode("utf-8", "replace"))[0]
    return str(decoded["name"])


def exists(server: GCS, key: str) -> bool:
    """Ask the emulator itself."""
    address = f"http://127.0.0.1:{server.port}/storage/v1/b/{BUCKET}/o/{quote(key, safe='')}"
    return requests.get(address, timeout=10).status_code == 200


@pytest.fixture
def gate(the_gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """The gate, open and with nothing counted."""
    # The client asks once in the background where a bucket is, at a moment that no test knows.
    monkeypatch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    the_gate.requests.clear()
    the_gate.faults.clear()
    return the_gate


@pytest.fixture
def storage(server: GCS, gate: Gate) -> gcloud.GoogleCloudStorage:
    """A storage of ours behind the gate, in a place of its own."""
    port = gate.server.server_address[1]
    return gcloud.GoogleCloudStorage(**server.options(port, location=uuid.uuid4().hex))


@pytest.fixture
def plain(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> PlainGoogleStorage:
    """django-storages' own class, as users configure it."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gate.url)
    return PlainGoogleStorage(bucket_name=BUCKET, project_id="tests", location=uuid.uuid4().hex)


class TestGoogle(RoundTrip):
    """The whole contract on the emulator."""

    backend = BACKEND
    digest_algorithms = frozenset({"md5"})
    checks_known_digests = frozenset({"crc32", "md5", "sha256"})
    has_times = True
    has_public_url = True
    # The emulator asks nobody for credentials.
    has_credentials = False
    # Two chunks of 8 MB, and copies of them inside the client.
    memory_limit = 64 * MB

    @pytest.fixture
    def options(self, server: GCS, gate: Gate) -> dict[str, Any]:
        return server.options(gate.server.server_address[1], location="a place")

    def options_at(self, options: dict[str, Any], port: int) -> dict[str, Any]:
        return options | {"api_endpoint": f"http://127.0.0.1:{port}", "connect_timeout": 0.5, "read_timeout": 0.5}

    def content_type(self, storage: Any, name: str) -> str:
        with urllib.request.urlopen(storage.url(name), timeout=10) as answer:
            return str(answer.headers["Content-Type"])


def read(storage: Any, name: str) -> bytes:
    """Return the content of a file."""
    with storage.open(name) as file:
        body: bytes = file.read()
    return body


@pytest.mark.parametrize("size", [0, 1, 8 * MB - 1, 8 * MB, 16 * MB, LARGE])
def test_functions_serve_the_plain_class(plain: PlainGoogleStorage, size: int) -> None:
    """What was uploaded is measured by stat, with its MD5, and read by django-storages."""
    assert gcloud.stat(plain, "sub/a b.bin") is None
    assert gcloud.upload(plain, "sub/a b.bin", upload(size, digests=digests_of(size))) == "sub/a b.bin"
    assert gcloud.stat(plain, "sub/a b.bin") == Stat(size, {"md5": digests_of(size)["md5"]})
    assert read(plain, "sub/a b.bin") == upload(size).read()


def test_requests(storage: gcloud.GoogleCloudStorage, gate: Gate) -> None:
    """A small file is one POST, a large one a POST and a PUT a chunk; a look is one GET."""
    storage._save("small.bin", upload(100))
    assert gate.counts() == {"POST": 1}
    storage.stat("small.bin")
    assert gate.counts() == {"POST": 1, "GET": 1}
    gate.requests.clear()
    storage._save("large.bin", upload(LARGE))
    assert gate.counts() == {"POST": 1, "PUT": 3}


@pytest.mark.parametrize("size", [100, LARGE])
def test_upload_never_replaces(plain: PlainGoogleStorage, size: int) -> None:
    """A taken name keeps its bytes, though django-storages overwrites by default."""
    gcloud.upload(plain, "a.bin", text(b"first"))
    with pytest.raises(FileExistsError):
        gcloud.upload(plain, "a.bin", upload(size))
    assert read(plain, "a.bin") == b"first"


@pytest.mark.parametrize("size", [100, LARGE])
def test_known_digest_is_given_to_the_server(storage: gcloud.GoogleCloudStorage, gate: Gate, size: int) -> None:
    """The MD5 that is known beforehand travels with the metadata, so that the server can refuse other bytes."""
    storage._save("a.bin", upload(size, digests=digests_of(size)))
    first = next(request for request in gate.requests if request.method == "POST")
    assert b"md5Hash" in first.body


@pytest.mark.parametrize("size", [100, 8 * MB, LARGE])
def test_source_with_other_bytes(plain: PlainGoogleStorage, size: int) -> None:
    """A source whose bytes are not those announced raises MismatchError before anything is visible."""
    for content in (upload(size, digests={"crc32": "00000000"}), upload(size, end_at=size - 1)):
        with pytest.raises(MismatchError):
            gcloud.upload(plain, "a.bin", content)
    assert gcloud.stat(plain, "a.bin") is None


@pytest.mark.parametrize("size", [10, LARGE])
def test_parameters_are_the_storages_own(plain: PlainGoogleStorage, server: GCS, size: int) -> None:
    """The content type is that of the content, object parameters and ACL are those of the storage."""
    plain.object_parameters = {"cache_control": "max-age=9", "acl": "publicRead"}
    gcloud.upload(plain, "a.csv", upload(size, content_type="text/x-own"))
    blob = server.client().get_blob(f"{plain.location}/a.csv")
    assert (blob.content_type, blob.cache_control) == ("text/x-own", "max-age=9")
    gcloud.upload(plain, "b.csv", upload(size))
    assert server.client().get_blob(f"{plain.location}/b.csv").content_type == "text/csv"


def test_acl_is_passed_on(storage: gcloud.GoogleCloudStorage, gate: Gate) -> None:
    """The predefined ACL goes along with the upload."""
    storage.default_acl = "publicRead"
    storage._save("a.bin", text(b"x"))
    assert "predefinedAcl=publicRead" in gate.requests[0].path


def test_gzip_is_left_to_the_storage(plain: PlainGoogleStorage) -> None:
    """What the storage compresses goes its own way, and its size on the server is not claimed."""
    plain.gzip = True
    gcloud.upload(plain, "a.css", text(b"a { b: c }" * 100, content_type="text/css"))
    assert gcloud.stat(plain, "a.css") == Stat(None)
    with pytest.raises(FileExistsError):
        gcloud.upload(plain, "a.css", text(b"other", content_type="text/css"))


def test_own_save_is_respected(plain: PlainGoogleStorage) -> None:
    """A subclass that saves in its own way keeps doing so, and still nothing is replaced."""

    class Stamped(PlainGoogleStorage):  # type: ignore[misc]
        def _save(self, name: str, content: Any) -> str:
            return str(super()._save(f"stamped/{name}", content))

    storage = Stamped(bucket_name=BUCKET, project_id="tests", location=uuid.uuid4().hex)
    assert gcloud.upload(storage, "a.bin", text(b"x")) == "stamped/a.bin"
    with pytest.raises(FileExistsError):
        gcloud.upload(storage, "stamped/a.bin", text(b"x"))


def test_object_replaced_while_read(storage: gcloud.GoogleCloudStorage, gate: Gate) -> None:
    """Every range is asked of the generation that was opened first."""
    storage._save("a.bin", upload(5 * MB))
    generation = storage._blob("a.bin").generation
    gate.requests.clear()
    read(storage, "a.bin")
    ranges = [request for request in gate.requests if "alt=media" in request.path]
    assert len(ranges) == 2
    assert all(f"ifGenerationMatch={generation}" in unquote(request.path) for request in ranges)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (401, "Invalid Credentials", ErrorKind.DENIED),
        (403, "does not have storage.objects.create access", ErrorKind.DENIED),
        (404, "The specified bucket does not exist.", ErrorKind.DENIED),
        (429, "rateLimitExceeded", ErrorKind.THROTTLED),
        (503, "Backend Error", ErrorKind.THROTTLED),
        (400, "Provided MD5 hash doesn't match calculated MD5 hash", ErrorKind.MISMATCH),
        (413, "uploadTooLarge", ErrorKind.REFUSED),
        (500, "Internal", ErrorKind.PASSING),
        (502, "", ErrorKind.PASSING),
        (410, "Gone", ErrorKind.PASSING),
        (400, "Something else", None),
    ],
)
@pytest.mark.parametrize("size", [100, LARGE])
def test_answers_are_sorted(
    storage: gcloud.GoogleCloudStorage, gate: Gate, size: int, status: int, message: str, kind: ErrorKind | None
) -> None:
    """Each answer of the server has its kind, after exactly one request."""
    body = f'{{"error": {{"code": {status}, "message": "{message}"}}}}'.encode()
    headers = {"Content-Type": "application/json"}
    gate.fail("POST", status, body=body, headers=headers, times=9)
    error = error_of(lambda: storage._save("a.bin", upload(size)))
    assert storage.sort_error(error) is kind, repr(error)
    assert gate.counts() == {"POST": 1}


def test_hidden_and_missing_bucket_are_not_absent(storage: gcloud.GoogleCloudStorage, gate: Gate) -> None:
    """404 of an object is None; 403, and 404 of the bucket, are errors, never "absent" or "deleted"."""
    assert storage.stat("nothing") is None
    body = b'{"error": {"code": 404, "message": "The specified bucket does not exist."}}'
    for status in (403, 404):
        for method, call in (("GET", storage.stat), ("GET", storage.size), ("DELETE", storage.delete)):
            gate.fail(method, status, body=body, headers={"Content-Type": "application/json"})
            error = error_of(lambda: call("nothing"))  # noqa: B023 - called at once
            assert storage.sort_error(error) is ErrorKind.DENIED


@pytest.mark.parametrize("size", [100, LARGE])
def test_source_that_breaks(plain: PlainGoogleStorage, size: int) -> None:
    """A source that fails half way is its own error, and nothing is visible."""

    class Broken(Upload):
        def read(self, count: int = -1) -> Any:
            if self.file.tell() >= size // 2:
                raise ZeroDivisionError("the source broke")
            return super().read(min(count, size // 2))

    with pytest.raises(ZeroDivisionError):
        gcloud.upload(plain, "a.bin", Broken(upload(size).file, size))
    assert gcloud.stat(plain, "a.bin") is None


def test_errors_of_the_client_are_sorted() -> None:
    """Errors of the network may pass, those of the login are denied, others are left to the general rules."""
    transport: Any = auth_errors.TransportError
    missing: Any = auth_errors.DefaultCredentialsError
    assert gcloud.sort_error(transport("x")) is ErrorKind.PASSING
    assert gcloud.sort_error(missing("x")) is ErrorKind.DENIED
    assert gcloud.sort_error(requests.ConnectionError()) is ErrorKind.PASSING
    assert gcloud.sort_error(GoogleAPICallError("x")) is ErrorKind.PASSING
    assert gcloud.sort_error(ValueError()) is None
