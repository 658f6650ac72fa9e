"""What a sweep would do now, by the rows that it would find; nothing is changed, and nobody is asked."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from queued_storage import health, ledger
from queued_storage.conf import settings
from queued_storage.models import State, TransferRecord

#: What is done to a record, in the order of the sweep; ``wait`` for those whose storage is down or paused.
DUTIES = ("rescue", "release", "send", "evict", "remove", "wait")


def due() -> dict[str, QuerySet[TransferRecord]]:
    """Return the records that a sweep would move on now, by duty.

    Not the local copies that a limit of bytes would choose, nor the attempts and leftovers that would be pruned.
    """
    rows, down = ledger.due(), health.down()
    released = Q(pk__in=rows.order_by().filter(state=State.DELAYED).values("pk"))
    if (age := settings.QUEUED_STORAGE_RELEASE_AFTER) is not None:
        released |= Q(pk__in=ledger.held(age).order_by().values("pk"))
    queued = rows.filter(state=State.QUEUED)
    return {
        "rescue": rows.filter(state=State.TRANSFERRING),
        "release": ledger.records().filter(released).order_by("created_at", "id"),
        "send": queued.exclude(storage__in=down),
        "evict": rows.filter(state=State.TRANSFERRED),
        "remove": rows.filter(state=State.DELETED),
        "wait": queued.filter(storage__in=down),
    }
