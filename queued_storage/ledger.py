"""The only writer of records: every transition is one guarded UPDATE whose row count is the answer.

Knows no storage. What is read, and by which clock, is in ``queued_storage.access``, whose names stand here too.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db import connections, transaction
from django.db.models import Case, DateTimeField, ExpressionWrapper, F, Q, QuerySet, Value, When
from django.db.models.functions import Greatest

from queued_storage import backoff, inserting
from queued_storage.access import (
    AT_ONCE as AT_ONCE,
    DatabaseNow as DatabaseNow,
    after as after,
    attempts as attempts,
    due as due,
    due_states as due_states,
    get as get,
    held as held,
    lookup as lookup,
    lookup_many as lookup_many,
    persist as persist,
    places as places,
    records as records,
    stalled as stalled,
    strikes as strikes,
    using as using,
)
from queued_storage.conf import settings
from queued_storage.exceptions import ErrorKind
from queued_storage.models import Outcome, State, TransferAttempt, TransferRecord
from queued_storage.names import generation_name


def _move(rows: QuerySet[TransferRecord], **changes: Any) -> bool:
    return _move_all(rows, **changes) > 0


def _move_all(rows: QuerySet[TransferRecord], **changes: Any) -> int:
    return persist(lambda: rows.update(**changes, updated_at=DatabaseNow()))


def _held(pk: int, lease: uuid.UUID) -> QuerySet[TransferRecord]:
    return records().filter(pk=pk, state=State.TRANSFERRING, lease=lease)


# Save, adopt, supersede, delete


def insert(record: TransferRecord) -> bool:
    """Insert a new record in the caller's transaction; False if its key is taken, the transaction stays usable."""
    record.created_at = record.updated_at = DatabaseNow()
    return inserting.insert(record, using())


def insert_many(new: list[TransferRecord], moment: datetime) -> list[TransferRecord]:
    """Insert records, new at ``moment``, in one transaction; return those whose key was not taken."""
    return persist(lambda: inserting.insert_many(new, moment, using()))


def replace(record: TransferRecord, exclusive: bool = False, locking: bool = False) -> bool:
    """Insert ``record`` as the next generation of its key; False if another writer was faster: call again.

    With ``exclusive`` only a deleted record is superseded, otherwise False; so it is while the bytes lie at the plain
    place, that of generation 1. ``locking`` reads what others have committed since the caller's transaction began.
    """
    with transaction.atomic(using=using()):
        rows = records().filter(key=record.key)
        old = (rows.select_for_update() if locking else rows).first()
        if old is not None:
            if exclusive and old.state != State.DELETED:
                return False
            record.generation = old.generation + 1
            if record.remote_name == record.name:
                record.remote_name = generation_name(record.name, record.generation)
            if record.local_name == record.name or not _move(rows.filter(pk=old.pk), **_deletion(), key=None):
                return False
        return insert(record)


def _deletion() -> dict[str, Any]:
    # The order matters: MySQL assigns from left to right, so what depends on the state comes before it.
    # A worker may still be sending: its bytes are removed only when its lease has ended.
    waits = When(state__in=[State.TRANSFERRING, State.DELETED], then=F("due_at"))
    return {
        "due_at": Case(waits, default=after(settings.QUEUED_STORAGE_RESEND_DELAY)),
        "worker": Case(When(state=State.TRANSFERRING, then=F("worker")), default=Value("")),
        "deleted_at": Case(When(state=State.DELETED, then=F("deleted_at")), default=DatabaseNow()),
        # Of a deleted record it says that its remote copy has gone.
        "error_kind": Case(When(error_kind=ErrorKind.ELSEWHERE, then=Value("")), default=F("error_kind")),
        "retries": Value(0),
        "lease": None,
        "state": State.DELETED,
    }


def delete(pk: int) -> bool:
    """Make a record ``deleted``: gone for readers at once, its copies are removed later. False if it was already."""
    return _move(records().filter(pk=pk).exclude(state=State.DELETED), **_deletion())


# Queue, hold, release


def release(pk: int, at_once: bool = False) -> bool:
    """Queue a ``delayed`` record; False if it is not delayed.

    Its message is the caller's to send, or with ``at_once`` the sweep's.
    """
    rows = records().filter(pk=pk, state=State.DELAYED)
    return _move(rows, state=State.QUEUED, due_at=after(AT_ONCE if at_once else settings.QUEUED_STORAGE_RESEND_DELAY))


