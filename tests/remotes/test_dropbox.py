"""Dropbox: the round trip on a stand-in that speaks its HTTP API, and what the functions do for django-storages."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from queued_storage.exceptions import ErrorKind, MismatchError
from queued_storage.remotes.base import Stat
from tests.conftest import serve
from tests.remotes.gate import Gate, gate_to
from tests.remotes.material import digests_of, error_of, text, upload
from tests.remotes.roundtrip import RoundTrip
from tests.servers import dropbox as servers
from tests.servers.dropbox import APP_SECRET, REFRESH_TOKEN, TOKEN

pytest.importorskip("storages.backends.dropbox", reason="needs the extra dropbox")

from dropbox import Dropbox as Client
from storages.backends.dropbox import DropboxStorage as PlainDropboxStorage

from queued_storage.remotes import dropbox
from queued_storage.remotes.dropbox_session import session_to
from queued_storage.remotes.dropbox_upload import ContentHash

MB = 1 << 20
LARGE = 17 * MB + 3  # three blocks
BACKEND = "queued_storage.remotes.dropbox.DropboxStorage"


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Dropbox]:
    """The stand-in, for the whole module."""
    yield from serve(servers.server)


@pytest.fixture(scope="module")
def the_gate(server: servers.Dropbox) -> Iterator[Gate]:
    """A gate in front of it, for the whole module."""
    with gate_to(("127.0.0.1", server.port)) as gate:
        yield gate


@pytest.fixture
def gate(the_gate: Gate) -> Gate:
    """The gate, open and with nothing counted."""
    the_gate.requests.clear()
    the_gate.faults.clear()
    return the_gate


@pytest.fixture
def storage(server: servers.Dropbox, gate: Gate) -> Iterator[dropbox.DropboxStorage]:
    """A storage of ours behind the gate, in a place of its own."""
    port = gate.server.server_address[1]
    storage = dropbox.DropboxStorage(**server.options(port, root_path=f"/{uuid.uuid4().hex}"))
    yield storage
    storage.client.close()


@pytest.fixture
def plain(server: servers.Dropbox, gate: Gate) -> Iterator[PlainDropboxStorage]:
    """django-storages' own class, as users configure it, led to the stand-in."""
    plain = PlainDropboxStorage(oauth2_access_token=TOKEN, root_path=f"/{uuid.uuid4().hex}")
    plain.client.close()
    plain.client = Client(TOKEN, session=session_to(gate.url))
    yield plain
    plain.client.close()


