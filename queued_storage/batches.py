"""The ledger's transitions of many records in one statement; the guards are those of ``queued_storage.ledger``.

The records of a batch share a token: what holds one of them is, as ever, its id and the token.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, QuerySet

from queued_storage.conf import settings
from queued_storage.ledger import DatabaseNow, after, attempts, completion, persist, records, using
from queued_storage.models import Outcome, State, TransferAttempt, TransferRecord

#: Files up to this many bytes are claimed together.
SMALL = 1024 * 1024


def _held(pks: Collection[int], lease: uuid.UUID) -> QuerySet[TransferRecord]:
    return records().filter(pk__in=pks, state=State.TRANSFERRING, lease=lease)


def claim(pks: Collection[int], lease: uuid.UUID, worker: str) -> QuerySet[TransferRecord]:
    """Claim those of ``pks`` that are small and were never tried, as ``ledger.claim``; the rows returned are held.

    What was tried before is claimed alone: a file that kills its worker takes others with it once, and no second time.
    """
    rows = records().filter(pk__in=pks, state=State.QUEUED, retries=0, size__lte=SMALL).exclude(digest="")
    # Those of other hosts would only be given back.
    rows = rows.filter(node__in=["", settings.QUEUED_STORAGE_NODE])
    claimed = {"state": State.TRANSFERRING, "lease": lease, "worker": worker, "retries": 1}
    due_at = after(settings.QUEUED_STORAGE_LEASE)
    persist(lambda: rows.update(**claimed, due_at=due_at, updated_at=DatabaseNow()))
    return _held(pks, lease)


def give_back(pks: Collection[int], lease: uuid.UUID) -> int:
    """Queue claimed records as they were before, for nothing has been tried; return how many."""
    queued = {"state": State.QUEUED, "lease": None, "worker": "", "retries": F("retries") - 1}
    return persist(lambda: _held(pks, lease).update(**queued, due_at=DatabaseNow(), updated_at=DatabaseNow()))


def complete(sizes: dict[TransferRecord, int], lease: uuid.UUID, evict_after: timedelta | None) -> set[int]:
    """Make verified records ``transferred``, with the attempts of their history; return the ids of those still held.

    ``sizes`` says how many bytes were sent of each; ``evict_after`` is that of ``ledger.complete``. The places, sizes
    and digests are those in the rows.
    """
    by_pk = {record.pk: record for record in sizes}
    asked = 0

    def statement() -> set[int]:
        nonlocal asked
        asked += 1
        with transaction.atomic(using=using()):
            clock = ExpressionWrapper(DatabaseNow(), output_field=DateTimeField())
            held = _held(by_pk, lease).order_by("pk").select_for_update()
            rows = held.values_list("pk", "remote_name", clock)
            # What lies elsewhere than its row says is not recorded so.
            ours: dict[int, datetime] = {pk: now for pk, place, now in rows if place == by_pk[pk].remote_name}
            _held(ours, lease).update(**completion(evict_after))
            attempts().bulk_create(
                _attempt(record, size, ours[record.pk]) for record, size in sizes.items() if record.pk in ours
            )
        return set(ours)

    done = persist(statement)
    if asked > 1 and len(done) < len(by_pk):
        # The first answer was lost: what is transferred may be our own commit.
        rows = records().filter(pk__in=by_pk, state=State.TRANSFERRED).values_list("pk", "remote_name")
        done |= {pk for pk, place in persist(lambda: list(rows)) if place == by_pk[pk].remote_name}
    return done


def _attempt(record: TransferRecord, size: int, now: datetime) -> TransferAttempt:
    times = {"started_at": record.updated_at, "finished_at": now}
    return TransferAttempt(record_id=record.pk, worker=record.worker, outcome=Outcome.TRANSFERRED, bytes=size, **times)
