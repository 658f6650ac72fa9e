"""Remove local copies on an operator's word: of verified files only, and not before the remote was asked again."""

from __future__ import annotations

import os
from collections.abc import Generator

from django.core.files.storage import FileSystemStorage
from django.db.models import QuerySet, Sum

from queued_storage import copying, examining, ledger, removal, selecting
from queued_storage.digests import Body
from queued_storage.examining import Found, Look
from queued_storage.exceptions import ErrorKind, MismatchError
from queued_storage.models import State, TransferRecord
from queued_storage.pairs import StoragePair
from queued_storage.redaction import describe, redact
from queued_storage.results import Item, item

EVICTED, ABSENT, KEPT, UNKNOWN = "evicted", "absent", "kept", "unknown"


def evictable(rows: QuerySet[TransferRecord]) -> QuerySet[TransferRecord]:
    """Return the transferred among ``rows`` that have a local copy."""
    return rows.filter(state=State.TRANSFERRED, local_copy=True)


def local_bytes(alias: str) -> int:
    """Return how many bytes of a storage's files lie on the local side, owed ones included."""
    rows = ledger.records().filter(storage=alias, local_copy=True).exclude(state=State.DELETED)
    return int(ledger.persist(lambda: rows.aggregate(bytes=Sum("size")))["bytes"] or 0)


def free_bytes(storage: StoragePair) -> int | None:
    """Return how many bytes are free where a storage keeps its local files; ``None`` if that is no file system."""
    if not isinstance(storage.local, FileSystemStorage):
        return None
    place = storage.local.location
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def evict(rows: QuerySet[TransferRecord], limit: int | None = None, need: int | None = None) -> Generator[Item]:
    """Remove the local copies of ``rows``, oldest first, until ``need`` bytes are freed, and yield what became of each.

    A record that is not transferred is yielded with its state. A copy stays where the remote no longer holds the right
    bytes, or where the local bytes are others than were saved; the item tells.
    """
    freed, patience = 0, examining.Patience()
    for page in selecting.pages(rows, limit):
        for record in page:
            if need is not None and freed >= need:
                return
            each = _evict(record, patience)
            freed += each.size if each.changed else 0
            yield each


def _evict(record: TransferRecord, patience: examining.Patience) -> Item:
    if record.state != State.TRANSFERRED or not record.local_copy:
        return item(record, record.state if record.state != State.TRANSFERRED else ABSENT)
    storage = patience.storage(record.storage)
    if isinstance(storage, Look):
        return item(record, UNKNOWN, reason=storage.reason)
    if examining.is_elsewhere(record):
        return item(record, KEPT, reason=f"the local copy lies on the disk of {record.node}; evict it there")
    try:
        local = _check(record, storage)
    except MismatchError as error:
        ledger.keep(record.pk, ErrorKind.MISMATCH, redact(error))
        return item(record, KEPT, reason=str(error))
    except Exception as error:
        patience.note(record.storage, Look(Found.UNKNOWN))
        return item(record, UNKNOWN, reason=describe(error, storage.local_options, storage.remote_options))
    patience.note(record.storage, Look(Found.SAME))
    if local == Found.DIFFERENT:
        return item(record, KEPT, reason="the local copy has other bytes than were saved")
    if local == Found.ABSENT:
        ledger.evicted(record.pk)
        return item(record, ABSENT)
    evicted = removal.evict(record, storage)
    return item(record, EVICTED if evicted else KEPT, evicted, "" if evicted else "it could not be removed")


def _check(record: TransferRecord, storage: StoragePair) -> Found:
    """Tell what lies locally; raises ``MismatchError`` unless the remote holds the right bytes."""
    body = examining.body_of(record)
    if not body.digests.keys() & set(copying.STRONG):
        # Adopted on the remote's word: only what lies locally can tell what the bytes should be.
        try:
            found = copying.measure(storage.local, record.local_name)
        except FileNotFoundError:
            return Found.ABSENT
        body = Body(found.size, found.digests, record.content_type)
    copy = examining.copy_of(record, storage, body)
    copy.check()
    return {True: Found.SAME, False: Found.DIFFERENT, None: Found.ABSENT}[copy.local_is_ours()]
