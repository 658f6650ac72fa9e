"""The HTTP client of the remotes, against servers that answer early, late, in halves, or in another tongue."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from queued_storage.exceptions import ErrorKind, StorageConfigurationError
from queued_storage.remotes.hiding import Hidden
from queued_storage.remotes.plain_http import AnswerError, Endpoint, UnreachableError, kind_of_status
from tests.remotes.material import error_of, full_port

BLOCKS = [b"x" * 100_000] * 100
WORD = "open sesame"


@contextmanager
def answering(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve one connection with ``handle`` and yield the server's URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                handle(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)
        assert not thread.is_alive()


def headers_of(connection: socket.socket) -> bytes:
    """Read the head of a request, and maybe more."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(1000)
    return head


def slowly(blocks: list[bytes], sent: list[bytes] | None = None) -> Iterator[bytes]:
    """Yield blocks at a pace that leaves the server time to answer; note them in ``sent``."""
    for block in blocks:
        time.sleep(0.001)
        if sent is not None:
            sent.append(block)
        yield block


def test_a_refusal_before_the_end_of_the_body_is_seen() -> None:
    """An answer that comes while bytes are still being sent ends the upload and is returned."""
    sent: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        headers_of(connection)
        connection.sendall(b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n")
        # Kept open: the client must look for itself, no broken pipe tells it.
        while connection.recv(1 << 20):
            pass

    with answering(handle) as url:
        body = slowly(BLOCKS, sent)
        with Endpoint(url).request("PUT", "/x", {"Content-Length": "10000000"}, body) as answer:
            assert answer.status == 412
    assert len(sent) < len(BLOCKS)


def test_an_acceptance_before_the_end_of_the_body_is_not_believed() -> None:
    """A server that says 201 without having the bytes has not stored them."""

    def handle(connection: socket.socket) -> None:
        headers_of(connection)
        connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        while connection.recv(1 << 20):
            pass

    with answering(handle) as url:
        endpoint = Endpoint(url)
        error = error_of(lambda: endpoint.request("PUT", "/x", {"Content-Length": "10000000"}, slowly(BLOCKS)))
    assert isinstance(error, UnreachableError)


def silent(connection: socket.socket) -> None:
    """Never answer; it is the client who hangs up."""
    while connection.recv(1000):
        pass


def half(connection: socket.socket) -> None:
    """Promise ten bytes, send five, and fall silent."""
    headers_of(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
    silent(connection)


def broken(connection: socket.socket) -> None:
    """Promise ten bytes, send five, and hang up."""
    headers_of(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")


def foreign(connection: socket.socket) -> None:
    """Answer like a mail server."""
    headers_of(connection)
    connection.sendall(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize("server", [silent, half, broken, foreign])
def test_what_is_no_whole_answer_is_passing(server: Callable[[socket.socket], None]) -> None:
    """Silence, half a body and another protocol end in time, in an error that may pass and shows no credential."""

    def fetch(url: str) -> None:
        with Endpoint(url, read_timeout=0.3).request("GET", "/x", {"Authorization": Hidden(WORD)}) as answer:
            while answer.read(3):
                pass

    started = time.monotonic()
    with answering(server) as url:
        error = error_of(lambda: fetch(url))
        assert time.monotonic() - started < 2
    assert isinstance(error, UnreachableError)
    assert error.kind == ErrorKind.PASSING
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert WORD not in "".join(shown.format())


def test_a_server_that_does_not_read_is_passing() -> None:
    """An upload that nobody takes ends with the time-out of a write."""
    done = threading.Event()

    def handle(connection: socket.socket) -> None:
        headers_of(connection)
        done.wait(5)

    with answering(handle) as url:
        endpoint, started = Endpoint(url, read_timeout=0.3), time.monotonic()
        error = error_of(lambda: endpoint.request("PUT", "/x", {"Content-Length": "10000000"}, iter(BLOCKS)))
        assert time.monotonic() - started < 3
        done.set()
    assert isinstance(error, UnreachableError)


def test_a_connection_that_is_never_accepted_is_passing() -> None:
    """A full backlog, like a packet filter, answers nothing; the time-out for connecting ends it."""
    with full_port() as port:
        started = time.monotonic()
        endpoint = Endpoint(f"http://127.0.0.1:{port}", connect_timeout=0.3, read_timeout=20)
        error = error_of(lambda: endpoint.request("GET", "/"))
        assert time.monotonic() - started < 5
    assert isinstance(error, UnreachableError)
    assert "connecting" in str(error)


def test_a_source_that_fails_gives_its_own_error() -> None:
    """An error of the body is not taken for one of the network, whatever its class."""

    def blocks() -> Iterator[bytes]:
        yield b"x"
        raise BrokenPipeError("of the source")

    with answering(silent) as url, pytest.raises(BrokenPipeError, match="of the source"):
        Endpoint(url).request("PUT", "/x", {"Content-Length": "2"}, blocks())


def test_an_answer_that_is_not_json_is_an_error() -> None:
    """A login page where JSON was expected is not understood as something else."""

    def handle(connection: socket.socket) -> None:
        headers_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")

    with answering(handle) as url, Endpoint(url).request("GET", "/") as answer, pytest.raises(AnswerError):
        answer.json()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, ErrorKind.DENIED),
        (400, ErrorKind.REFUSED),
        (401, ErrorKind.DENIED),
        (404, ErrorKind.DENIED),
        (405, ErrorKind.REFUSED),
        (409, ErrorKind.PASSING),
        (413, ErrorKind.REFUSED),
        (422, ErrorKind.MISMATCH),
        (429, ErrorKind.THROTTLED),
        (500, ErrorKind.PASSING),
        (503, ErrorKind.PASSING),
        (599, ErrorKind.PASSING),
    ],
)
def test_statuses_have_kinds(status: int, kind: ErrorKind) -> None:
    """What an error status means does not depend on the system that said it."""
    assert kind_of_status(status) == kind
    assert kind_of_status(503, retry_after=True) == ErrorKind.THROTTLED


@pytest.mark.parametrize("url", ["", "host:80", "ftp://host", "http://", "/path"])
def test_only_web_addresses_are_servers(url: str) -> None:
    """Any other address is a configuration error, said at once."""
    with pytest.raises(StorageConfigurationError):
        Endpoint(url)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate for 127.0.0.1 that no system trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on the path")
    file = tmp_path / "both.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    public = tmp_path / "public.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(file), "-out", str(public)]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    file.write_text(file.read_text() + public.read_text())
    return file


def test_tls_is_verified(certificate: Path) -> None:
    """A certificate is accepted only if ``ca_file`` or the system vouches for it; then bodies go both ways."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            """Send the body back."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response_only(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Stay silent."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    url = f"https://127.0.0.1:{server.server_address[1]}"
    try:
        body = [b"x" * 100_000] * 5
        headers = {"Content-Length": "500000"}
        with Endpoint(url, ca_file=str(certificate)).request("PUT", "/", headers, body) as answer:
            assert b"".join(iter(lambda: answer.read(65_536), b"")) == b"".join(body)
        error = error_of(lambda: Endpoint(url).request("PUT", "/", headers, body))
        assert isinstance(error, UnreachableError)
        assert "SSLCertVerificationError" in str(error)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
