"""Azure: the round trip on Azurite, what the functions do for django-storages, and obstore's way to the same server."""

from __future__ import annotations

import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from queued_storage.exceptions import ErrorKind, MismatchError, TransferError
from queued_storage.remotes.base import Stat
from tests.conftest import serve
from tests.remotes.contract import NAMES
from tests.remotes.gate import Gate, gate_to
from tests.remotes.material import Upload, digests_of, error_of, text, upload
from tests.remotes.roundtrip import RoundTrip
from tests.servers import azure as servers
from tests.servers.azure import ACCOUNT, CONTAINER, KEY, Azure

pytest.importorskip("storages.backends.azure_storage", reason="needs the extra azure")

from azure.core.exceptions import AzureError, HttpResponseError
from storages.backends.azure_storage import AzureStorage as PlainAzureStorage

from queued_storage.remotes import azure

MB = 1 << 20
LARGE = 17 * MB + 3  # three blocks
BACKEND = "queued_storage.remotes.azure.AzureStorage"


@pytest.fixture(scope="module")
def server() -> Iterator[Azure]:
    """Azurite, for the whole module."""
    yield from serve(servers.server)


@pytest.fixture
def gate(server: Azure) -> Iterator[Gate]:
    """A gate in front of it, with nothing counted."""
    with gate_to(("127.0.0.1", server.port)) as gate:
        yield gate


@pytest.fixture
def storage(server: Azure, gate: Gate) -> azure.AzureStorage:
    """A storage of ours behind the gate, in a place of its own."""
    port = gate.server.server_address[1]
    string = server.connection_string(port=port)
    return azure.AzureStorage(connection_string=string, azure_container=CONTAINER, location=uuid.uuid4().hex)


@pytest.fixture
def plain(server: Azure) -> PlainAzureStorage:
    """django-storages' own class, as users configure it."""
    return PlainAzureStorage(**server.options(location=uuid.uuid4().hex, expiration_secs=60))


class TestAzure(RoundTrip):
    """The whole contract on Azurite."""

    backend = BACKEND
    digest_algorithms = frozenset({"md5"})
    checks_known_digests = frozenset({"crc32", "md5", "sha256"})
    has_times = True
    has_public_url = True
    secrets = (KEY,)
    # Azure cuts dots off the ends of names.
    names = [name for name in NAMES if not name.endswith(".")]
    # A block of 8 MB, one that is being read, and copies of both inside the client.
    memory_limit = 48 * MB

    @pytest.fixture
    def options(self, server: Azure) -> dict[str, Any]:
        return server.options(location="a place", expiration_secs=60)

    def options_at(self, options: dict[str, Any], port: int) -> dict[str, Any]:
        at = {"connection_string": Azure(port).connection_string()}
        return options | at | {"connect_timeout": 0.5, "read_timeout": 0.5}

    def options_denied(self, options: dict[str, Any]) -> dict[str, Any]:
        wrong = options["connection_string"].replace(KEY, KEY[::-1].strip("=") + "=")
        return options | {"connection_string": wrong}

    def content_type(self, storage: Any, name: str) -> str:
        with urllib.request.urlopen(storage.url(name), timeout=10) as answer:
            return str(answer.headers["Content-Type"])


