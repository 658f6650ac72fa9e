"""Back-pressure: what a storage owes to its remote, beside its limits, and what a save does beyond them.

It is not counted anew for each save. A process believes a figure for QUEUED_STORAGE_OWED_AGE, adds its own saves to it
meanwhile, and shares it with others by the cache. So a limit is kept within what is saved in that time, not exactly.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from django.db import DatabaseError, transaction
from django.db.models import Count, Sum

from queued_storage import access, health, heartbeat, ledger, locations, signals, transfers
from queued_storage.conf import settings
from queued_storage.exceptions import BacklogFullError
from queued_storage.models import State, TransferRecord
from queued_storage.pairs import StoragePair, configured

logger = logging.getLogger("queued_storage")

OWED = (State.QUEUED, State.TRANSFERRING)
# At a limit the figure is believed for this part of the time, so that saves go on soon.
IMPATIENCE = 5
# And however slow the database is, looking takes no more than this part of a process's time.
SHARE = 50
# The part of a limit under which a storage that was full is told to be well again: not one file under it.
RELIEF = 0.9


def is_full(storage: StoragePair, files: int, size: int, part: float = 1.0) -> bool:
    """Tell whether so many files and bytes reach a limit of ``storage``, or this part of it."""
    most, largest = storage.max_owed_files, storage.max_owed_size
    return (most is not None and files >= most * part) or (largest is not None and size >= largest * part)


@dataclass
class Figure:
    """How much was owed at a moment of the system's clock, and how many seconds it took to find out."""

    files: int
    bytes: int
    seen: float
    cost: float

    def reaches(self, storage: StoragePair, part: float = 1.0) -> bool:
        """Tell whether a limit of ``storage``, or this part of it, is reached."""
        return is_full(storage, self.files, self.bytes, part)

    def is_fresh(self, age: float) -> bool:
        """Tell whether it is younger than ``age`` seconds; one of the future comes from another clock."""
        return 0 <= time.time() - self.seen < max(age, SHARE * self.cost)

    def dump(self) -> str:
        """Write it as a short string for the cache."""
        return json.dumps([self.files, self.bytes, self.seen, self.cost])

    @classmethod
    def load(cls, value: object) -> Figure | None:
        """Read what ``dump`` wrote; ``None`` for anything else."""
        try:
            files, size, seen, cost = map(float, json.loads(value))  # type: ignore[arg-type]
            return cls(int(files), int(size), seen, cost)
        except (TypeError, ValueError, OverflowError):
            return None


class Backlog:
    """What this process believes about one storage."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.figure: Figure | None = None
        self.was_full = False
        self._looking = threading.Lock()

    def ask(self, storage: StoragePair) -> Figure:
        """Return the figure to go by, found out anew when it is time to; one thread at a time does that."""
        age = settings.QUEUED_STORAGE_OWED_AGE.total_seconds()
        if self.figure is not None and self.figure.reaches(storage):
            age /= IMPATIENCE
        if (self.figure is None or not self.figure.is_fresh(age)) and self._looking.acquire(blocking=False):
            try:
                self.figure = _shared(storage, age) or look(storage)
            finally:
                self._looking.release()
        return self.figure or Figure(0, 0, 0.0, 0.0)

    def add(self, size: int) -> None:
        """Count a save of this process; an estimate, which the next look puts right."""
        if self.figure is not None:
            self.figure.files += 1
            self.figure.bytes += size


def _of(storage: StoragePair) -> Backlog:
    backlog: Backlog | None = storage.__dict__.get("_backlog")
    # A thread of the parent may have been looking when this process was forked: its lock is never released here.
    if backlog is None or backlog.pid != os.getpid():
        backlog = storage.__dict__["_backlog"] = Backlog()
    return backlog


def _cache_key(storage: StoragePair) -> str:
    return f"{locations.cache_key(storage, '')}_owed"


def _shared(storage: StoragePair, age: float) -> Figure | None:
    found = Figure.load(locations.try_cache(lambda cache: cache.get(_cache_key(storage))))
    return found if found is not None and found.is_fresh(age) else None


def look(storage: StoragePair) -> Figure:
    """Count what is owed, no further than to the limit of files, and share the answer."""
    started = time.monotonic()
    rows = access.unfinished().filter(state__in=OWED, storage=storage.alias).order_by()
    bounded = rows.values("pk", "size")[: storage.max_owed_files]
    found = ledger.persist(lambda: bounded.aggregate(files=Count("pk"), bytes=Sum("size")))
    figure = Figure(found["files"], int(found["bytes"] or 0), time.time(), time.monotonic() - started)
    seconds = settings.QUEUED_STORAGE_OWED_AGE.total_seconds()
    locations.try_cache(lambda cache: cache.set(_cache_key(storage), figure.dump(), seconds))
    return figure


def admit(storage: StoragePair) -> bool:
    """Let a save go on, before it has written anything; True where it is to write through.

    Raises ``BacklogFullError`` if a limit is reached and ``when_full`` is to refuse, or to write through to a remote
    that is down or paused. Without limits it asks nobody anything.
    """
    if not storage.limited:
        return False
    backlog = _of(storage)
    figure = backlog.ask(storage)
    full = figure.reaches(storage)
    if full != backlog.was_full and (full or not figure.reaches(storage, RELIEF)):
        backlog.was_full, now = full, replace(figure)
        # Not in the transaction of a caller, where others would have to wait for its end.
        transaction.on_commit(_without_raising(lambda: tell(storage, now)), using=ledger.using())
    if not full or storage.when_full == "signal":
        return False
    if storage.when_full == "refuse":
        raise BacklogFullError.of(storage.alias, figure.files, figure.bytes)
    if storage.alias in health.down():
        raise BacklogFullError.of(storage.alias, figure.files, figure.bytes, "and cannot be written through")
    return True


def saved(storage: StoragePair, record: TransferRecord) -> None:
    """Count a file that is owed from now on."""
    if storage.limited:
        _of(storage).add(record.size or 0)


def write_through(storage: StoragePair, record: TransferRecord) -> None:
    """Transfer ``record`` once the current transaction commits, in this process; what fails is left to the sweep."""
    transaction.on_commit(_without_raising(lambda: transfers.run(record.pk, record.retries)), using=ledger.using())


def _without_raising(do: Callable[[], object]) -> Callable[[], None]:
    # An error in on_commit would cost the callbacks of others, and tell the caller of a save that it had failed.
    def call() -> None:
        try:
            do()
        except Exception:
            logger.exception("Done by the sweep, later")

    return call


def tell(storage: StoragePair, figure: Figure) -> None:
    """Tell that a storage has reached a limit, or is well below it again: once, of however many processes notice."""
    full = figure.reaches(storage)
    duty = f"full:{storage.alias}"[:100]
    if not (heartbeat.raise_flag(duty) if full else heartbeat.lower_flag(duty)):
        return
    facts = {"storage": storage.alias, "files": figure.files, "bytes": figure.bytes}
    if full:
        logger.error("A storage owes as much as it may", extra=facts)
    else:
        logger.info("A storage is well below its limits again", extra=facts)
    signals.tell(signals.backlog_changed, type(storage), full=full, **facts)


def watch() -> None:
    """Tell of the storages that have reached a limit, or are below it again; for the sweep."""
    for storage in configured():
        if not storage.limited:
            continue
        try:
            figure = look(storage)
            if figure.reaches(storage) or not figure.reaches(storage, RELIEF):
                tell(storage, figure)
        except DatabaseError:
            logger.exception("Could not count what a storage owes", extra={"storage": storage.alias})
