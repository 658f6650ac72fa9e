"""How full the disks of the local storages are, and when they will be full at the pace of the last day."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.core.files.storage import FileSystemStorage
from django.utils import timezone

from queued_storage import heartbeat
from queued_storage.access import persist, using
from queued_storage.conf import settings
from queued_storage.models import DiskSample
from queued_storage.pairs import StoragePair, configured

logger = logging.getLogger("queued_storage")

#: A pace is told from a time as long as this on.
SHORTEST = timedelta(hours=1)
#: How long samples are kept, and so over how long the pace is measured.
KEPT = timedelta(days=1)
#: A forecast further away than this says nothing.
FORESEEN = timedelta(days=365)


@dataclass(frozen=True)
class Disk:
    """The file system of a local storage, in bytes; ``full_in`` is ``None`` where it does not fill, or nobody knows."""

    used: int
    total: int
    full_in: timedelta | None = None

    @property
    def percent(self) -> int:
        """How full it is."""
        return round(100 * self.used / self.total) if self.total else 0

    @property
    def is_filling(self) -> bool:
        """Whether it is going to be full within a day, or nearly is."""
        return self.percent >= 90 or (self.full_in is not None and self.full_in < KEPT)


def collect(storages: Iterable[StoragePair]) -> dict[str, Disk]:
    """Return the disks of ``storages`` by alias, as this host sees them."""
    now, oldest = timezone.now(), _oldest()
    disks = {}
    for storage in storages:
        usage = _usage(storage)
        if usage is not None:
            left = _full_in(oldest.get(storage.alias), now, usage.free)
            disks[storage.alias] = Disk(usage.used, usage.total, left)
    return disks


def sample(before: datetime | None, now: datetime) -> None:
    """Note how much is free on the disks that this host sees; for the first sweep of each hour.

    That sweep began at ``now``, the one before it at ``before``.
    """
    if not heartbeat.is_new_hour(before, now):
        return
    taken_at, node = timezone.now(), settings.QUEUED_STORAGE_NODE
    found = [(storage.alias, _usage(storage)) for storage in configured()]
    samples = [
        DiskSample(storage=alias, node=node, taken_at=taken_at, free=usage.free)
        for alias, usage in found
        if usage is not None
    ]
    rows = DiskSample.objects.using(using())
    persist(lambda: rows.bulk_create(samples))
    persist(rows.filter(taken_at__lt=taken_at - KEPT).delete)


def _usage(storage: StoragePair) -> shutil._ntuple_diskusage | None:
    try:
        return shutil.disk_usage(storage.local.location) if isinstance(storage.local, FileSystemStorage) else None
    except Exception as error:
        # A folder that is not there yet, or a storage that cannot be built, which the system checks report.
        logger.info("A local storage has no disk to show", extra={"error": type(error).__name__})
        return None


def _oldest() -> dict[str, DiskSample]:
    # Newest first, so that the oldest of each storage stays.
    rows = DiskSample.objects.using(using()).filter(node=settings.QUEUED_STORAGE_NODE).order_by("-taken_at")
    return {each.storage: each for each in persist(lambda: list(rows))}


def _full_in(oldest: DiskSample | None, now: datetime, free: int) -> timedelta | None:
    if oldest is None or now - oldest.taken_at < SHORTEST or oldest.free <= free:
        return None
    seconds = (now - oldest.taken_at).total_seconds() * free / (oldest.free - free)
    return timedelta(seconds=seconds) if seconds < FORESEEN.total_seconds() else None