class TestThroughObstore(TestAzure):
    """The whole contract for the class that goes through obstore."""

    backend = "queued_storage.remotes.objectstore.ObjectStorage"
    digest_algorithms = frozenset()
    # obstore signs for the addresses of Azure itself, which have no account in their path.
    has_public_url = False

    @pytest.fixture
    def options(self, server: Azure) -> dict[str, Any]:
        pytest.importorskip("obstore", reason="needs the extra obstore")
        login = {"account_name": ACCOUNT, "account_key": KEY, "endpoint": server.endpoint}
        return {"url": f"az://{CONTAINER}/through obstore", "config": login}

    def options_at(self, options: dict[str, Any], port: int) -> dict[str, Any]:
        at = {"config": options["config"] | {"endpoint": Azure(port).endpoint}}
        return options | at | {"connect_timeout": 0.5, "read_timeout": 0.5}

    def options_denied(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | {"config": options["config"] | {"account_key": KEY[::-1].strip("=") + "="}}

    def content_type(self, storage: Any, name: str) -> str:
        blob = storage.server.client().get_blob_client(f"through obstore/{name}")
        return str(blob.get_blob_properties().content_settings.content_type)

    @pytest.fixture
    def storage(self, options: dict[str, Any], server: Azure) -> Any:
        storage = self.build(options)
        storage.server = server
        return storage


def read(storage: Any, name: str) -> bytes:
    """Return the content of a file."""
    with storage.open(name) as file:
        body: bytes = file.read()
    return body


@pytest.mark.parametrize("size", [0, 1, 8 * MB - 1, 8 * MB, LARGE])
def test_functions_serve_the_plain_class(plain: PlainAzureStorage, size: int) -> None:
    """What was uploaded is measured by stat, with its MD5, and read by django-storages."""
    assert azure.stat(plain, "sub/a b.bin") is None
    assert azure.upload(plain, "sub/a b.bin", upload(size)) == "sub/a b.bin"
    assert azure.stat(plain, "sub/a b.bin") == Stat(size, {"md5": digests_of(size)["md5"]})
    assert read(plain, "sub/a b.bin") == upload(size).read()


def test_requests(storage: azure.AzureStorage, gate: Gate) -> None:
    """A small file is one PUT, a large one a look, a PUT a block and one more; a look is one HEAD."""
    storage._save("small.bin", upload(100))
    assert gate.counts() == {"PUT": 1}
    storage.stat("small.bin")
    assert gate.counts() == {"PUT": 1, "HEAD": 1}
    gate.requests.clear()
    storage._save("large.bin", upload(LARGE))
    assert gate.counts() == {"HEAD": 1, "PUT": 4}


@pytest.mark.parametrize("size", [100, LARGE])
def test_upload_never_replaces(server: Azure, size: int) -> None:
    """A taken name keeps its bytes, though the storage is told to overwrite."""
    plain = PlainAzureStorage(**server.options(location=uuid.uuid4().hex, overwrite_files=True))
    azure.upload(plain, "a.bin", text(b"first"))
    with pytest.raises(FileExistsError):
        azure.upload(plain, "a.bin", upload(size))
    assert read(plain, "a.bin") == b"first"


def test_name_taken_during_a_large_upload(plain: PlainAzureStorage, server: Azure) -> None:
    """Somebody who takes the name while blocks are on their way keeps it."""

    class Overtaken(Upload):
        overtaken = False

        def read(self, size: int = -1) -> Any:
            block = super().read(size)
            if not block and not self.overtaken:
                self.overtaken = True
                # Azurite takes a name with blocks on their way for taken; Azure does not.
                server.client().upload_blob(f"{plain.location}/a.bin", b"first", overwrite=True)
            return block

    with pytest.raises(FileExistsError):
        azure.upload(plain, "a.bin", Overtaken(upload(LARGE).file, LARGE))
    assert read(plain, "a.bin") == b"first"


@pytest.mark.parametrize("size", [100, LARGE])
def test_bytes_changed_on_the_way(storage: azure.AzureStorage, gate: Gate, size: int) -> None:
    """The server refuses bytes that were changed on the way; that is a mismatch and nothing is visible."""
    fault = gate.fail("PUT", action="flip")
    error = error_of(lambda: storage._save("a.bin", upload(size)))
    assert fault.hits == 1
    assert storage.sort_error(error) is ErrorKind.MISMATCH
    assert storage.stat("a.bin") is None


@pytest.mark.parametrize("size", [100, LARGE])
def test_source_with_other_bytes(plain: PlainAzureStorage, size: int) -> None:
    """A source whose bytes are not those announced raises MismatchError before anything is visible."""
    for content in (upload(size, digests={"crc32": "00000000"}), upload(size, end_at=size - 1)):
        with pytest.raises(MismatchError):
            azure.upload(plain, "a.bin", content)
    assert azure.stat(plain, "a.bin") is None


def test_content_settings_are_the_storages_own(server: Azure) -> None:
    """Type, cache control and object parameters arrive as django-storages would send them, small or large."""
    more = {"cache_control": "max-age=9", "object_parameters": {"content_disposition": "attachment"}}
    plain = PlainAzureStorage(**server.options(location=uuid.uuid4().hex, **more))
    for name, size in (("small.csv", 10), ("large.csv", LARGE)):
        azure.upload(plain, name, upload(size, content_type="text/x-own"))
        found = server.client().get_blob_client(f"{plain.location}/{name}").get_blob_properties().content_settings
        assert (found.content_type, found.cache_control) == ("text/x-own", "max-age=9")
        assert found.content_disposition == "attachment"


@pytest.mark.parametrize("name", [".hidden", "a.", "sub/.hidden", "sub./x"])
def test_names_that_would_be_others(plain: PlainAzureStorage, storage: azure.AzureStorage, name: str) -> None:
    """A name that django-storages or Azure would change is refused for good; our class keeps leading dots."""
    ends = name.endswith(".") or "./" in name
    if name != "sub/.hidden":
        plain.location = "" if name.startswith(".") else plain.location
        error = error_of(lambda: azure.upload(plain, name, text(b"x")))
        assert azure.sort_error(error) is ErrorKind.REFUSED
    if ends:
        assert storage.sort_error(error_of(lambda: storage._save(name, text(b"x")))) is ErrorKind.REFUSED
    else:
        assert storage._save(name, text(b"x")) == name
        assert storage.listdir(name.rpartition("/")[0])[1] == [".hidden"]


def test_own_save_is_respected(server: Azure) -> None:
    """A subclass that saves in its own way keeps doing so, and still nothing is replaced."""

    class Stamped(PlainAzureStorage):  # type: ignore[misc]
        def _save(self, name: str, content: Any) -> str:
            return str(super()._save(f"stamped/{name}", content))

    storage = Stamped(**server.options(location=uuid.uuid4().hex))
    assert azure.upload(storage, "a.bin", text(b"x")) == "stamped/a.bin"
    with pytest.raises(FileExistsError):
        azure.upload(storage, "stamped/a.bin", text(b"x"))


def test_container_that_is_not_there(server: Azure) -> None:
    """A missing container is a matter of the whole storage in every call, never a missing file."""
    storage = azure.AzureStorage(**server.options() | {"azure_container": "nowhere"})
    calls: list[Any] = [storage.stat, storage.exists, storage.size, storage.open, storage.delete, storage.listdir]
    for call in [*calls, lambda name: storage._save(name, text(b"x"))]:
        error = error_of(lambda: call("x"))  # noqa: B023 - called at once
        assert storage.sort_error(error) is ErrorKind.DENIED, call


def test_object_replaced_while_read(storage: azure.AzureStorage, server: Azure) -> None:
    """A reader never gets bytes of a blob that took the first one's place."""
    storage._save("a.bin", upload(LARGE))
    with storage.open("a.bin") as file:
        file.read(10)
        server.client().upload_blob(f"{storage.location}/a.bin", b"\0" * LARGE, overwrite=True)
        file.seek(9 * MB)
        with pytest.raises(HttpResponseError):
            file.read(10)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AuthenticationFailed", ErrorKind.DENIED),
        (403, "AuthorizationPermissionMismatch", ErrorKind.DENIED),
        (401, "NoAuthenticationInformation", ErrorKind.DENIED),
        (404, "ContainerNotFound", ErrorKind.DENIED),
        (409, "BlobArchived", ErrorKind.REFUSED),
        (413, "RequestBodyTooLarge", ErrorKind.REFUSED),
        (503, "ServerBusy", ErrorKind.THROTTLED),
        (429, "Whatever", ErrorKind.THROTTLED),
        (400, "Md5Mismatch", ErrorKind.MISMATCH),
        (500, "InternalError", ErrorKind.PASSING),
        (500, "OperationTimedOut", ErrorKind.PASSING),
        (502, "", ErrorKind.PASSING),
        (418, "Teapot", None),
    ],
)
def test_answers_are_sorted(
    storage: azure.AzureStorage, gate: Gate, status: int, code: str, kind: ErrorKind | None
) -> None:
    """Each answer of the server has its kind, after exactly one request, and no secret in its text."""
    gate.fail("PUT", status, code, times=9)
    error = error_of(lambda: storage._save("a.bin", text(b"x")))
    assert storage.sort_error(error) is kind
    assert gate.counts() == {"PUT": 1}
    signature = gate.requests[0].headers["Authorization"].rpartition(":")[2]
    for secret in (KEY, signature):
        assert secret not in str(error) + repr(error) + repr(storage) + repr(storage.deconstruct())


def test_errors_of_the_client_are_sorted() -> None:
    """An error without an answer may pass; one of somebody else is left to the general rules."""
    assert azure.sort_error(AzureError("what")) is ErrorKind.PASSING
    assert azure.sort_error(TransferError(kind=ErrorKind.REFUSED)) is ErrorKind.REFUSED
    assert azure.sort_error(ValueError()) is None
