"""An S3 server that throws away what it is given: ``python -m benchmarks.null_s3 PORT [SECONDS OF LATENCY] [md5]``.

It reads a body, remembers its size and the checksums that came with it, and answers as S3 does: conditional writes,
multipart uploads, HEAD, the MD5 of small objects as ETag, and with ``md5`` that of parts, which costs it a second for
each 700 MB. GET answers as many zeros. It checks no signature and no checksum, so it measures clients, and proves
nothing about what arrives: for that the tests have moto. One process and one loop over ``epoll``: what it can take at
most is shown by a plain PUT beside everything else. The latency is that of each answer, an interim ``100 Continue``
left out.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import re
import select
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.servers.processes import Process, answers, on_free_port, stopped_at_end
from tests.servers.roots import fresh

RESET = "/-/reset"
HEADER = re.compile(
    rb"\r\n(content-length|x-amz-decoded-content-length|x-amz-checksum-\w+|x-amz-checksum-type|expect|if-none-match"
    rb"|transfer-encoding):[ \t]*([^\r]*)",
    re.IGNORECASE,
)
TRAILER = re.compile(rb"(x-amz-checksum-\w+):([^\r\n]+)")
# The mark of a multipart upload: nobody takes this for an MD5.
ETAG = '"00000000000000000000000000000000-1"'
XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
LARGEST_HASHED = 1024 * 1024
SCRATCH = memoryview(bytearray(1024 * 1024))


@dataclass
class Thing:
    """What is remembered of a body: not the bytes."""

    size: int
    checksums: dict[str, str] = field(default_factory=dict)
    etag: str = ETAG

    def headers(self) -> str:
        """Return its checksums as S3 tells them."""
        if not self.checksums:
            return ""
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.checksums.items())
        return f"{lines}x-amz-checksum-type: FULL_OBJECT\r\n"


@dataclass
class Request:
    """One request, its body already gone."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    size: int
    md5: Any = None

    def etag(self) -> str:
        """Return the MD5 of the body where it was computed."""
        return ETAG if self.md5 is None else f'"{self.md5.hexdigest()}"'

    def checksums(self, tail: bytes) -> dict[str, str]:
        """Return the checksums of the headers, and those that came after the body."""
        found = {name: value for name, value in self.headers.items() if name.startswith("x-amz-checksum-")}
        if "x-amz-decoded-content-length" in self.headers:
            found |= {name.decode(): value.decode().strip() for name, value in TRAILER.findall(tail)}
        return {name: value for name, value in found.items() if name not in NOT_CHECKSUMS}


NOT_CHECKSUMS = {"x-amz-checksum-type", "x-amz-checksum-mode", "x-amz-checksum-algorithm"}


