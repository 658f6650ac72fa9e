"""CouchDB: the round trip against pouchdb-server, and what only CouchDB does."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from django.core.exceptions import SuspiciousFileOperation

from queued_storage.exceptions import ErrorKind, MismatchError, StorageConfigurationError
from queued_storage.remotes.base import Stat
from queued_storage.remotes.couchdb import CouchDBStorage
from tests.remotes.contract import MB
from tests.remotes.gate import Gate, Request, gate_to
from tests.remotes.material import digests_of, error_of, text, upload
from tests.remotes.roundtrip import RoundTrip
from tests.servers.couchdb import PASSWORD, USER, CouchDB


class TestCouchDB(RoundTrip):
    """Every promise of the round trip, with a password."""

    backend = "queued_storage.remotes.couchdb.CouchDBStorage"
    digest_algorithms = frozenset({"md5"})
    checks_known_digests = frozenset({"md5", "sha256"})
    has_public_url = True
    # pouchdb-server holds files in memory, several times, and hangs up on one of 200 MB.
    largest = 100 * MB
    secrets = (PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())

    @pytest.fixture
    def options(self, couchdb_server: CouchDB) -> dict[str, Any]:
        """Return the options of the tests' database."""
        # pouchdb-server hashes in JavaScript: half a second for each megabyte, and more for the later ones.
        login = {"username": USER, "password": PASSWORD, "read_timeout": 400}
        return {"server": couchdb_server.url, "database": "files", **login}

    def options_at(self, options: dict[str, Any], port: int) -> dict[str, Any]:
        """Return the options of a server at ``port``."""
        return options | {"server": f"http://127.0.0.1:{port}", "connect_timeout": 0.4, "read_timeout": 0.4}

    def options_denied(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options with a password that begins like the right one."""
        return options | {"password": PASSWORD + "-not"}

    def content_type(self, storage: Any, name: str) -> str:
        """Ask the server."""
        with urllib.request.urlopen(storage.url(name), timeout=10) as answer:
            return str(answer.headers["Content-Type"])

    def test_a_database_that_is_not_there_is_denied(self, options: dict[str, Any], folder: str) -> None:
        """A missing database is never taken for a missing file."""
        storage = self.build(options | {"database": "nowhere"})
        self.assert_fails(storage, folder, ErrorKind.DENIED, 5)
        assert "database does not exist" in str(error_of(lambda: storage.stat(f"{folder}/x")))


@pytest.fixture
def gate(couchdb_server: CouchDB) -> Iterator[Gate]:
    """A gate in front of the server."""
    address = urlsplit(couchdb_server.url)
    with gate_to((str(address.hostname), int(address.port or 0))) as gate:
        yield gate


@pytest.fixture
def storage(gate: Gate) -> CouchDBStorage:
    """A storage behind the gate."""
    return CouchDBStorage(gate.url, "files")


@pytest.fixture
def name() -> str:
    """A name of this test."""
    return f"n{uuid.uuid4().hex}"


def compressed(storage: CouchDBStorage, name: str, gate: Gate) -> str:
    """Let the server say of the document what CouchDB says of types that it compresses; return the answer."""
    with urllib.request.urlopen(storage.url(name).rpartition("/")[0], timeout=10) as answer:
        document = json.loads(answer.read())
    stub = {"encoding": "gzip", "encoded_length": 10, "digest": "md5-" + base64.b64encode(b"0" * 16).decode()}
    document["_attachments"]["content"] |= stub
    gate.requests.clear()
    gate.fail("GET", 200, query="att_encoding_info", body=json.dumps(document).encode(), times=9)
    return str(document["_rev"])


def change_body(gate: Gate, old: bytes, new: bytes) -> list[bool]:
    """Let bytes change on their way to the server; the list returned says when it happened."""
    hits: list[bool] = []

    def change(request: Request) -> bool:
        if old in request.body:
            request.body = request.body.replace(old, new)
            hits.append(True)
        return False

    gate.fail("PUT").matches = change
    return hits


def test_a_transfer_costs_two_requests(storage: CouchDBStorage, gate: Gate, name: str) -> None:
    """One request stores the file and one checks it; a look, a size and a delete cost one, one and two."""
    storage._save(name, upload(100_000))
    assert [request.method for request in gate.requests] == ["PUT", "GET"]
    gate.requests.clear()
    storage.stat(name)
    storage.size(name)
    storage.delete(name)
    assert [request.method for request in gate.requests] == ["GET", "GET", "GET", "DELETE"]


def test_other_bytes_than_sent_are_taken_back(storage: CouchDBStorage, gate: Gate, name: str) -> None:
    """When the server's digest is another one the document is deleted and the error is a mismatch."""
    hits = change_body(gate, b"precious", b"specious")
    with pytest.raises(MismatchError):
        storage._save(name, text(b"precious bytes"))
    assert hits
    assert storage.exists(name) is False


@pytest.mark.parametrize("attachments", [{}, {"content": {"length": 99, "digest": "md5-AAAA"}}])
def test_a_changed_document_is_left_alone(
    storage: CouchDBStorage, gate: Gate, name: str, attachments: dict[str, Any]
) -> None:
    """If somebody else wrote the document in between, it is a mismatch, and their revision stays."""
    storage._save(name, text(b"theirs"))
    storage.delete(name)
    answer = {"_id": name, "_rev": "9-theirs", "_attachments": attachments}
    gate.fail("GET", 200, query="att_encoding_info", body=json.dumps(answer).encode())
    with pytest.raises(MismatchError, match="changed"):
        storage._save(name, text(b"ours"))
    assert gate.counts()["DELETE"] == 1


def test_a_type_that_couchdb_compresses_has_no_digest(storage: CouchDBStorage, gate: Gate, name: str) -> None:
    """The digest of compressed bytes is not the file's, so ``stat`` leaves it out, and reading works without."""
    storage._save(name, upload(50_000, content_type="text/plain"))
    compressed(storage, name, gate)
    assert storage.stat(name) == Stat(50_000)
    with storage.open(name) as stream:
        assert stream.read() == b"".join(upload(50_000).chunks())


def test_a_known_digest_goes_along(storage: CouchDBStorage, gate: Gate, name: str) -> None:
    """CouchDB is given the digest, so that it refuses other bytes before it stores them."""
    digests = digests_of(1000)
    storage._save(name, upload(1000, digests=digests))
    told = base64.b64encode(bytes.fromhex(digests["md5"])).decode()
    assert f'"digest": "md5-{told}"'.encode() in gate.requests[0].body


def test_an_opened_file_stays_the_one_that_was_opened(storage: CouchDBStorage, name: str) -> None:
    """After a seek the bytes come from the revision that was opened, as long as the server has it."""
    storage._save(name, text(b"old" * 100_000))
    with storage.open(name) as stream:
        storage.delete(name)
        storage._save(name, text(b"new" * 100_000))
        stream.seek(200_001)
        assert stream.read(3) == b"old"


@pytest.mark.parametrize("known", [True, False])
def test_a_compressed_file_is_read_back(storage: CouchDBStorage, gate: Gate, name: str, known: bool) -> None:
    """Without a digest that the server can compare, the upload is verified by reading it back."""
    digests = digests_of(50_000) if known else {}
    storage._save(name, upload(50_000))
    revision = compressed(storage, name, gate)
    storage._remove(name, revision)
    gate.requests.clear()
    gate.fail("PUT", 201, query=name, body=json.dumps({"rev": revision}).encode())
    if not known:
        gate.fail("GET", 200, query=f"{name}/content", body=b"".join(upload(50_000).chunks()))
    storage._save(name, upload(50_000, digests=digests))
    assert [request.method for request in gate.requests] == ["PUT", "GET"] + ["GET"] * (not known)


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (400, {}, ErrorKind.REFUSED),
        (401, {}, ErrorKind.DENIED),
        (403, {}, ErrorKind.DENIED),
        (413, {}, ErrorKind.REFUSED),
        (415, {}, ErrorKind.REFUSED),
        (422, {}, ErrorKind.MISMATCH),
        (429, {}, ErrorKind.THROTTLED),
        (500, {}, ErrorKind.PASSING),
        (502, {}, ErrorKind.PASSING),
        (503, {}, ErrorKind.PASSING),
        (503, {"Retry-After": "3"}, ErrorKind.THROTTLED),
        (507, {}, ErrorKind.PASSING),
    ],
)
def test_an_error_status_has_its_kind(
    storage: CouchDBStorage, gate: Gate, name: str, status: int, headers: dict[str, str], kind: ErrorKind
) -> None:
    """Every call that meets the status ends in an error of the kind, with the server's reason in ASCII."""
    body = json.dumps({"error": "x", "reason": "sö\nnicht"}).encode()
    fault = gate.fail("PUT", status, headers=headers, body=body)
    error = error_of(lambda: storage._save(name, text(b"x")))
    assert fault.hits == 1
    assert storage.sort_error(error) == kind
    assert r"s\xf6\nnicht" in str(error)
    gate.fail("GET", status, headers=headers, body=b"<html>")
    assert storage.sort_error(error_of(lambda: storage.stat(name))) == kind


