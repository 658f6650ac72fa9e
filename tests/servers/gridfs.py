"""A private server that speaks MongoDB's protocol: SecantusDB, with a user and a password."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import Process, Unavailable, answers, on_free_port, stopped_at_end
from .roots import fresh

USER = "somebody"
PASSWORD = "m0ngo-s3cret"


@dataclass(frozen=True)
class MongoServer:
    """Where the server is."""

    port: int

    def uri(self, password: str = PASSWORD, port: int = 0) -> str:
        """Return the server's address with the user in it."""
        return f"mongodb://{USER}:{password}@127.0.0.1:{port or self.port}/?authSource=admin"

    def client(self) -> Any:
        """Return a client of the tests' own."""
        from pymongo import MongoClient

        return MongoClient(self.uri())


@contextmanager
def server() -> Iterator[MongoServer]:
    """Run the server and yield its address."""
    for package in ("pymongo", "secantus"):
        if importlib.util.find_spec(package) is None:
            raise Unavailable(f"no {package}: `pip install pymongo SecantusDB`")
    folder = fresh("mongo")
    # Users are made while nobody is asked for a password.
    with _running(folder) as port:
        from pymongo import MongoClient

        with MongoClient("127.0.0.1", port) as client:
            client.admin.command("createUser", USER, pwd=PASSWORD, roles=["root"])
    with _running(folder, "--auth") as port:
        yield MongoServer(port)


@contextmanager
def _running(folder: Path, *more: str) -> Iterator[int]:
    def start(port: int) -> Process:
        command = [sys.executable, "-m", "secantus", "--host", "127.0.0.1", "--port", str(port)]
        data = ["--storage-path", str(folder / "data"), "--log-level", "WARNING", "--standalone"]
        return Process([*command, *data, *more], name="mongo", log=folder / "log", cwd=folder)

    process, port = on_free_port(start, lambda port: answers("127.0.0.1", port), bound=60)
    with stopped_at_end(process):
        yield port
