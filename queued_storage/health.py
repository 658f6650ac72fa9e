"""Which remotes are down as a whole. Such a storage is probed by one file, not by all of them.

A remote counts as down when QUEUED_STORAGE_DOWN_AFTER files in a row, each another one, met an error that is not of
their own making. Its queued records then stay as they are, uncounted, while the sweep sends one of them every
QUEUED_STORAGE_PROBE_DELAY; the first success lets all of them go.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Case, Exists, F, OuterRef, Q, QuerySet, When

from queued_storage.conf import settings
from queued_storage.exceptions import ErrorKind
from queued_storage.ledger import DatabaseNow, after, due, persist, using
from queued_storage.models import State, StorageHealth, TransferRecord

logger = logging.getLogger("queued_storage")

# Errors that speak of the remote, not of the file.
SUSPICIOUS = {ErrorKind.PASSING, ErrorKind.DENIED, ErrorKind.THROTTLED}


def storages() -> QuerySet[StorageHealth]:
    """Return what is known of each storage that has failed, read from the database that is written to."""
    return StorageHealth.objects.using(using())


def failed(record: TransferRecord, kind: ErrorKind, error: str) -> None:
    """Note that the storage of ``record`` failed it; from the third file in a row on it counts as down."""
    failures = Case(When(last_record=record.pk, then=F("failures")), default=F("failures") + 1)
    rows = storages().filter(storage=record.storage)
    known = {"error_kind": kind, "error": error, "updated_at": DatabaseNow()}
    if not persist(lambda: rows.update(failures=failures, last_record=record.pk, **known)):
        _insert(record, known)
    down = rows.filter(failures__gte=settings.QUEUED_STORAGE_DOWN_AFTER)
    first = down.filter(down_since__isnull=True)
    probe_at = after(settings.QUEUED_STORAGE_PROBE_DELAY)
    if persist(lambda: first.update(down_since=DatabaseNow(), probe_at=probe_at, probe=None)):
        logger.error("The remote is down; probing it", extra={"storage": record.storage, "error": error})


def _insert(record: TransferRecord, known: dict[str, Any]) -> None:
    try:
        with transaction.atomic(using=using()):
            storages().create(storage=record.storage, failures=1, last_record=record.pk, **known)
    except IntegrityError:
        # Another worker noted its own failure at the same moment: one of the two counts.
        return


def succeeded(alias: str) -> None:
    """Note that a file arrived: the storage is up, whatever was before. A paused one stays paused."""
    rows = storages().filter(storage=alias)
    well: dict[str, Any] = {"failures": 0, "last_record": 0, "down_since": None, "probe_at": None, "probe": None}
    well |= {"error_kind": "", "error": ""}
    paused = rows.filter(paused_at__isnull=False, failures__gt=0)
    if persist(rows.filter(paused_at__isnull=True).delete)[0] or persist(lambda: paused.update(**well)):
        logger.info("The remote is up", extra={"storage": alias})


def pause(alias: str) -> bool:
    """Stop the transfers of a storage until ``resume()``: what is queued waits. False if it is paused already.

    Transfers that are running are finished.
    """
    rows = storages().filter(storage=alias)
    with transaction.atomic(using=using()):
        moment = {"paused_at": DatabaseNow(), "updated_at": DatabaseNow()}
        if rows.filter(paused_at__isnull=True).update(**moment):
            return True
        if rows.exists():
            return False
        try:
            with transaction.atomic(using=using()):
                storages().create(storage=alias, failures=0, last_record=0, **moment)
        except IntegrityError:
            # Its remote failed a file at this very moment.
            return bool(rows.filter(paused_at__isnull=True).update(**moment))
        return True


def resume(alias: str) -> bool:
    """Let the transfers of a paused storage go on; False if it is not paused."""
    rows = storages().filter(storage=alias, paused_at__isnull=False)
    if persist(rows.filter(failures=0).delete)[0]:
        return True
    return persist(lambda: rows.update(paused_at=None, updated_at=DatabaseNow())) > 0


def paused() -> list[str]:
    """Return the aliases of the storages that an operator has paused."""
    return persist(lambda: list(storages().filter(paused_at__isnull=False).values_list("storage", flat=True)))


def annotate(rows: QuerySet[TransferRecord]) -> QuerySet[Any]:
    """Add to each record whether its storage is ``down`` or paused, and whether it is ``suspect`` at all."""
    health = StorageHealth.objects.filter(storage=OuterRef("storage"))
    unprobed = Q(down_since__isnull=False) & ~Q(probe=OuterRef("pk"), probe__isnull=False)
    down = health.filter(unprobed | Q(paused_at__isnull=False))
    return rows.annotate(down=Exists(down), suspect=Exists(health))


def down() -> list[str]:
    """Return the aliases of the storages whose files wait: the remote is down, or an operator has paused them."""
    waiting = storages().filter(Q(down_since__isnull=False) | Q(paused_at__isnull=False))
    return persist(lambda: list(waiting.values_list("storage", flat=True)))


def probes() -> list[TransferRecord]:
    """Choose one due record of each storage whose probe is due, for this caller alone.

    The one with the fewest retries: a file that fails for reasons of its own must not be the only witness.
    """
    chosen = []
    probed = storages().filter(down_since__isnull=False, paused_at__isnull=True, probe_at__lte=DatabaseNow())
    for health in persist(lambda: list(probed)):
        candidates = due().filter(state=State.QUEUED, storage=health.storage).order_by("retries", "due_at", "pk")
        record = persist(candidates.first)
        if record is not None and _take(health, record):
            chosen.append(record)
    return chosen


def _take(health: StorageHealth, record: TransferRecord) -> bool:
    rows = storages().filter(pk=health.pk, probe_at__lte=DatabaseNow())
    return persist(lambda: rows.update(probe=record.pk, probe_at=after(settings.QUEUED_STORAGE_PROBE_DELAY))) > 0
