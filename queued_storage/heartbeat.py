"""When a periodic duty was last begun: for those who ask whether it runs, and for what it does once in a while."""

from __future__ import annotations

from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import DateTimeField, ExpressionWrapper

from queued_storage.access import DatabaseNow, persist, using
from queued_storage.models import Heartbeat

SWEEP = "sweep"


def begin(duty: str) -> tuple[datetime | None, datetime] | None:
    """Note that ``duty`` begins; return when it began before, or ``None`` for never, and the moment of now.

    Of several callers at once each moment before is given to one alone; the others get ``None`` in place of a pair.
    """
    rows = Heartbeat.objects.using(using()).filter(duty=duty)
    clock = ExpressionWrapper(DatabaseNow(), output_field=DateTimeField())
    known = persist(lambda: rows.annotate(now=clock).values_list("seen_at", "now").first())
    if known is None:
        return _begin_first(duty)
    before, now = known
    if now <= before:
        # Begun by somebody else within what the clock can tell apart.
        return None
    # Not by equality: SQLite keeps its own clock with fewer digits than it is asked with.
    return (before, now) if persist(lambda: rows.filter(seen_at__lte=before).update(seen_at=now)) else None


def is_new_hour(before: datetime | None, now: datetime) -> bool:
    """Tell whether what began at ``before``, and begins again at ``now``, does so for the first time in this hour."""
    return before is None or before.timestamp() // 3600 != now.timestamp() // 3600


def _begin_first(duty: str) -> tuple[None, datetime] | None:
    try:
        with transaction.atomic(using=using()):
            Heartbeat.objects.using(using()).create(duty=duty, seen_at=DatabaseNow())
    except IntegrityError:
        return None
    now = last(duty)
    return None if now is None else (None, now)


def last(duty: str) -> datetime | None:
    """Return when ``duty`` was last begun, by the database's clock; ``None`` for never."""
    rows = Heartbeat.objects.using(using()).filter(duty=duty)
    return persist(lambda: rows.values_list("seen_at", flat=True).first())


def raise_flag(duty: str) -> bool:
    """Note that something has come to be; False if it was noted before."""
    return last(duty) is None and _begin_first(duty) is not None


def lower_flag(duty: str) -> bool:
    """Note that it is no more; False if that was noted before."""
    return persist(Heartbeat.objects.using(using()).filter(duty=duty).delete)[0] > 0
