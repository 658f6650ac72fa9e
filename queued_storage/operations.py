"""What operators do to many records at once, from the command line and from the admin alike.

Each function takes a queryset of records, in whatever state they are, and returns how many it changed, and how many
it did not, by the state that these are in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import transaction
from django.db.models import QuerySet

from queued_storage import ledger, locations, publishing, selecting, tasks
from queued_storage.models import State, TransferRecord
from queued_storage.pairs import pair_for
from queued_storage.redaction import redact
from queued_storage.results import Result

logger = logging.getLogger("queued_storage")

Rows = QuerySet[TransferRecord]
#: Is told of how many more files were gone through.
Step = Callable[[int], object]


def _silently(files: int) -> None:
    """Tell nobody."""


RETRIABLE = (State.FAILED, State.QUEUED)


def retry(rows: Rows, limit: int | None = None, step: Step = _silently) -> Result:
    """Queue the failed and the waiting among ``rows`` afresh, with all retries, and send their messages.

    The messages follow the commit; should the broker not take them, the sweep sends them.
    """
    return _move(rows, limit, RETRIABLE, ledger.requeue, sends=True, step=step)


def release(rows: Rows, limit: int | None = None, step: Step = _silently) -> Result:
    """Queue the held among ``rows`` and send their messages."""
    return _move(rows, limit, (State.DELAYED,), ledger.release_all, sends=True, step=step)


def hold(rows: Rows, limit: int | None = None, step: Step = _silently) -> Result:
    """Hold the queued among ``rows`` until they are released; what a worker has in hand is not held."""
    return _move(rows, limit, (State.QUEUED,), ledger.hold_all, sends=False, step=step)


def transfer(rows: Rows, limit: int | None = None, step: Step = _silently) -> Result:
    """Queue the held, the failed and the waiting among ``rows``, to go now, and send their messages."""

    def move(wanted: Rows) -> int:
        return ledger.requeue(wanted) + ledger.release_all(wanted)

    return _move(rows, limit, (*RETRIABLE, State.DELAYED), move, sends=True, step=step)


def remove(rows: Rows, limit: int | None = None) -> Result:
    """Delete the files of ``rows``, as ``storage.delete()`` does: gone for readers at once, removed in the background.

    Whatever state they are in: those that are deleted already are not deleted again.
    """
    result = Result()
    for record in (record for page in selecting.pages(rows, limit) for record in page):
        was = record.state
        if not ledger.delete(record.pk):
            result.unchanged[State.DELETED] += 1
            continue
        result.changed += 1
        result.bytes += record.size or 0
        record.state = State.DELETED
        # While a worker may still be sending, the removal waits for the end of its lease.
        _announce(record, now=was != State.TRANSFERRING)
    return result


def _announce(record: TransferRecord, now: bool) -> None:
    try:
        storage = pair_for(record.storage)
    except Exception as error:
        # The sweep removes the copies once the storage is back.
        logger.warning("A record has no usable storage", extra={"record_id": record.pk, "error": redact(error)})
        return
    locations.announce(storage, record)
    if now:
        publishing.after_commit(storage, record)


def _move(
    rows: Rows, limit: int | None, states: tuple[State, ...], move: Callable[[Rows], int], sends: bool, step: Step
) -> Result:
    result = Result()
    for page in selecting.pages(rows, limit):
        found = ledger.records().filter(pk__in=[record.pk for record in page])
        with transaction.atomic(using=ledger.using()):
            now = dict(found.values_list("pk", "state"))
            wanted = ledger.records().filter(pk__in=[pk for pk, state in now.items() if state in states])
            result.unchanged.update(state for state in now.values() if state not in states)
            changed = move(wanted)
            result.changed += changed
            result.bytes += sum(record.size or 0 for record in page if now.get(record.pk) in states)
            if sends and changed:
                _send_after_commit(list(wanted.filter(state=State.QUEUED)))
        step(len(page))
    return result


def _send_after_commit(records: list[TransferRecord]) -> None:
    transaction.on_commit(lambda: tasks.send(records), using=ledger.using(), robust=True)