def test_couchdbs_own_digest_check_is_a_mismatch(storage: CouchDBStorage, gate: Gate, name: str) -> None:
    """CouchDB says 400 when the digest that came with the bytes is not theirs."""
    gate.fail("PUT", 400, body=b'{"error": "content_md5_mismatch", "reason": "Possible message corruption."}')
    error = error_of(lambda: storage._save(name, text(b"x")))
    assert storage.sort_error(error) == ErrorKind.MISMATCH


@pytest.mark.parametrize("body", [b"", b"<html>not found</html>", b"[]", b'{"reason": "no such host"}'])
def test_only_couchdbs_own_404_means_missing(storage: CouchDBStorage, gate: Gate, name: str, body: bytes) -> None:
    """The error page of a proxy does not make a file disappear."""
    gate.fail("GET", 404, body=body, times=2)
    for call in [storage.stat, storage.open]:
        assert not isinstance(error_of(lambda call=call: call(name)), FileNotFoundError)  # type: ignore[misc]


@pytest.mark.parametrize("action", ["drop", "drop_after"])
def test_a_connection_lost_after_the_upload_is_passing(
    storage: CouchDBStorage, gate: Gate, name: str, action: str
) -> None:
    """Without an answer nobody knows; the error says so, and a look tells what happened."""
    fault = gate.fail("PUT", action=action)
    error = error_of(lambda: storage._save(name, upload(10_000)))
    assert fault.hits == 1
    assert storage.sort_error(error) == ErrorKind.PASSING
    assert storage.exists(name) is (action == "drop_after")


