"""A TCP proxy between the product and a server, which breaks the connection in the way it is told to."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from contextlib import suppress

# What a connection may meet. Counted in ``hits`` where it takes effect, so that a fault nobody met shows.
PASS, REFUSE, SILENT, RESET, DRIP, CUT, BUSY = "pass", "refuse", "silent", "reset", "drip", "cut", "busy"

_BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_BUSY_ANSWER = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
    % (
        len(_BUSY),
        _BUSY,
    )
)


class FaultProxy:
    """Forwards one loopback port to another; ``mode`` says what becomes of the traffic from now on.

    ``pass``; ``refuse``: as if the server had stopped; ``silent``: take everything, answer nothing; ``reset`` in the
    middle of the traffic; ``drip`` the answers slowly; ``cut``: deliver the request, then lose the answer; ``busy``:
    HTTP 503.
    """

    def __init__(self, target: int) -> None:
        self.target, self.mode = target, PASS
        self.hits: Counter[str] = Counter()
        self._changed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True, name=f"proxy {target}").start()

    def set(self, mode: str) -> None:
        """Change what happens to new and to existing connections."""
        self.mode = mode
        self._changed.set()
        self._changed = threading.Event()

    def close(self) -> None:
        """Stop listening; what is connected breaks."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.set(RESET)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.mode == REFUSE:
            self.hits[REFUSE] += 1
            _abort(client)
            return
        if self.mode == SILENT:
            self._stand_still()
            _abort(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
        except OSError:
            _abort(client)
            return
        server.settimeout(None)
        back = threading.Thread(target=self._pump, args=(server, client, False), daemon=True)
        back.start()
        self._pump(client, server, True)
        back.join()
        for end in (client, server):
            end.close()

    def _pump(self, source: socket.socket, sink: socket.socket, request: bool) -> None:
        try:
            while data := source.recv(65536):
                if not self._pass(data, source, sink, request):
                    break
            else:
                # One side has said all: what is on its way must still arrive, which a reset would prevent.
                sink.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        _abort(source)
        _abort(sink)

    def _pass(self, data: bytes, source: socket.socket, sink: socket.socket, request: bool) -> bool:
        mode = self.mode
        if mode == SILENT:
            self._stand_still()
            return False
        if mode in (RESET, REFUSE) or (mode == CUT and not request):
            self.hits[mode] += 1
            return False
        if mode == BUSY and request:
            self.hits[BUSY] += 1
            source.sendall(_BUSY_ANSWER)
            return False
        if mode == DRIP and not request:
            self.hits[DRIP] += 1
            self._drip(data, sink)
            return True
        sink.sendall(data)
        return True

    def _drip(self, data: bytes, sink: socket.socket) -> None:
        for start in range(len(data)):
            if self.mode != DRIP:
                sink.sendall(data[start:])
                return
            sink.sendall(data[start : start + 1])
            self._changed.wait(0.05)

    def _stand_still(self) -> None:
        self.hits[SILENT] += 1
        while self.mode == SILENT:
            self._changed.wait(0.5)


def _abort(connection: socket.socket) -> None:
    # Linger of zero seconds: the peer gets a reset, not an orderly end.
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        connection.close()
