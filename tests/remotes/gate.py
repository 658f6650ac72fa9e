"""A gate in front of a real HTTP server: counts requests, and at a test's word answers, breaks or hangs instead."""

from __future__ import annotations

import base64
import hashlib
import http.client
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass
class Request:
    """One request as the gate received it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Fault:
    """What to do with the requests that ``matches`` picks, ``times`` times; ``hits`` says how often it was done."""

    matches: Callable[[Request], bool]
    status: int = 0
    code: str = ""
    action: str = "answer"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    times: int = 1
    hits: int = 0


class Gate:
    """Forwards to ``upstream`` (host, port); ``requests`` holds what passed, ``faults`` what is to go wrong."""

    def __init__(self, upstream: tuple[str, int], *, strict: bool = False) -> None:
        self.upstream = upstream
        self.strict = strict
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.released = threading.Event()
        self.lock = threading.Lock()
        # Something that the server behind should do and does not: an answer to give in its place, or ``None``.
        self.instead: Callable[[Request], tuple[int, str] | None] | None = None
        gate = self

        class Handler(_Handler):
            owner = gate

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def fail(self, method: str, status: int = 0, code: str = "", *, query: str = "", **fault: object) -> Fault:
        """Arrange for the next ``method`` request whose path contains ``query`` to go wrong; returns the fault."""
        planned = Fault(
            lambda request: request.method == method and query in request.path,
            status,
            code,
            **fault,  # type: ignore[arg-type]
        )
        self.faults.append(planned)
        return planned

    def counts(self) -> Counter[str]:
        """Return how many requests of each method passed or were answered."""
        return Counter(request.method for request in self.requests)

    def pick(self, request: Request) -> Fault | None:
        """Note the request and return the fault that it runs into."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.hits < fault.times and fault.matches(request):
                    fault.hits += 1
                    return fault
        return None


@contextmanager
def gate_to(upstream: tuple[str, int], *, strict: bool = False) -> Iterator[Gate]:
    """Run a gate in front of ``upstream``; ``strict`` checks the digests that S3 clients send, as Amazon does."""
    gate = Gate(upstream, strict=strict)
    thread = threading.Thread(target=gate.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield gate
    finally:
        gate.released.set()
        gate.server.shutdown()
        gate.server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Gate

    def handle_any(self) -> None:
        request = Request(self.command, self.path, dict(self.headers.items()), self._body())
        fault = self.owner.pick(request)
        if fault is not None and fault.action == "flip":
            request.body = bytes([request.body[0] ^ 1]) + request.body[1:]
        if fault is None or fault.action == "flip":
            self._forward(request)
        elif fault.action == "drop":
            self.close_connection = True
            self.connection.close()
        elif fault.action == "drop_after":
            self._upstream(request)
            self.close_connection = True
            self.connection.close()
        elif fault.action == "hang":
            self.owner.released.wait(60)
            self.close_connection = True
        elif fault.body is not None:
            self._send(fault.status, fault.headers, fault.body)
        else:
            self._error(fault.status, fault.code)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = handle_any

    def log_message(self, *args: object) -> None:
        """Stay silent."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _upstream(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(*self.owner.upstream, timeout=60)
        try:
            headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_HEADERS}
            if request.body or request.method in {"PUT", "POST"}:
                headers["Content-Length"] = str(len(request.body))
            connection.request(request.method, request.path, request.body or None, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _forward(self, request: Request) -> None:
        if self.owner.instead is not None:
            # One at a time, so that nothing changes between the look and the request.
            with self.owner.lock:
                answer = self.owner.instead(request)
                forwarded = self._upstream(request) if answer is None else None
            return self._send(*forwarded) if forwarded else self._error(*(answer or (500, "")))
        if self.owner.strict and _digest_differs(request):
            return self._error(400, "BadDigest")
        return self._send(*self._upstream(request))

    def _error(self, status: int, code: str) -> None:
        xml = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by the gate</Message></Error>"
        self._send(status, {"Content-Type": "application/xml"}, xml.encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        length = next((v for k, v in headers.items() if k.lower() == "content-length"), str(len(body)))
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in HOP_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest_differs(request: Request) -> bool:
    headers = {name.lower(): value for name, value in request.headers.items()}
    crc32, md5 = headers.get("x-amz-checksum-crc32"), headers.get("content-md5")
    if request.method != "PUT":
        return False
    if crc32 and crc32 != base64.b64encode(zlib.crc32(request.body).to_bytes(4, "big")).decode():
        return True
    return bool(md5) and md5 != base64.b64encode(hashlib.md5(request.body, usedforsecurity=False).digest()).decode()
