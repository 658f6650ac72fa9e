"""How many files of one storage are worth being under way at once: as many as others wait while one is worked on.

To a server near by one file after the other is fastest, for Python works on one at a time; to one far away most of the
time is spent on waiting. That is measured, by one small file in each process, and once more after a while.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from queued_storage.conf import settings
from queued_storage.pairs import StoragePair
from queued_storage.remotes.registry import many_at_once, most_connections

#: How long a measurement is good for, in seconds.
GOOD_FOR = 60.0


@dataclass(frozen=True)
class Pace:
    """How many times as long as its processor time one file took, and when that was seen."""

    waits: float
    seen: float


def lanes_for(storage: StoragePair, task: Any = None) -> int | None:
    """Return how many files of ``storage`` are to be under way at once; ``None``: one, and measure it.

    More than one only where the remote is known to serve several threads, and nobody's own code is called in them:
    ``transfer`` of the task, or of the storage's without ``task``, is that of the package, or says of itself that it
    is made for threads by an attribute ``many_at_once``.
    """
    transfer = getattr(storage.task if task is None else task, "transfer", None)
    most = settings.QUEUED_STORAGE_THREADS
    if most == 1 or not getattr(transfer, "many_at_once", False) or not many_at_once(storage.remote):
        return 1
    pace: Pace | None = storage.__dict__.get("_pace")
    if pace is None or time.monotonic() - pace.seen > GOOD_FOR:
        return None
    return max(1, min(round(pace.waits), most, most_connections(storage.remote) or most))


@contextmanager
def measured(storage: StoragePair) -> Iterator[None]:
    """Measure what is done to one file of ``storage``; nothing where that ends in an error."""
    started, busy = time.monotonic(), time.thread_time()
    yield
    now = time.monotonic()
    waits = (now - started) / max(time.thread_time() - busy, 1e-6)
    # The first file of a process pays for making the client, which says nothing about the next ones.
    storage.__dict__["_pace"] = Pace(waits, now if "_pace" in storage.__dict__ else -math.inf)