def hold(pk: int) -> bool:
    """Hold a ``queued`` record until it is released; False if it is not queued."""
    return hold_all(records().filter(pk=pk)) > 0


def hold_all(rows: QuerySet[TransferRecord]) -> int:
    """Hold the ``queued`` among ``rows`` until they are released; return how many."""
    return _move_all(rows.filter(state=State.QUEUED), state=State.DELAYED, due_at=None)


def release_all(rows: QuerySet[TransferRecord]) -> int:
    """Queue the ``delayed`` among ``rows``, for the sweep to send at once if nobody else does; return how many."""
    return _move_all(rows.filter(state=State.DELAYED), state=State.QUEUED, due_at=DatabaseNow())


def requeue(rows: QuerySet[TransferRecord]) -> int:
    """Queue the ``failed`` and ``queued`` among ``rows`` afresh, at once and with all retries; return how many."""
    wanted = rows.filter(state__in=[State.FAILED, State.QUEUED])
    return _move_all(wanted, state=State.QUEUED, due_at=DatabaseNow(), retries=0)


# One attempt: claim, renew, complete, retry, fail


def claim(pk: int, lease: uuid.UUID, worker: str, retries: int | None = None) -> QuerySet[TransferRecord]:
    """Claim a queued record for one attempt under ``lease``; the rows returned hold it, or nothing.

    ``retries`` is the count that the message was sent with: a message that was overtaken by another attempt claims
    nothing, however often it is delivered. The attempt is counted here, not at its end, so that a file that kills its
    worker is counted too.
    """
    rows = records().filter(pk=pk, state=State.QUEUED)
    if retries is not None:
        rows = rows.filter(retries=retries)
    _move(
        rows,
        state=State.TRANSFERRING,
        lease=lease,
        worker=worker,
        retries=F("retries") + 1,
        due_at=after(settings.QUEUED_STORAGE_LEASE),
    )
    # To be asked by the token, not by the row count: after a lost answer the token tells what was committed.
    return _held(pk, lease)


def renew(pk: int, lease: uuid.UUID) -> bool:
    """Let the lease run anew from now; False if it was lost."""
    return _move(_held(pk, lease), due_at=after(settings.QUEUED_STORAGE_LEASE))


def measured(record: TransferRecord) -> bool:
    """Write down ``size`` and ``digest`` of an adopted record before any byte goes away; False if the lease is lost."""
    assert record.lease is not None
    return _move(_held(record.pk, record.lease), size=record.size, digest=record.digest)


def place(pk: int, lease: uuid.UUID, remote_name: str) -> bool:
    """Fix another remote name before any byte goes there; False if the lease was lost."""
    return _move(_held(pk, lease), remote_name=remote_name)


def complete(record: TransferRecord, evict_after: timedelta | None) -> bool:
    """Make a verified record ``transferred``; False if the lease was lost.

    Writes ``remote_name``, ``size`` and ``digest`` of ``record``. ``evict_after`` says when the local copy is owed to
    be removed, ``None`` keeps it.
    """
    assert record.lease is not None
    asked = 0

    def statement() -> int:
        nonlocal asked
        asked += 1
        return rows.update(**changes)

    rows = _held(record.pk, record.lease)
    body = {"remote_name": record.remote_name, "size": record.size, "digest": record.digest}
    changes = {**body, **completion(evict_after)}
    if persist(statement) > 0:
        return True
    # Asked twice, the first answer was lost: zero rows may then be our own commit.
    ours = records().filter(pk=record.pk, state=State.TRANSFERRED, remote_name=record.remote_name)
    return asked > 1 and persist(ours.exists)


def completion(evict_after: timedelta | None) -> dict[str, Any]:
    """Return what changes in the row of a record that is transferred."""
    due_at = None if evict_after is None else after(evict_after)
    over = {"lease": None, "worker": "", "error_kind": "", "error": "", "updated_at": DatabaseNow()}
    return {"state": State.TRANSFERRED, "transferred_at": DatabaseNow(), "due_at": due_at, **over}


