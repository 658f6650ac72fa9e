"""OpenStack Swift: the round trip against Debian's Swift, and what only Swift does."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from queued_storage.exceptions import ErrorKind, MismatchError, StorageConfigurationError
from queued_storage.remotes.base import Stat
from tests.remotes.gate import Gate, Request, gate_to
from tests.remotes.material import check_bytes, digests_of, error_of, text, upload
from tests.remotes.roundtrip import RoundTrip
from tests.servers.keystone import Keystone
from tests.servers.swift import PASSWORD, TEMP_URL_KEY, USER, Swift

pytest.importorskip("swiftclient", reason="needs the extra swift")

from queued_storage.remotes.swift import SwiftStorage


class TestSwift(RoundTrip):
    """Every promise of the round trip, with signed addresses."""

    backend = "queued_storage.remotes.swift.SwiftStorage"
    digest_algorithms = frozenset({"md5"})
    checks_known_digests = frozenset({"md5", "sha256"})
    has_times = True
    has_public_url = True
    creates_atomically = False  # Swift looks at If-None-Match when a request starts; of two at once the later one stays
    secrets = (PASSWORD, TEMP_URL_KEY)

    @pytest.fixture
    def options(self, swift_server: Swift) -> dict[str, Any]:
        """Return the options of the tests' container."""
        return {"container": swift_server.container, "temp_url_key": TEMP_URL_KEY, **login(swift_server)}

    def options_at(self, options: dict[str, Any], port: int) -> dict[str, Any]:
        """Return the options of a server at ``port``."""
        address = {"auth_url": f"http://127.0.0.1:{port}/auth/v1.0", "connect_timeout": 0.4, "read_timeout": 0.4}
        return options | address

    def options_denied(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options with a password that begins like the right one."""
        return options | {"password": PASSWORD + "-not"}

    @pytest.fixture(autouse=True)
    def _remember(self, swift_server: Swift) -> None:
        self.swift = swift_server

    def content_type(self, storage: Any, name: str) -> str:
        """Ask the server."""
        return self.swift.send("HEAD", f"/{self.swift.container}/{quote(name)}")["Content-Type"]

    def test_a_container_that_is_not_there_is_denied(self, options: dict[str, Any], folder: str) -> None:
        """A missing container is never taken for a missing file."""
        self.assert_fails(self.build(options | {"container": "nowhere"}), folder, ErrorKind.DENIED, 5)

    def test_a_server_that_falls_silent_after_the_login_is_passing(self, options: dict[str, Any], folder: str) -> None:
        """The time-outs hold for the requests as they do for the login."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(50)
            address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/AUTH_test"
            storage = self.build(options | {"storage_url": address, "connect_timeout": 0.4, "read_timeout": 0.4})
            self.assert_fails(storage, folder, ErrorKind.PASSING, 5)

    def test_swiftclient_logs_no_part_of_a_secret(
        self, options: dict[str, Any], folder: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Of password and token not even the first characters are logged."""
        with caplog.at_level("DEBUG"):
            storage = self.build(options)
            assert not storage.exists(f"{folder}/x")
        token = str(storage._login.known.token)
        assert "X-Auth-Token" in caplog.text, "swiftclient logged nothing: nothing was tried"
        assert token[:12] not in caplog.text
        assert PASSWORD[:4] not in caplog.text


def login(swift: Swift) -> dict[str, Any]:
    """Return the options that log in."""
    return {"auth_url": swift.auth_url, "username": USER, "password": PASSWORD}


@pytest.fixture
def gate(swift_server: Swift) -> Iterator[Gate]:
    """A gate in front of the server."""
    address = urlsplit(swift_server.url)
    with gate_to((str(address.hostname), int(address.port or 0))) as gate:
        yield gate


@pytest.fixture
def storage(swift_server: Swift, gate: Gate) -> SwiftStorage:
    """A storage whose requests, but not its logins, pass the gate."""
    address = urlsplit(swift_server.token()[0])
    return SwiftStorage(swift_server.container, storage_url=gate.url + address.path, **login(swift_server))


@pytest.fixture
def name() -> str:
    """A name of this test."""
    return f"n{uuid.uuid4().hex}"


def methods(gate: Gate) -> list[str]:
    """Return what passed the gate, and forget it."""
    passed = [request.method for request in gate.requests]
    gate.requests.clear()
    return passed


def test_a_transfer_costs_one_request(storage: SwiftStorage, gate: Gate, name: str) -> None:
    """The server's answer to the PUT has the digest, so nothing else is asked; reading costs one request too."""
    storage._save(name, upload(100_000))
    assert methods(gate) == ["PUT"]
    with storage.open(name) as stream:
        assert check_bytes(stream, 100_000) == 100_000
    assert methods(gate) == ["GET"]
    storage.stat(name)
    storage.delete(name)
    assert methods(gate) == ["HEAD", "DELETE"]
    for _ in range(2):
        assert storage.stat(name) is None
    assert methods(gate) == ["HEAD", "HEAD"]


@pytest.mark.parametrize("known", [True, False])
def test_other_bytes_than_sent_are_a_mismatch(storage: SwiftStorage, gate: Gate, name: str, known: bool) -> None:
    """A digest known beforehand makes the server refuse (422); without one its answer shows it and it is deleted."""
    hits: list[bool] = []

    def change(request: Request) -> bool:
        hits.append(True)
        request.body = b"specious"
        return False

    gate.fail("PUT").matches = lambda request: request.method == "PUT" and change(request)
    md5 = hashlib.md5(b"precious", usedforsecurity=False).hexdigest()
    error = error_of(lambda: storage._save(name, text(b"precious", digests={"md5": md5} if known else {})))
    assert hits
    assert storage.sort_error(error) == ErrorKind.MISMATCH
    assert methods(gate) == (["PUT"] if known else ["PUT", "DELETE"])
    assert storage.exists(name) is False


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (400, {}, ErrorKind.REFUSED),
        (403, {}, ErrorKind.DENIED),
        (404, {}, ErrorKind.DENIED),
        (408, {}, ErrorKind.PASSING),
        (409, {}, ErrorKind.PASSING),
        (413, {}, ErrorKind.REFUSED),
        (429, {}, ErrorKind.THROTTLED),
        (498, {}, ErrorKind.THROTTLED),
        (500, {}, ErrorKind.PASSING),
        (503, {}, ErrorKind.PASSING),
        (503, {"Retry-After": "3"}, ErrorKind.THROTTLED),
        (507, {}, ErrorKind.PASSING),
    ],
)
def test_an_error_status_has_its_kind(
    storage: SwiftStorage, gate: Gate, name: str, status: int, headers: dict[str, str], kind: ErrorKind
) -> None:
    """A refused PUT ends in an error of the kind, after one request."""
    gate.fail("PUT", status, headers=headers, body=b"")
    assert storage.sort_error(error_of(lambda: storage._save(name, text(b"x")))) == kind
    assert methods(gate) == ["PUT"]