def test_a_download_that_breaks_off_is_an_error(storage: CouchDBStorage, gate: Gate, name: str) -> None:
    """Fewer bytes than the document promises are never read as the whole file."""
    storage._save(name, upload(100_000))
    fault = gate.fail("GET", 200, query="/content", body=b"".join(upload(60_000).chunks()))
    with storage.open(name) as stream, pytest.raises(OSError, match="bytes"):
        stream.read()
    assert fault.hits == 1


def test_a_download_of_other_bytes_is_a_mismatch(storage: CouchDBStorage, gate: Gate, name: str) -> None:
    """A file read from end to end is compared with its digest."""
    storage._save(name, text(b"precious"))
    gate.fail("GET", 200, query="/content", body=b"specious")
    with storage.open(name) as stream, pytest.raises(MismatchError):
        stream.read()


def test_a_document_without_attachment_takes_its_name(storage: CouchDBStorage, couchdb_server: CouchDB) -> None:
    """A foreign document is no file, but its name is taken, so that ``save()`` picks another one."""
    name = f"n{uuid.uuid4().hex}.txt"
    request = urllib.request.Request(f"{couchdb_server.url}/files/{name}", b"{}", {}, method="PUT")
    request.add_header("Content-Type", "application/json")
    urllib.request.urlopen(request, timeout=10).close()
    assert storage.stat(name) is None
    assert storage.exists(name)
    with pytest.raises(FileNotFoundError):
        storage.open(name)
    assert storage.save(name, text(b"x")) != name