def retry(record: TransferRecord, kind: ErrorKind, error: str, delay: timedelta, counted: bool = True) -> bool:
    """Give a claimed record back to be tried again after ``delay``; False if the lease was lost."""
    assert record.lease is not None
    return _move(
        _held(record.pk, record.lease),
        state=State.QUEUED,
        due_at=after(delay),
        retries=F("retries") if counted else F("retries") - 1,
        lease=None,
        worker="",
        error_kind=kind,
        error=error,
    )


def fail(record: TransferRecord, kind: ErrorKind, error: str) -> bool:
    """Make a claimed record ``failed``: it rests until a person retries or deletes it. False if the lease was lost."""
    assert record.lease is not None
    return _move(
        _held(record.pk, record.lease),
        state=State.FAILED,
        due_at=None,
        lease=None,
        worker="",
        error_kind=kind,
        error=error,
    )


def expired(record: TransferRecord) -> bool:
    """Take the lease from a worker that has not renewed it in time; False if it has, or is done.

    The record is ours afterwards, under a new lease in ``record.lease``, so that ``retry`` or ``fail`` can follow.
    """
    assert record.lease is not None
    lease = uuid.uuid4()
    rows = _held(record.pk, record.lease).filter(due_at__lte=DatabaseNow())
    _move(rows, lease=lease, due_at=after(settings.QUEUED_STORAGE_LEASE))
    record.lease = lease
    return persist(_held(record.pk, lease).exists)


def log_attempt(record: TransferRecord, outcome: Outcome, kind: str = "", error: str = "", size: int = 0) -> None:
    """Append one ended attempt to the history; it began when ``record`` was claimed."""
    attempt = TransferAttempt(
        record_id=record.pk,
        started_at=record.updated_at,
        finished_at=DatabaseNow(),
        worker=record.worker,
        outcome=outcome,
        error_kind=kind,
        error=error,
        bytes=size,
    )
    persist(lambda: attempt.save(using=using(), force_insert=True))


def note(pk: int, kind: ErrorKind, error: str) -> bool:
    """Write down why nothing can be done for a record that nobody holds; its state and timer stay as they are."""
    return _move(records().filter(pk=pk).exclude(state=State.TRANSFERRING), error_kind=kind, error=error)


# Verify, evict, restore, remove, prune


def checked(pk: int, kind: str = "", error: str = "") -> bool:
    """Note that the remote copy of a transferred record was looked at, and what is wrong with it."""
    rows = records().filter(pk=pk, state=State.TRANSFERRED)
    return _move(rows, checked_at=DatabaseNow(), error_kind=kind, error=error)


def send_again(pk: int, kind: ErrorKind, error: str) -> bool:
    """Queue a transferred record whose remote copy is gone or altered, and whose local copy was found to be right."""
    rows = records().filter(pk=pk, state=State.TRANSFERRED, local_copy=True)
    return _move(rows, state=State.QUEUED, due_at=DatabaseNow(), retries=0, error_kind=kind, error=error)


def restored(pk: int) -> bool:
    """Note that a transferred record has a local copy again, on this host, which stays until somebody evicts it."""
    rows = records().filter(pk=pk, state=State.TRANSFERRED, local_copy=False)
    return _move(rows, local_copy=True, due_at=None, node=settings.QUEUED_STORAGE_NODE)


def overdue(pk: int, evict_after: timedelta) -> bool:
    """Tell whether a record was transferred longer ago than ``evict_after`` and still has its local copy."""
    since = ExpressionWrapper(DatabaseNow() - evict_after, output_field=DateTimeField())
    return persist(records().filter(pk=pk, state=State.TRANSFERRED, local_copy=True, transferred_at__lte=since).exists)


def evicted(pk: int) -> bool:
    """Note that the local copy of a transferred record is gone."""
    return _move(records().filter(pk=pk, state=State.TRANSFERRED), local_copy=False, due_at=None)


def evict_soon(pks: list[int]) -> int:
    """Let the sweep remove the local copies of these transferred records; return how many that are."""
    copies = records().filter(state=State.TRANSFERRED, local_copy=True, due_at__isnull=True)
    return _move_all(copies.filter(pk__in=pks), due_at=DatabaseNow())


def keep_for_good(pk: int) -> bool:
    """Call off an eviction that the settings no longer ask for."""
    return _move(records().filter(pk=pk, state=State.TRANSFERRED), due_at=None)