class TestDropbox(RoundTrip):
    """The whole contract on the stand-in."""

    backend = BACKEND
    checks_known_digests = frozenset({"crc32", "md5", "sha256"})
    has_times = True
    has_public_url = True
    # Dropbox goes by the ending of the name.
    keeps_content_type = False
    secrets = (TOKEN,)
    # Two blocks of 8 MB, and copies of them inside the client.
    memory_limit = 48 * MB

    @pytest.fixture
    def options(self, server: servers.Dropbox) -> dict[str, Any]:
        return server.options(root_path="/a place")

    def options_at(self, options: dict[str, Any], port: int) -> dict[str, Any]:
        at = {"server": f"http://127.0.0.1:{port}", "connect_timeout": 0.5, "read_timeout": 0.5}
        return options | at

    def options_denied(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | {"oauth2_access_token": TOKEN + "-not"}

    @pytest.mark.skip(reason="Dropbox takes upper and lower case for one name")
    def test_names_that_look_alike_are_different_files(self, storage: Any, folder: str) -> None:
        """Not here."""


def read(storage: Any, name: str) -> bytes:
    """Return the content of a file."""
    with storage.open(name) as file:
        body: bytes = file.read()
    return body


def routes(gate: Gate) -> list[str]:
    """Return what was asked of the server, in its order."""
    return [request.path.removeprefix("/2/files/") for request in gate.requests]


@pytest.mark.parametrize("size", [0, 1, 4 * MB, 8 * MB - 1, 8 * MB, 16 * MB, LARGE])
def test_functions_serve_the_plain_class(plain: PlainDropboxStorage, server: servers.Dropbox, size: int) -> None:
    """What was uploaded is measured by stat and has Dropbox's digest of the bytes; a taken name is refused."""
    assert dropbox.stat(plain, "sub/a b.bin") is None
    assert dropbox.upload(plain, "sub/a b.bin", upload(size, digests=digests_of(size))) == "sub/a b.bin"
    assert dropbox.stat(plain, "sub/a b.bin") == Stat(size)
    stored = server.entries[f"{plain.root_path}/sub/a b.bin"]
    assert stored["content"].read_bytes() == upload(size).read()
    assert stored["content_hash"] == ContentHash(upload(size).read()).hexdigest()
    # The same bytes, for which Dropbox would answer as if they were stored.
    with pytest.raises(FileExistsError):
        dropbox.upload(plain, "sub/a b.bin", upload(size))
    assert dropbox.stat(plain, "sub") is None


def test_names_differ_by_more_than_case(storage: dropbox.DropboxStorage) -> None:
    """A name that differs by case alone is taken, and nothing is replaced."""
    storage._save("Name.txt", text(b"first"))
    with pytest.raises(FileExistsError):
        storage._save("name.TXT", text(b"second"))
    assert read(storage, "Name.txt") == b"first"


def test_requests(storage: dropbox.DropboxStorage, gate: Gate) -> None:
    """A small file is one request, a large one a look and one a block; a look and an address are one each."""
    storage._save("small.bin", upload(100))
    storage.stat("small.bin")
    storage.url("small.bin")
    assert routes(gate) == ["upload", "get_metadata", "get_temporary_link"]
    gate.requests.clear()
    storage._save("large.bin", upload(LARGE))
    session = ["upload_session/start", "upload_session/append_v2", "upload_session/finish"]
    assert routes(gate) == ["get_metadata", *session]


@pytest.mark.parametrize("size", [100, LARGE])
def test_bytes_changed_on_the_way(storage: dropbox.DropboxStorage, gate: Gate, size: int) -> None:
    """Dropbox is given the digest of the bytes and refuses others; nothing is visible."""
    fault = gate.fail("POST", action="flip", query="files/upload")
    error = error_of(lambda: storage._save("a.bin", upload(size)))
    assert (fault.hits, storage.sort_error(error)) == (1, ErrorKind.MISMATCH)
    assert storage.stat("a.bin") is None


def test_other_bytes_stored(storage: dropbox.DropboxStorage, server: servers.Dropbox, monkeypatch: Any) -> None:
    """A file whose digest is not that of the bytes sent is taken back."""
    monkeypatch.setattr(servers, "content_hash_of", lambda path: "0" * 64)
    with pytest.raises(MismatchError):
        storage._save("a.bin", text(b"x"))
    assert storage.stat("a.bin") is None


def test_other_bytes_read(storage: dropbox.DropboxStorage, server: servers.Dropbox) -> None:
    """A download whose bytes are not those of the digest never ends well."""
    storage._save("a.bin", text(b"right"))
    server.entries[f"{storage.root_path}/a.bin"]["content"].write_bytes(b"wrong")
    with pytest.raises(MismatchError):
        read(storage, "a.bin")


def test_object_replaced_while_read(storage: dropbox.DropboxStorage) -> None:
    """A reader never gets bytes of a file that took the first one's place."""
    storage._save("a.bin", upload(3 * MB))
    with storage.open("a.bin") as file:
        file.read(10)
        storage.delete("a.bin")
        storage._save("a.bin", text(b"\0" * 3 * MB))
        file.seek(2 * MB)
        with pytest.raises(FileNotFoundError):
            file.read(10)


def test_long_listings_have_pages(storage: dropbox.DropboxStorage, gate: Gate, monkeypatch: Any) -> None:
    """A folder of more entries than a page is listed whole."""
    monkeypatch.setattr(servers, "PAGE", 3)
    for number in range(7):
        storage._save(f"many/{number}", text(b"x"))
    gate.requests.clear()
    assert sorted(storage.listdir("many")[1]) == list("0123456")
    assert routes(gate) == ["list_folder", "list_folder/continue", "list_folder/continue"]


@pytest.mark.parametrize("size", [100, LARGE])
def test_full_account_is_passing(storage: dropbox.DropboxStorage, server: servers.Dropbox, size: int) -> None:
    """An account without room says so; nothing is visible, and there may be room later."""
    server.quota = 10
    try:
        error = error_of(lambda: storage._save("a.bin", upload(size)))
    finally:
        server.quota = None
    assert storage.sort_error(error) is ErrorKind.PASSING
    assert storage.stat("a.bin") is None


def test_a_file_in_the_way_of_a_folder(storage: dropbox.DropboxStorage) -> None:
    """A name below a file is refused for good: no other name there would do."""
    storage._save("a", text(b"x"))
    error = error_of(lambda: storage._save("a/b", text(b"x")))
    assert storage.sort_error(error) is ErrorKind.REFUSED


def test_refresh_tokens(server: servers.Dropbox) -> None:
    """A storage with a refresh token fetches one token, for itself and for the client of transfers."""
    with gate_to(("127.0.0.1", server.port)) as gate:
        login = {"app_key": "app", "app_secret": APP_SECRET, "oauth2_refresh_token": REFRESH_TOKEN}
        storage = dropbox.DropboxStorage(server=gate.url, root_path=f"/{uuid.uuid4().hex}", **login)
        storage._save("a.bin", text(b"x"))
        assert read(storage, "a.bin") == b"x"
        storage.stat("a.bin")
        wrong = dropbox.DropboxStorage(server=gate.url, **login | {"oauth2_refresh_token": "another"})
        error = error_of(lambda: wrong.exists("x"))
        storage.client.close()
        wrong.client.close()
    assert wrong.sort_error(error) is ErrorKind.DENIED
    assert [request.path for request in gate.requests].count("/oauth2/token") <= 3
    shown = repr(vars(storage)) + repr(storage.deconstruct()) + repr(error) + repr(vars(wrong))
    for secret in (TOKEN, APP_SECRET, REFRESH_TOKEN):
        assert secret not in shown


def test_urls_lead_to_the_bytes(storage: dropbox.DropboxStorage) -> None:
    """The address of a file needs no credentials; a missing one has none."""
    storage._save("a b.txt", text(b"public"))
    with urllib.request.urlopen(storage.url("a b.txt"), timeout=10) as answer:
        assert answer.read() == b"public"
    with pytest.raises(FileNotFoundError):
        storage.url("missing")


def test_own_save_is_respected(plain: PlainDropboxStorage) -> None:
    """A subclass that saves in its own way keeps doing so, and still nothing is replaced."""

    class Stamped(PlainDropboxStorage):  # type: ignore[misc]
        def _save(self, name: str, content: Any) -> str:
            dropbox.upload(plain, f"stamped/{name}", content)
            return f"stamped/{name}"

    storage = Stamped(oauth2_access_token=TOKEN, root_path=plain.root_path)
    storage.client = plain.client
    assert dropbox.upload(storage, "a.bin", text(b"x")) == "stamped/a.bin"
    with pytest.raises(FileExistsError):
        dropbox.upload(storage, "stamped/a.bin", text(b"x"))


def answer_of(*tags: str) -> bytes:
    """Return the body of an error."""
    return json.dumps(servers.Refusal(*tags).body()).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, answer_of("invalid_access_token"), ErrorKind.DENIED),
        (401, b'{"error": {".tag": "missing_scope", "required_scope": "files.content.write"}}', ErrorKind.DENIED),
        (400, b"Error: the given OAuth 2 access token is malformed", ErrorKind.DENIED),
        (400, b"Error: something else", None),
        (429, json.dumps({"error": {"reason": {".tag": "too_many_requests"}, "retry_after": 9}}).encode(), "throttled"),
        (409, answer_of("path!", "too_many_write_operations"), ErrorKind.THROTTLED),
        (409, answer_of("path!", "no_write_permission"), ErrorKind.DENIED),
        (409, answer_of("path!", "disallowed_name"), ErrorKind.REFUSED),
        (409, answer_of("path!", "malformed_path"), ErrorKind.REFUSED),
        (409, answer_of("path!", "insufficient_space"), ErrorKind.PASSING),
        (409, answer_of("content_hash_mismatch"), ErrorKind.MISMATCH),
        (409, answer_of("something_new"), None),
        (500, b"", ErrorKind.PASSING),
        (503, b"", ErrorKind.PASSING),
        (418, b"", None),
    ],
)
def test_answers_are_sorted(
    storage: dropbox.DropboxStorage, gate: Gate, status: int, body: bytes, kind: str | None
) -> None:
    """Each answer of the server has its kind, after exactly one request."""
    gate.fail("POST", status, body=body, headers={"Content-Type": "application/json"}, times=9)
    error = error_of(lambda: storage._save("a.bin", text(b"x")))
    assert storage.sort_error(error) == kind, repr(error)
    assert routes(gate) == ["upload"]


def test_trouble_of_the_plain_class_is_not_repeated(plain: PlainDropboxStorage, gate: Gate) -> None:
    """A transfer through django-storages' class asks once; the ledger does the waiting."""
    gate.fail("POST", 500, times=9)
    error = error_of(lambda: dropbox.upload(plain, "a.bin", text(b"x")))
    assert dropbox.sort_error(error) is ErrorKind.PASSING
    assert routes(gate) == ["upload"]


def test_errors_of_the_client_are_sorted() -> None:
    """Errors of the network may pass; others are left to the general rules."""
    assert dropbox.sort_error(requests.ConnectionError()) is ErrorKind.PASSING
    assert dropbox.sort_error(MismatchError()) is ErrorKind.MISMATCH
    assert dropbox.sort_error(ValueError()) is None
