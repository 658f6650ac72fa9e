"""Keep the local copies of a storage within its number of bytes: ``keep_local="50G"``."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Sum

from queued_storage import access, evicting, heartbeat, ledger, selecting
from queued_storage.pairs import StoragePair, configured

# To add up the local bytes of a storage reads its records: done no more often than this.
EVERY = timedelta(minutes=10)


def spill() -> int:
    """Choose the oldest local copies of every storage that has too many bytes, for the sweep to evict; return how many.

    Only transferred files are chosen; each is evicted after the remote was asked again, as ever.
    """
    return sum(_spill(storage, storage.keep_bytes) for storage in configured() if storage.keep_bytes is not None)


def _spill(storage: StoragePair, limit: int) -> int:
    duty = f"spill:{storage.alias}"[:100]
    last = heartbeat.last(duty)
    if (last is not None and access.now() - last < EVERY) or heartbeat.begin(duty) is None:
        return 0
    rows = evicting.evictable(ledger.records().filter(storage=storage.alias))
    going = ledger.persist(lambda: rows.filter(due_at__isnull=False).aggregate(bytes=Sum("size")))["bytes"] or 0
    excess, chosen = evicting.local_bytes(storage.alias) - limit - going, 0
    for page in selecting.pages(rows.filter(due_at__isnull=True)) if excess > 0 else ():
        pks: list[int] = []
        for record in page:
            if excess > 0:
                excess -= record.size or 0
                pks.append(record.pk)
        chosen += ledger.evict_soon(pks)
        if excess <= 0:
            break
    return chosen