def keep(pk: int, kind: ErrorKind, error: str) -> bool:
    """Call off an eviction: the local copy stays and the reason is shown."""
    return _move(records().filter(pk=pk, state=State.TRANSFERRED), due_at=None, error_kind=kind, error=error)


def removed(pk: int) -> bool:
    """Note that both copies of a deleted record are gone; its name stays taken until it is pruned.

    True if they were not noted as gone before.
    """
    rows, age = records().filter(pk=pk, state=State.DELETED), settings.QUEUED_STORAGE_PRUNE_AFTER
    due_at = ExpressionWrapper(F("deleted_at") + age, output_field=DateTimeField())
    # The first removal brings the timer to the date of the prune; later ones find it there. Where it was late, the
    # cache has just been told "gone", and must have forgotten it before the name is free.
    changes = {"due_at": Greatest(due_at, after(age / 2)), "local_copy": False, "error_kind": "", "error": ""}
    if _move(rows.filter(due_at__lt=due_at), **changes):
        return True
    _move(rows, **changes)
    return False


def postpone(pk: int, kind: ErrorKind, error: str, delay: timedelta) -> bool:
    """Note that an eviction or removal failed and is due again after ``delay``."""
    rows = records().filter(pk=pk, state__in=[State.TRANSFERRED, State.DELETED])
    return _move(rows, due_at=after(delay), retries=F("retries") + 1, error_kind=kind, error=error)


def prune(pk: int) -> bool:
    """Delete the row of a record that was deleted long ago and whose copies are gone; its name is free again."""
    since = ExpressionWrapper(DatabaseNow() - settings.QUEUED_STORAGE_PRUNE_AFTER, output_field=DateTimeField())
    # A message that comes too early finds the timer at the date of the prune, not at that of a resend.
    soon = after(settings.QUEUED_STORAGE_RESEND_CAP)
    rows = records().filter(pk=pk, state=State.DELETED, deleted_at__lte=since, due_at__lte=soon)
    return persist(rows.delete)[0] > 0


def prune_attempts(limit: int) -> int:
    """Delete up to ``limit`` attempts older than QUEUED_STORAGE_ATTEMPTS_AGE; return how many."""
    since = ExpressionWrapper(DatabaseNow() - settings.QUEUED_STORAGE_ATTEMPTS_AGE, output_field=DateTimeField())
    old = persist(lambda: list(attempts().filter(finished_at__lt=since).values_list("pk", flat=True)[:limit]))
    return persist(attempts().filter(pk__in=old).delete)[0] if old else 0


# The sweep's batch


def take_due(limit: int, waiting: Iterable[str] = (), only: Iterable[int] | None = None) -> list[TransferRecord]:
    """Take up to ``limit`` rows that are owed a message, for this caller alone, and return them as they were.

    Their timer is set to the next resend, so that of several sweeps at once only one gets each row. Queued rows of
    the storages ``waiting`` are left alone; ``only`` names the rows to choose from.
    """
    owed = Q(state=State.QUEUED) & ~Q(storage__in=list(waiting)) | Q(state__in=[State.TRANSFERRED, State.DELETED])
    if only is not None:
        owed = Q(pk__in=list(only), state=State.QUEUED)
    rows = due().filter(owed).annotate(age=ExpressionWrapper(DatabaseNow(), output_field=DateTimeField()))
    features = connections[using()].features
    with transaction.atomic(using=using()):
        if features.has_select_for_update:
            # Others leave the rows out, and with InnoDB perhaps more of them, which it reads to find the first ones; or
            # they wait, and find that these are due no longer.
            rows = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        else:
            # Whoever writes, and be it to no row, is SQLite's only writer from here on, and reads what holds now.
            records().filter(pk=0).update(worker="")
        taken: list[Any] = list(rows[:limit])
        buckets: dict[timedelta, list[int]] = {}
        for record in taken:
            buckets.setdefault(backoff.resend_delay(record.age - record.created_at), []).append(record.pk)
        # A deleted record forgets its worker here: the lease has ended, removal may begin.
        worker = Case(When(state=State.DELETED, then=Value("")), default=F("worker"))
        for delay, pks in buckets.items():
            # SQLite may have been built to take no more than 999 values in a statement.
            for start in range(0, len(pks), 500):
                records().filter(pk__in=pks[start : start + 500]).update(due_at=after(delay), worker=worker)
        return taken