def test_a_full_container_refuses_the_file(swift_server: Swift, name: str) -> None:
    """A quota is said before the bytes are sent, also of a large file, and is a refusal."""
    swift_server.send("PUT", "/small", X_Container_Meta_Quota_Bytes="1000")
    storage = SwiftStorage("small", **login(swift_server))
    storage._save(name, upload(500))
    started = time.monotonic()
    error = error_of(lambda: storage._save(name + "2", upload(20_000_000)))
    assert storage.sort_error(error) == ErrorKind.REFUSED
    assert "413" in str(error)
    assert time.monotonic() - started < 5
    assert storage.listdir("") == ([], [name])


@pytest.mark.parametrize("method", ["_save", "open", "stat"])
def test_a_token_that_ran_out_is_renewed(
    storage: SwiftStorage, swift_server: Swift, gate: Gate, name: str, method: str
) -> None:
    """When the server no longer knows the token, the storage logs in again and goes on, once."""
    storage._save(name + ".old", text(b"old"))
    swift_server.forget_tokens()
    gate.requests.clear()
    if method == "_save":
        storage._save(name, upload(3_000_000))
        assert storage.size(name) == 3_000_000
    else:
        assert getattr(storage, method)(name + ".old")
    assert methods(gate)[:2] == [{"_save": "PUT", "open": "GET", "stat": "HEAD"}[method]] * 2
    fault = gate.fail("GET", 401, body=b"", times=9)
    assert storage.sort_error(error_of(lambda: storage.open(name + ".old"))) == ErrorKind.DENIED
    assert fault.hits == 2


