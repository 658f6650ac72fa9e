"""A process that reads all the time what was promised, through the public API alone, and notes every broken promise."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.core.files.storage import storages  # noqa: E402
from django.db import close_old_connections, connection  # noqa: E402

from tests.chaos.manifest import Promise, Reader  # noqa: E402

# For subjects without such a setting.
CACHE_TIMEOUT = 10


class Referee:
    """Reads random files; a temporary error is allowed, another answer than the right one is not."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.manifest = Reader(folder)
        self.storage = storages["default"]
        self.counts: Counter[str] = Counter()
        self.violations: list[dict[str, Any]] = []

    def check(self, file: str, promise: Promise) -> None:
        """Read one file and compare it; what was deleted meanwhile counts for nothing."""
        try:
            with self.storage.open(promise.name) as opened:
                verdict = "ok" if hashlib.sha256(opened.read()).hexdigest() == promise.sha256 else "wrong"
            if not self.storage.exists(promise.name) or self.storage.size(promise.name) != promise.size:
                verdict = "lie"
        except FileNotFoundError:
            verdict = "not found"
        except Exception as error:
            verdict, name = "temporary", type(error).__name__
            self.counts[f"temporary: {name}"] += 1
        if verdict in ("wrong", "lie", "not found") and not self.manifest.read()[file].kept:
            verdict = "deleted meanwhile"
        self.counts[verdict] += 1
        if verdict in ("wrong", "lie", "not found"):
            self.violations.append({"file": file, "name": promise.name, "verdict": verdict, "at": time.time()})

    def check_deleted(self, promise: Promise) -> None:
        """A deleted file must be gone, whatever the cache or a slow worker says."""
        try:
            gone = not self.storage.exists(promise.name)
        except Exception:
            self.counts["temporary"] += 1
            return
        self.counts["gone" if gone else "undead"] += 1
        if not gone:
            self.violations.append({"name": promise.name, "verdict": "undead", "at": time.time()})

    def run(self) -> None:
        """Read until told to stop, then write the verdict."""
        while True:
            close_old_connections()
            if connection.connection is not None and not connection.is_usable():
                connection.close()
            promises = self.manifest.read()
            kept = [file for file, promise in promises.items() if promise.kept]
            # A cache that was away when the file was deleted may answer wrongly for as long as it keeps answers.
            old = time.time() - getattr(settings, "QUEUED_STORAGE_CACHE_TIMEOUT", CACHE_TIMEOUT) - 2
            deleted = [promise for promise in promises.values() if promise.deleted and promise.at < old]
            for file in self.random.sample(kept, min(10, len(kept))):
                self.check(file, promises[file])
            for promise in self.random.sample(deleted, min(2, len(deleted))):
                self.check_deleted(promise)
            time.sleep(0.2)  # the pace of the reads, not a wait for anything

    def report(self) -> None:
        """Write what was seen so far."""
        verdict = {"counts": dict(self.counts), "violations": self.violations}
        (self.folder / "referee.json").write_text(json.dumps(verdict))


if __name__ == "__main__":
    referee = Referee(Path(sys.argv[1]), sys.argv[2])

    def stop(number: int, frame: object) -> None:
        """End with the report, also in the middle of a read."""
        referee.report()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    referee.run()