class Store:
    """The objects and the unfinished uploads."""

    def __init__(self) -> None:
        self.things: dict[str, Thing] = {}
        self.uploads: dict[str, dict[int, Thing]] = {}
        self.numbers = itertools.count(1)

    def answer(self, request: Request, tail: bytes) -> bytes:
        """Do what is asked."""
        if request.path == RESET:
            self.things.clear()
            self.uploads.clear()
            return _answer(204)
        if "uploadId" in request.query:
            return self._multipart(request, tail)
        if request.method == "POST" and "uploads" in request.query:
            upload = str(next(self.numbers))
            self.uploads[upload] = {}
            return _xml(
                f"<InitiateMultipartUploadResult {NAMESPACE}><UploadId>{upload}</UploadId>"
                "</InitiateMultipartUploadResult>"
            )
        if request.path.count("/") < 2 or request.path.endswith("/"):
            return self._bucket(request)
        return self._object(request, tail)

    def _bucket(self, request: Request) -> bytes:
        if request.method != "GET":
            return _answer(200)
        if "location" in request.query:
            return _xml(f"<LocationConstraint {NAMESPACE}></LocationConstraint>")
        name = "ListMultipartUploadsResult" if "uploads" in request.query else "ListBucketResult"
        return _xml(f"<{name} {NAMESPACE}><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></{name}>")

    def _object(self, request: Request, tail: bytes) -> bytes:
        if request.method == "PUT":
            if self._taken(request):
                return _error(412, "PreconditionFailed")
            thing = self.things[request.path] = Thing(request.size, request.checksums(tail), request.etag())
            return _answer(200, f"ETag: {thing.etag}\r\n{thing.headers()}")
        if request.method == "DELETE":
            self.things.pop(request.path, None)
            return _answer(204)
        found = self.things.get(request.path)
        if found is None:
            return _answer(404) if request.method == "HEAD" else _error(404, "NoSuchKey")
        dates = "Last-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n"
        head = f"ETag: {found.etag}\r\n{dates}{found.headers()}Content-Type: application/octet-stream\r\n"
        body = b"" if request.method == "HEAD" else bytes(found.size)
        return _answer(200, head, body, found.size)

    def _multipart(self, request: Request, tail: bytes) -> bytes:
        upload = request.query["uploadId"][0]
        parts = self.uploads.get(upload)
        if parts is None:
            return _error(404, "NoSuchUpload")
        if request.method == "PUT":
            part = parts[int(request.query["partNumber"][0])] = Thing(
                request.size, request.checksums(tail), request.etag()
            )
            return _answer(200, f"ETag: {part.etag}\r\n{part.headers()}")
        if request.method == "DELETE":
            del self.uploads[upload]
            return _answer(204)
        if self._taken(request):
            return _error(412, "PreconditionFailed")
        del self.uploads[upload]
        size, etag = sum(part.size for part in parts.values()), ETAG
        if all(part.etag != ETAG for part in parts.values()):
            tags = b"".join(bytes.fromhex(part.etag.strip('"')) for _, part in sorted(parts.items()))
            etag = f'"{hashlib.md5(tags).hexdigest()}-{len(parts)}"'
        thing = self.things[request.path] = Thing(size, request.checksums(b""), etag)
        named = {f"Checksum{name.rpartition('-')[2].upper()}": value for name, value in thing.checksums.items()}
        sums = "".join(f"<{tag}>{value}</{tag}>" for tag, value in named.items())
        kind = "<ChecksumType>FULL_OBJECT</ChecksumType>" if sums else ""
        etag = etag.replace('"', "&quot;")
        return _xml(
            f"<CompleteMultipartUploadResult {NAMESPACE}><ETag>{etag}</ETag>{sums}{kind}"
            "</CompleteMultipartUploadResult>"
        )

    def _taken(self, request: Request) -> bool:
        return "if-none-match" in request.headers and request.path in self.things


REASONS = {200: "OK", 204: "No Content", 404: "Not Found", 412: "Precondition Failed"}