def test_a_segmented_object_has_no_digest(storage: SwiftStorage, swift_server: Swift, name: str) -> None:
    """The tag of an object made of segments is not the digest of its bytes, and is not taken for it."""
    for number in range(2):
        storage._save(f"{name}.parts/{number}", text(b"part"))
    parts = f"{swift_server.container}/{name}.parts/"
    swift_server.send("PUT", f"/{swift_server.container}/{name}.dynamic", X_Object_Manifest=parts)
    manifest = json.dumps([{"path": f"/{parts}{number}"} for number in range(2)]).encode()
    swift_server.send("PUT", f"/{swift_server.container}/{name}.static?multipart-manifest=put", manifest)
    for kind in ["dynamic", "static"]:
        assert storage.stat(f"{name}.{kind}") == Stat(8)
        with storage.open(f"{name}.{kind}") as stream:
            assert stream.read() == b"partpart"


def test_reading_elsewhere_asks_for_the_same_object(storage: SwiftStorage, gate: Gate, name: str) -> None:
    """After a seek the range comes from the object that was opened; another one in its place is an error."""
    storage._save(name, upload(1_000_000))
    with storage.open(name) as stream:
        stream.seek(900_000)
        assert len(stream.read()) == 100_000
        assert gate.requests[-1].headers["Range"] == "bytes=900000-"
        storage.delete(name)
        storage._save(name, text(b"another" * 150_000))
        stream.seek(100)
        with pytest.raises(OSError, match="412"):
            stream.read(10)


def test_a_download_that_breaks_off_is_an_error(storage: SwiftStorage, gate: Gate, name: str) -> None:
    """Other bytes than the digest stands for are never read as the whole file."""
    storage._save(name, upload(100))
    tag = digests_of(100)["md5"]
    gate.fail("GET", 200, headers={"ETag": tag}, body=b"x" * 100)
    with storage.open(name) as stream, pytest.raises(MismatchError):
        stream.read()


def test_signed_addresses_are_good_for_one_object_and_a_time(swift_server: Swift, name: str) -> None:
    """Without the signature, for another object, or after its end an address is refused."""
    storage = SwiftStorage(swift_server.container, temp_url_key=TEMP_URL_KEY, **login(swift_server))
    storage._save(name, text(b"signed"))
    storage._save(name + "x", text(b"other"))
    url = storage.url(name)
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == b"signed"
    expired = SwiftStorage(
        swift_server.container, temp_url_key=TEMP_URL_KEY, temp_url_seconds=-5, **login(swift_server)
    )
    for bad in [url.partition("?")[0], url.replace(name, name + "x"), expired.url(name)]:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(bad, timeout=10)


def test_a_public_address_needs_no_login() -> None:
    """With ``base_url`` no request is made for an address, signed or not."""
    options: dict[str, Any] = {"auth_url": "http://127.0.0.1:9/auth", "base_url": "https://cdn.example/v1/A/files/"}
    assert SwiftStorage("files", **options).url("a b/ü.txt") == "https://cdn.example/v1/A/files/a%20b/%C3%BC.txt"
    signed = SwiftStorage("files", temp_url_key="k", **options).url("a")
    assert signed.startswith("https://cdn.example/v1/A/files/a?temp_url_sig=")


class SmallPages(SwiftStorage):
    """Asks for two objects at a time."""

    page_size = 2


def test_a_long_listing_has_every_name_once(swift_server: Swift, name: str) -> None:
    """Pages follow each other with nothing lost or named twice."""
    storage = SmallPages(swift_server.container, **login(swift_server))
    for each in ["a", "b/1", "b/2", "b/3", "c", "d/1", "e", "é"]:
        storage._save(f"{name}/{each}", text(b"x"))
    assert storage.listdir(name) == (["b", "d"], ["a", "c", "e", "é"])