@pytest.mark.parametrize("start", ["_", "%5F", "%25", "%", "_design/", "%255F"])
def test_names_at_the_top_keep_their_first_character(storage: CouchDBStorage, start: str) -> None:
    """Ids that start with an underscore are CouchDB's own; files of such names are stored all the same."""
    name = f"{start}{uuid.uuid4().hex}"
    storage._save(name, text(name.encode()))
    with urllib.request.urlopen(storage.url(name), timeout=10) as answer:
        assert answer.read() == name.encode()
    parent, _, base = name.rpartition("/")
    assert base in storage.listdir(parent)[1]


class SmallPages(CouchDBStorage):
    """Asks for two documents at a time."""

    page_size = 2


def test_a_long_listing_steps_over_folders(gate: Gate, name: str) -> None:
    """Pages follow each other with nothing lost or named twice, and a large folder costs one page."""
    storage = SmallPages(gate.url, "files")
    names = ["a", "aa", "b/1", "b/2", "b/3", "b/4", "b/5", "b/6", "b/7", "b/8", "b0", "c", "c d", "d/1", "d/2", "e"]
    for each in names:
        storage._save(f"{name}/{each}", text(b"x"))
    gate.requests.clear()
    assert storage.listdir(name) == (["b", "d"], ["a", "aa", "b0", "c", "c d", "e"])
    assert gate.counts()["GET"] <= 5
    folders, files = storage.listdir(f"{name}/b")
    assert (folders, files) == ([], [str(number) for number in range(1, 9)])


def test_credentials_come_from_url_or_environment(couchdb_server: CouchDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password in the server's URL or in the environment is used and cut out of every address."""
    host = couchdb_server.url.removeprefix("http://")
    written = CouchDBStorage(f"http://{USER}:{quote('not-' + PASSWORD)}@{host}", "files")
    assert written.sort_error(error_of(lambda: written.exists("x"))) == ErrorKind.DENIED
    assert PASSWORD not in repr(written) + written.url("x")
    assert CouchDBStorage(f"http://{USER}:%6F{PASSWORD[1:]}@{host}", "files").exists("x") is False
    monkeypatch.setenv("COUCHDB_USER", USER)
    monkeypatch.setenv("COUCHDB_PASSWORD", "not-" + PASSWORD)
    from_environment = CouchDBStorage(couchdb_server.url, "files")
    assert from_environment.sort_error(error_of(lambda: from_environment.exists("x"))) == ErrorKind.DENIED


@pytest.mark.parametrize(
    "options", [{"server": "couch.example:5984"}, {"server": "ftp://x"}, {"attachment": 'a"b'}, {"attachment": "_x"}]
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    """A server without http:// and an attachment name that breaks the request are said at once."""
    with pytest.raises(StorageConfigurationError):
        CouchDBStorage(**{"server": "http://couch.example", "database": "files", **options})


@pytest.mark.parametrize("bad", ["", ".", "..", "a/../b", "/etc/passwd", "../x"])
def test_names_that_lead_elsewhere_are_refused(storage: CouchDBStorage, gate: Gate, bad: str) -> None:
    """No method sends a request for a name that a server might resolve to another one."""
    for method in ["open", "exists", "stat", "size", "delete", "url"]:
        with pytest.raises(SuspiciousFileOperation):
            getattr(storage, method)(bad)
    assert gate.requests == []
