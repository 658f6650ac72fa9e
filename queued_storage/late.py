"""Tell once of every file that is owed for longer than it should be."""

from __future__ import annotations

import logging
from datetime import datetime

from queued_storage import access, ledger, signals
from queued_storage.conf import settings
from queued_storage.models import State, TransferRecord

logger = logging.getLogger("queued_storage")

LATE = (State.QUEUED, State.TRANSFERRING)


def tell(before: datetime | None, now: datetime) -> int:
    """Tell of the owed files that have grown older than QUEUED_STORAGE_LATE_AFTER since ``before``; return how many.

    Without ``before``, of all that are late.
    """
    age = settings.QUEUED_STORAGE_LATE_AFTER
    if age is None:
        return 0
    rows = access.unfinished().filter(state__in=LATE, created_at__lte=now - age)
    if before is not None:
        rows = rows.filter(created_at__gt=before - age)
    # Mostly there is none, and a cursor on the server costs three times the question.
    if not ledger.persist(rows.exists):
        return 0
    count = 0
    for record in rows.order_by("created_at", "pk").iterator():
        count += 1
        signals.tell(signals.transfer_late, TransferRecord, name=record.name, record=record)
    if count:
        logger.error("Files are late", extra={"files": count, "age": age.total_seconds()})
    return count