@pytest.mark.parametrize("version", ["2", "3", "3-application"])
def test_keystone_logs_in(
    swift_server: Swift, keystone_server: Keystone, name: str, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Versions 2 and 3, and application credentials, go through Keystone's own protocol to the same account."""
    pytest.importorskip("keystoneclient", reason="needs the extra swift")
    options: dict[str, Any] = {"os_options": {"project_name": "test", "region_name": "one"}, "auth_version": version}
    if version == "3":
        options["os_options"] |= {"user_domain_name": "Default", "project_domain_name": "Default"}
    if version == "3-application":
        credential = {"auth_type": "v3applicationcredential", "application_credential_id": "app"}
        options = {"auth_version": "3", "os_options": {**credential, "application_credential_secret": PASSWORD}}
    address = f"{keystone_server.url}/{'v2.0' if version == '2' else 'v3'}"
    storage = SwiftStorage(swift_server.container, address, "tester", PASSWORD, **options)
    with caplog.at_level("DEBUG"):
        storage._save(name, text(b"x"))
    assert storage.size(name) == 1
    assert PASSWORD not in repr(vars(storage._login)) + caplog.text
    wrong = {**options, "os_options": {**options["os_options"], "application_credential_secret": "no"}}
    refused = SwiftStorage(swift_server.container, address, "tester", "not it", **wrong)
    assert refused.sort_error(error_of(lambda: refused.exists(name))) == ErrorKind.DENIED


def test_options_come_from_the_environment(swift_server: Swift, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual variables of OpenStack's tools are used where an option is not given."""
    for variable, value in [("ST_AUTH", swift_server.auth_url), ("ST_USER", USER), ("ST_KEY", PASSWORD)]:
        monkeypatch.setenv(variable, value)
    SwiftStorage(swift_server.container)._save(name, text(b"x"))
    assert SwiftStorage(swift_server.container).size(name) == 1


@pytest.mark.parametrize("body", [b"", b"<html>"])
def test_an_address_that_is_no_login_is_denied(gate: Gate, body: bytes) -> None:
    """A server that answers without a token is not the one that is meant."""
    gate.fail("GET", 200, body=body)
    storage = SwiftStorage("files", f"{gate.url}/auth/v1.0", USER, PASSWORD)
    error = error_of(lambda: storage.exists("x"))
    assert storage.sort_error(error) == ErrorKind.DENIED
    assert "auth_url" in str(error)


def test_missing_settings_and_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address, without swiftclient, and without Keystone's client the message says what to do."""
    with pytest.raises(StorageConfigurationError, match="auth_url"):
        SwiftStorage("files")
    monkeypatch.setitem(sys.modules, "keystoneclient", None)
    SwiftStorage("files", "http://x", auth_version="1")
    with pytest.raises(StorageConfigurationError, match=r"pip install 'django-queued-storage\[swift\]'"):
        SwiftStorage("files", "http://x", auth_version="3")
    monkeypatch.setitem(sys.modules, "swiftclient", None)
    with pytest.raises(StorageConfigurationError, match=r"pip install 'django-queued-storage\[swift\]'"):
        SwiftStorage("files", "http://x")


def test_no_client_library_is_needed_to_import_the_remotes() -> None:
    """Without swiftclient and Keystone's client the modules can be imported."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(['swiftclient', 'keystoneclient', 'requests']))"
    modules = ", ".join(f"queued_storage.remotes.{name}" for name in ["couchdb", "mogilefs", "swift"])
    subprocess.run([sys.executable, "-c", f"{blocked}; import {modules}"], check=True, timeout=60)


def test_credentials_are_not_in_what_a_base64_of_them_shows(swift_server: Swift) -> None:
    """No attribute of the storage shows the password in another form either."""
    storage = SwiftStorage(swift_server.container, temp_url_key=TEMP_URL_KEY, **login(swift_server))
    storage.exists("x")
    shown = repr(vars(storage)) + repr(vars(storage._login))
    for secret in [PASSWORD, TEMP_URL_KEY]:
        assert secret not in shown
        assert base64.b64encode(secret.encode()).decode() not in shown
