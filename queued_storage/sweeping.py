"""The sweep: find what is due and have somebody do it. Knows no Celery.

``sweep`` itself touches the database alone, and once an hour what uploads have left on the remotes; ``send`` says who
does the work. With ``process_all`` as ``send`` it needs no broker and no worker: the sweep alone can finish everything.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from queued_storage import (
    backlog,
    disks,
    health,
    heartbeat,
    late,
    ledger,
    leftovers,
    removal,
    retention,
    settling,
    transfers,
)
from queued_storage.conf import settings
from queued_storage.exceptions import ErrorKind
from queued_storage.local import LocalStorage
from queued_storage.models import Outcome, State, TransferRecord
from queued_storage.pairs import configured

logger = logging.getLogger("queued_storage")

# Attempts that are deleted at a time: SQLite may have been built to take no more than 999 values in a statement.
PRUNED = 500

Send = Callable[[list[TransferRecord]], object]


def process(pk: int, retries: int | None = None, task: Any = None) -> Outcome | None:
    """Do whatever is owed on one record: transfer it, evict its local copy, remove its copies.

    A record that is not there, or is not owed anything, is left alone: a message can only say "look at this record".
    Returns the outcome of a transfer, else ``None``.
    """
    outcome = transfers.run(pk, retries, task)
    if outcome is not None:
        return outcome
    record = ledger.get(pk)
    if record is None:
        logger.info("No such record", extra={"record_id": pk})
    elif record.state == State.DELETED and not record.worker:
        removal.remove(record)
    elif record.state == State.TRANSFERRED and record.local_copy and record.due_at is not None:
        removal.evict_due(record)
    return None


def process_all(records: Iterable[TransferRecord]) -> Counter[str]:
    """Do in this process what is owed on each of ``records``; return how many transfers ended how.

    Raises, when all are done, the first ``ValueError`` of a task that answered neither True nor False.
    """
    counts: Counter[str] = Counter()
    errors: list[ValueError] = []
    for record in records:
        try:
            counts[str(process(record.pk, record.retries) or "done")] += 1
        except ValueError as error:
            counts[str(Outcome.RETRY)] += 1
            errors.append(error)
    if errors:
        raise errors[0]
    return counts


def sweep(send: Send, limit: int | None = None) -> dict[str, int]:
    """Move on every record whose time has come and return how many, by duty.

    Rescues records whose worker has stopped renewing its lease, queues those whose delay has ended, and hands those
    that are owed work to ``send``, each to one of several concurrent sweeps only. Chooses copies to evict where local
    bytes are limited, and tells of files that have grown late and of storages that owe as much as they may. Prunes
    leftovers of local writes and, once an hour, those of uploads and the history of attempts.
    """
    limit = limit or settings.QUEUED_STORAGE_SWEEP_BATCH
    counts: Counter[str] = Counter()
    begun = heartbeat.begin(heartbeat.SWEEP)
    counts["spilled"] += retention.spill()
    while True:
        states = ledger.due_states()
        moved = {
            "rescued": rescue(limit) if State.TRANSFERRING in states else 0,
            "released": release(limit) if State.DELAYED in states else 0,
            "sent": hand_out(send, limit) if states else 0,
        }
        counts.update(moved)
        if max(moved.values()) < limit:
            break
    counts["released"] += release_held(limit)
    if begun is not None:
        counts["late"] += late.tell(*begun)
        backlog.watch()
        disks.sample(*begun)
    if begun is not None and heartbeat.is_new_hour(*begun):
        counts["pruned"] += prune_history()
    counts["pruned"] += collect_staging()
    # Last, for it may wait for a remote.
    if begun is not None:
        counts["pruned"] += leftovers.remove(*begun)
    return dict(+counts)


def hand_out(send: Send, limit: int) -> int:
    """Hand the records that are owed work to ``send``; return how many.

    The rows of a storage whose remote is down stay due, but for one that probes it; they go, oldest first, as soon as
    a probe has succeeded.
    """
    down = health.down()
    taken = ledger.take_due(limit, waiting=down)
    if down:
        taken += ledger.take_due(limit, only=[record.pk for record in health.probes()])
    if taken:
        send(taken)
    return len(taken)


def rescue(limit: int) -> int:
    """Take the records from workers whose lease has ended and give them back; return how many."""
    count = 0
    for record in ledger.due().filter(state=State.TRANSFERRING)[:limit]:
        if ledger.expired(record):
            error = f"{record.worker} did not renew its lease: killed, or stuck"
            settling.settle(record, ErrorKind.LOST, error)
            count += 1
    return count


def release(limit: int) -> int:
    """Queue the records whose delay has ended; return how many."""
    due = ledger.due().filter(state=State.DELAYED).values_list("pk", flat=True)[:limit]
    return sum(ledger.release(pk, at_once=True) for pk in due)


def release_held(limit: int) -> int:
    """Queue the records that have been held for longer than QUEUED_STORAGE_RELEASE_AFTER; return how many."""
    age = settings.QUEUED_STORAGE_RELEASE_AFTER
    if age is None:
        return 0
    return sum(ledger.release(pk, at_once=True) for pk in ledger.held(age).values_list("pk", flat=True)[:limit])


def prune_history() -> int:
    """Delete the attempts that are older than QUEUED_STORAGE_ATTEMPTS_AGE; return how many."""
    count = 0
    while True:
        pruned = ledger.prune_attempts(PRUNED)
        count += pruned
        if pruned < PRUNED:
            return count


def collect_staging() -> int:
    """Remove what local writes that never finished have left behind, by age; return how many files."""
    places: dict[str, LocalStorage] = {}
    for storage in configured():
        try:
            if isinstance(storage.local, LocalStorage):
                places[str(storage.local.location)] = storage.local
        except Exception:
            # One storage that cannot be built must not keep the others waiting; the system checks tell why.
            logger.exception("A local storage cannot be built", extra={"storage": storage.alias})
    count = 0
    for local in places.values():
        try:
            count += local.collect_staging(settings.QUEUED_STORAGE_STAGING_AGE)
        except OSError:
            # Another user's, perhaps, or a disk that is away; nothing else is to wait for it.
            logger.exception("Leftovers of local writes stay", extra={"folder": str(local.location)})
    return count
