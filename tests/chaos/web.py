"""A process that behaves like a web server under load: saves, deletes, rolls back, and keeps a manifest of it."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from pathlib import Path

import django

django.setup()

from django.core.files.base import ContentFile  # noqa: E402
from django.core.files.storage import storages  # noqa: E402
from django.db import close_old_connections, connection, transaction  # noqa: E402

from tests.chaos.manifest import Writer  # noqa: E402


class RollbackError(Exception):
    """The request failed after its file was saved."""


class Web:
    """One process; everything it does follows from its seed, but for what the faults do to it."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.random = random.Random(seed)
        self.label = f"{seed}-{os.getpid()}"
        self.manifest = Writer(folder / f"{self.label}.jsonl")
        self.storage = storages["default"]
        self.saved: list[tuple[str, str]] = []
        self.count = 0

    def body(self) -> bytes:
        """Return bytes of a size as uploads have them: mostly small, some in several parts."""
        kind = self.random.random()
        limits = (1, 4_000) if kind < 0.7 else (4_000, 250_000) if kind < 0.97 else (5_300_000, 9_000_000)
        return self.random.randbytes(self.random.randint(*limits))

    def save(self, rollback: bool) -> None:
        """Save one file, in a transaction of its own or in one that fails afterwards."""
        self.count += 1
        file, body = f"{self.label}-{self.count}", self.body()
        # A third of the names meet: the storage chooses another one.
        name = f"shared/{self.random.randint(0, 50)}.bin" if self.random.random() < 0.3 else f"own/{file}.bin"
        self.manifest.write("intent", file, sha256=hashlib.sha256(body).hexdigest(), size=len(body))
        start = time.monotonic()
        try:
            with transaction.atomic():
                stored = self.storage.save(name, ContentFile(body))
                if rollback:
                    raise RollbackError
        except RollbackError:
            self.manifest.write("rollback", file)
        except Exception as error:
            self.manifest.write("fail", file, error=type(error).__name__)
        else:
            self.manifest.write("ack", file, name=stored, seconds=round(time.monotonic() - start, 3))
            self.saved.append((file, stored))

    def delete(self) -> None:
        """Delete one of the files that this process has saved."""
        file, name = self.saved.pop(self.random.randrange(len(self.saved)))
        self.manifest.write("delete-intent", file)
        try:
            self.storage.delete(name)
        except Exception as error:
            self.manifest.write("delete-fail", file, error=type(error).__name__)
        else:
            self.manifest.write("delete-ack", file)

    def run(self, pause: float) -> None:
        """Work until killed."""
        while True:
            close_old_connections()
            if connection.connection is not None and not connection.is_usable():
                connection.close()
            act = self.random.random()
            if act < 0.1 and self.saved:
                self.delete()
            else:
                self.save(rollback=act > 0.93)
            time.sleep(pause)  # the pace of the load, not a wait for anything


if __name__ == "__main__":
    Web(Path(sys.argv[1]), sys.argv[2]).run(float(sys.argv[3]))
