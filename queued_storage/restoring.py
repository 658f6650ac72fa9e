"""Bring remote files back to the local side, verified: to serve them from there, or to leave without pain."""

from __future__ import annotations

from collections.abc import Generator

from django.db.models import QuerySet

from queued_storage import copying, examining, ledger, selecting
from queued_storage.conf import settings
from queued_storage.examining import Found, Look
from queued_storage.models import State, TransferRecord
from queued_storage.pairs import StoragePair
from queued_storage.redaction import describe
from queued_storage.results import Item, item

RESTORED, PRESENT, ALTERED, TAKEN, UNKNOWN = "restored", "present", "altered", "taken", "unknown"


def restorable(rows: QuerySet[TransferRecord]) -> QuerySet[TransferRecord]:
    """Return the transferred among ``rows`` that have no local copy."""
    return rows.filter(state=State.TRANSFERRED, local_copy=False)


def restore(
    rows: QuerySet[TransferRecord], limit: int | None = None, rate: float | None = None, threads: int = 1
) -> Generator[Item]:
    """Copy each transferred file without a local copy back to its local place and yield what became of it.

    The bytes are compared with those that were saved before the ledger tells of the copy, which stays until somebody
    evicts it. Nothing is written over: a local place that is taken by other bytes is left alone.
    """
    patience = examining.Patience()
    records = (record for page in selecting.pages(rows, limit) for record in page)
    throttled = examining.throttled(records, rate)
    for _, each in examining.side_by_side(lambda record: _restore(record, patience), throttled, threads):
        yield each


def _restore(record: TransferRecord, patience: examining.Patience) -> Item:
    if record.state != State.TRANSFERRED or record.local_copy:
        return item(record, record.state if record.state != State.TRANSFERRED else PRESENT)
    storage = patience.storage(record.storage)
    if isinstance(storage, Look):
        return item(record, UNKNOWN, reason=storage.reason)
    try:
        outcome, reason = _fetch(record, storage)
    except Exception as error:
        patience.note(record.storage, Look(Found.UNKNOWN))
        return item(record, UNKNOWN, reason=describe(error, storage.local_options, storage.remote_options))
    patience.note(record.storage, Look(Found.SAME))
    if outcome == RESTORED and not ledger.restored(record.pk):
        return _overtaken(record, storage)
    return item(record, outcome, outcome == RESTORED, reason)


def _overtaken(record: TransferRecord, storage: StoragePair) -> Item:
    now = ledger.get(record.pk)
    present = now is not None and now.local_copy
    if now is None or not present or examining.is_elsewhere(now):
        # Deleted, saved anew, or restored on another host meanwhile: nobody else knows of this copy.
        storage.local.delete(record.local_name)
    return item(record, PRESENT if present else State.DELETED)


def _fetch(record: TransferRecord, storage: StoragePair) -> tuple[str, str]:
    # Wherever a copy lay before: the new one will lie on this host.
    record.node = settings.QUEUED_STORAGE_NODE
    lies = examining.look_locally(record, storage, deep=True)
    if lies.found == Found.SAME and record.digest:
        # Of an earlier restore that was killed, or put back by somebody.
        return RESTORED, ""
    if lies.found != Found.ABSENT:
        return TAKEN, f"another file lies at {record.local_name}: move it away, then restore again"
    with storage.remote.open(record.remote_name, "rb") as file:
        stored, body = copying.save_locally(storage.local, record.local_name, file)
    if stored != record.local_name:
        storage.local.delete(stored)
        return TAKEN, f"another file took {record.local_name} meanwhile"
    known = examining.body_of(record)
    common = [name for name in ("sha256", "crc32") if name in known.digests]
    if body.size != record.size or any(body.digests[name] != known.digests[name] for name in common):
        storage.local.delete(stored)
        return ALTERED, "the remote gave other bytes than were saved; nothing was restored"
    return RESTORED, ""