def _answer(status: int, headers: str = "", body: bytes = b"", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Length: {size}\r\n{headers}\r\n"
    return head.encode() + body


def _xml(text: str) -> bytes:
    return _answer(200, "Content-Type: application/xml\r\n", f"{XML}{text}".encode())


def _error(status: int, code: str) -> bytes:
    body = f"{XML}<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    return _answer(status, "Content-Type: application/xml\r\n", body)


class Connection:
    """One client: bytes of a head, or how much of a body is still to come."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = b""
        self.request: Request | None = None
        self.left = 0
        self.tail = b""
        self.chunks: bytearray | None = None
        self.out = b""
        self.waits = False


class Server:
    """One loop over all connections."""

    def __init__(self, port: int, latency: float, hashes: bool = False) -> None:
        self.latency, self.hashes = latency, hashes
        self.store = Store()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.listener.setblocking(False)
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.connections: dict[int, Connection] = {}
        self.later: list[tuple[float, int, Connection, bytes]] = []
        self.numbers = itertools.count()

    def run(self) -> None:
        """Serve until the process ends."""
        while True:
            timeout = max(self.later[0][0] - time.monotonic(), 0) if self.later else -1
            for handle, event in self.poll.poll(timeout):
                if handle == self.listener.fileno():
                    self._accept()
                    continue
                connection = self.connections[handle]
                try:
                    if event & select.EPOLLOUT:
                        self._flush(connection)
                    if event & ~select.EPOLLOUT:
                        self._read(connection)
                except (OSError, EOFError):
                    self._drop(connection)
            now = time.monotonic()
            while self.later and self.later[0][0] <= now:
                _, _, connection, answer = heapq.heappop(self.later)
                self._send(connection, answer)

    def _accept(self) -> None:
        sock, _ = self.listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections[sock.fileno()] = Connection(sock)
        self.poll.register(sock, select.EPOLLIN)

    def _drop(self, connection: Connection) -> None:
        handle = connection.sock.fileno()
        if handle >= 0:
            del self.connections[handle]
            self.poll.unregister(handle)
            connection.sock.close()

    def _read(self, connection: Connection) -> None:
        count = connection.sock.recv_into(SCRATCH)
        if count == 0:
            raise EOFError
        if connection.request is not None:
            self._body(connection, SCRATCH[:count])
            return
        connection.head += SCRATCH[:count]
        self._head(connection)

    def _head(self, connection: Connection) -> None:
        head, found, rest = connection.head.partition(b"\r\n\r\n")
        if not found:
            return
        method, target, _ = head[: head.index(b"\r\n")].decode().split(" ")
        path, _, query = target.partition("?")
        headers = {name.lower().decode(): value.decode() for name, value in HEADER.findall(head)}
        length = int(headers.get("content-length", 0))
        decoded = headers.get("x-amz-decoded-content-length")
        size = length if decoded is None else int(decoded)
        parsed = parse_qs(query, keep_blank_values=True) if query else {}
        # As S3 does it, but only where it costs little: of what is sent in one piece, and as it is.
        cheap = self.hashes or (not parsed and size <= LARGEST_HASHED)
        hashed = method == "PUT" and length == size and cheap
        connection.request = Request(method, path, parsed, headers, size, hashlib.md5() if hashed else None)
        connection.head, connection.left, connection.tail = b"", length, b""
        connection.chunks = bytearray() if "transfer-encoding" in headers else None
        if "expect" in headers and not rest:
            connection.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body(connection, memoryview(rest))

    def _body(self, connection: Connection, data: memoryview) -> None:
        if connection.chunks is not None:
            # Rare and short: kept whole until the empty chunk and its trailers.
            connection.chunks += data
            if not re.search(rb"(^|\r\n)0\r\n(.*\r\n)?\r\n$", connection.chunks, re.DOTALL):
                return
            connection.tail, data = bytes(connection.chunks[-512:]), data[:0]
        else:
            connection.left -= len(data)
            if connection.request is not None and connection.request.md5 is not None:
                connection.request.md5.update(data)
            # Only trailers are of interest.
            if connection.left < 512 and "x-amz-decoded-content-length" in connection.request.headers:  # type: ignore[union-attr]
                connection.tail = (connection.tail + bytes(data[-512:]))[-512:]
            if connection.left > 0:
                return
        request, connection.request = connection.request, None
        assert request is not None
        answer = self.store.answer(request, connection.tail)
        if self.latency and request.path != RESET:
            heapq.heappush(self.later, (time.monotonic() + self.latency, next(self.numbers), connection, answer))
        else:
            self._send(connection, answer)

    def _send(self, connection: Connection, answer: bytes) -> None:
        if connection.sock.fileno() < 0:
            return
        connection.out += answer
        try:
            self._flush(connection)
        except OSError:
            self._drop(connection)

    def _flush(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(connection.out)
        except BlockingIOError:
            sent = 0
        connection.out = connection.out[sent:]
        if connection.waits != bool(connection.out):
            connection.waits = bool(connection.out)
            wanted = select.EPOLLIN | (select.EPOLLOUT if connection.waits else 0)
            self.poll.modify(connection.sock.fileno(), wanted)


@contextmanager
def running(latency: float = 0.0, *words: str) -> Iterator[str]:
    """Run the server in a process of its own and yield its address."""
    log = fresh("null-s3") / "log"

    def start(port: int) -> Process:
        return Process(
            [sys.executable, "-m", "benchmarks.null_s3", str(port), str(latency), *words], name="null S3", log=log
        )

    process, port = on_free_port(start, lambda port: answers("127.0.0.1", port), bound=20)
    with stopped_at_end(process):
        yield f"http://127.0.0.1:{port}"


def forget(endpoint: str) -> None:
    """Let the server forget every object, so that names are free again."""
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}{RESET}", method="POST")).close()


if __name__ == "__main__":
    Server(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0, "md5" in sys.argv).run()
