"""Ask the remote again whether it still holds what was transferred. Repairs nothing by deleting."""

from __future__ import annotations

import logging
from collections.abc import Generator
from datetime import timedelta

from django.db.models import Q, QuerySet

from queued_storage import examining, ledger, locations, selecting, signals
from queued_storage.examining import Found, Look
from queued_storage.exceptions import ErrorKind
from queued_storage.models import State, TransferRecord
from queued_storage.pairs import StoragePair, pair_for
from queued_storage.results import Item, item
from queued_storage.settling import log_facts

logger = logging.getLogger("queued_storage")

VERIFIED, REQUEUED, MISSING, ALTERED, UNKNOWN = "verified", "requeued", "missing", "altered", "unknown"


def due(rows: QuerySet[TransferRecord], every: timedelta) -> QuerySet[TransferRecord]:
    """Return the transferred among ``rows`` that nobody has looked at on the remote for ``every``."""
    long_ago = selecting.ago(every)
    never = Q(checked_at__isnull=True, transferred_at__lte=long_ago)
    return rows.filter(never | Q(checked_at__lte=long_ago), state=State.TRANSFERRED)


def verify(
    rows: QuerySet[TransferRecord],
    limit: int | None = None,
    deep: bool = False,
    rate: float | None = None,
    threads: int = 1,
) -> Generator[Item]:
    """Look at the remote copy of each transferred record, with ``deep`` at its bytes, and yield what was found.

    What is gone or altered is queued again where the local copy still has the right bytes; a remote object of other
    bytes is left alone, the file gets another name there. Otherwise the reason is written into the record. Records
    in other states are yielded with their state. At most ``rate`` files a second, ``threads`` at a time.
    """
    patience = examining.Patience()

    def look(record: TransferRecord) -> Look | None:
        storage = patience.storage(record.storage) if record.state == State.TRANSFERRED else None
        if not isinstance(storage, StoragePair):
            return storage
        found = examining.look_remotely(record, storage, deep)
        patience.note(record.storage, found)
        return found

    records = (record for page in selecting.pages(rows, limit) for record in page)
    for record, found in examining.side_by_side(look, examining.throttled(records, rate), threads):
        yield item(record, record.state) if found is None else _settle(record, found)


def _settle(record: TransferRecord, look: Look) -> Item:
    if look.found == Found.UNKNOWN:
        return item(record, UNKNOWN, reason=look.reason)
    if look.found == Found.SAME:
        ledger.checked(record.pk)
        return item(record, VERIFIED, changed=True)
    kind = ErrorKind.MISSING if look.found == Found.ABSENT else ErrorKind.MISMATCH
    requeued = send_again(record, pair_for(record.storage), kind, look.reason)
    if not requeued and not ledger.checked(record.pk, kind, look.reason):
        # Deleted or saved anew while it was looked at.
        return item(record, UNKNOWN)
    facts = log_facts(record, kind=str(kind.value), error=look.reason, requeued=requeued)
    logger.error("The remote copy is not what was transferred", extra=facts)
    signals.tell(signals.file_missing, TransferRecord, name=record.name, record=record, kind=kind, requeued=requeued)
    outcome = REQUEUED if requeued else MISSING if kind == ErrorKind.MISSING else ALTERED
    return item(record, outcome, changed=requeued, reason=look.reason)


def send_again(record: TransferRecord, storage: StoragePair, kind: ErrorKind, reason: str) -> bool:
    """Queue a transferred record whose local copy certainly has the bytes that were saved; False if it has not."""
    if not (record.local_copy and record.digest):
        return False
    if examining.look_locally(record, storage, deep=True).found != Found.SAME:
        return False
    if not ledger.send_again(record.pk, kind, reason):
        return False
    locations.unsettle(storage, record)
    return True
