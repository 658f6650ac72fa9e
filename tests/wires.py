"""A wire between this process and a server that can be cut at a chosen moment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import connection


class Wire:
    """Forwards a port of its own to a server; ``cut_after`` says which request is executed but never answered."""

    def __init__(self, host: str, port: int) -> None:
        self.target = host, port
        self.cut_after: bytes | None = None
        self.cuts = 0
        self._sockets: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            self._sockets += [near, far]
            cutting = threading.Event()
            threading.Thread(target=self._requests, args=(near, far, cutting), daemon=True).start()
            threading.Thread(target=self._answers, args=(far, near, cutting), daemon=True).start()

    def _requests(self, near: socket.socket, far: socket.socket, cutting: threading.Event) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                if self.cut_after is not None and self.cut_after in data:
                    cutting.set()
                far.sendall(data)
        self._end(near, far)

    def _answers(self, far: socket.socket, near: socket.socket, cutting: threading.Event) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if cutting.is_set():
                    # The server has answered, so it is done; nobody hears of it.
                    self.cuts, self.cut_after = self.cuts + 1, None
                    break
                near.sendall(data)
        self._end(near, far)

    def _end(self, *ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """Take the wire away."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._end(*self._sockets)


@contextmanager
def wire_to_the_database() -> Iterator[Wire]:
    """Lead this thread's database connection through a wire while the block runs."""
    settings = connection.settings_dict
    before = settings["HOST"], settings["PORT"]
    wire = Wire(settings["HOST"], int(settings["PORT"]))
    connection.close()
    settings["HOST"], settings["PORT"] = "127.0.0.1", str(wire.port)
    try:
        yield wire
    finally:
        wire.cut_after = None
        connection.close()
        settings["HOST"], settings["PORT"] = before
        wire.close()
