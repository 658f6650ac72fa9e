"""Figures for which a whole table is read: remembered, and on large tables counted after the page has been sent.

Nobody waits for them: until they are counted a page says that they are being counted, afterwards as of when they are.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone as zones
from typing import Any

from django.db.models import Count, Max, Q, QuerySet, Sum
from django.db.models.functions import TruncHour
from django.utils import timezone

from queued_storage import access
from queued_storage.conf import settings
from queued_storage.locations import try_cache
from queued_storage.models import Outcome, State

logger = logging.getLogger("queued_storage")

DAY, MONTH, HOUR = timedelta(days=1), timedelta(days=30), timedelta(hours=1)
# Rows that are counted while somebody waits: some hundredths of a second.
SMALL = 20_000
# What was counted is good for so many times as long as that took: a hundredth of the database's time at most.
REMEMBERED = 100
# How long nobody else counts what somebody has begun to count.
COUNTING = 60
# Clocks of web server and database may differ by so much.
SKEW = timedelta(minutes=5)

Rows = list[dict[str, Any]]
# What this process has counted, for projects whose cache keeps nothing.
_here: dict[str, Any] = {}


@dataclass
class Figures:
    """What was read: ``transferred`` by storage as of ``counted_at``, ``history`` by the hour.

    ``transferred`` is ``None``, and ``is_whole`` False where the history has no more than a day, while these are being
    counted. ``owed`` is to be called once the page has been sent.
    """

    transferred: Rows | None
    counted_at: datetime
    history: Rows
    is_whole: bool = True
    owed: list[Callable[[], None]] = field(default_factory=list)


def collect(now: datetime) -> Figures:
    """Read what is remembered, and count what is quickly counted."""
    figures = Figures(None, now, [])
    _read_transferred(figures, now)
    _read_history(figures, now)
    return figures


def forget() -> None:
    """Forget everything that was counted."""
    for name in ("transferred", "history"):
        _here.pop(name, None)
        for key in (_key(name), _key(name, "counting")):
            try_cache(lambda cache, key=key: cache.delete(key))  # type: ignore[misc]


def _read_transferred(figures: Figures, now: datetime) -> None:
    if _is_small(access.records()):
        figures.transferred = _count_transferred()
        return
    known = _recall("transferred", "rows", "at", "took")
    if known is not None:
        figures.transferred, figures.counted_at = known["rows"], known["at"]
    if known is None or now - known["at"] > REMEMBERED * known["took"]:
        figures.owed += _later("transferred", _remember_transferred)


def _remember_transferred() -> None:
    at, started = timezone.now(), time.monotonic()
    rows = _count_transferred()
    _keep("transferred", {"rows": rows, "at": at, "took": timedelta(seconds=time.monotonic() - started)})


def _count_transferred() -> Rows:
    rows = access.records().filter(state=State.TRANSFERRED).order_by().values("storage")
    counted = rows.annotate(files=Count("pk"), bytes=Sum("size"), last=Max("transferred_at"))
    return [dict(row) for row in access.persist(lambda: list(counted))]


def _read_history(figures: Figures, now: datetime) -> None:
    known = _recall("history", "rows", "until")
    if known is None and _is_small(access.attempts()):
        figures.history = _count_hours(MONTH)
    elif known is None:
        # The last hours, by the index.
        figures.history, figures.is_whole = _count_hours(DAY), False
        figures.owed += _later("history", _remember_history)
    else:
        # What is over does not change any more.
        since = known["until"]
        fresh = [row for row in _count_hours(now - since + SKEW) if row["hour"] >= since]
        figures.history = known["rows"] + fresh
        if _ended(now) - since > HOUR:
            figures.owed += _later("history", _remember_history)


def _remember_history() -> None:
    now, known = timezone.now(), _recall("history", "rows", "until")
    oldest = now.replace(minute=0, second=0, microsecond=0) - MONTH
    since, until = (known or {}).get("until", oldest), _ended(now)
    rows = [row for row in (known or {}).get("rows", ()) if row["hour"] >= oldest]
    rows += [row for row in _count_hours(now - since + SKEW) if since <= row["hour"] < until]
    _keep("history", {"rows": rows, "until": until})


def _ended(now: datetime) -> datetime:
    # An attempt may be committed some time after its moment.
    return now.replace(minute=0, second=0, microsecond=0) - HOUR


def _count_hours(age: timedelta) -> Rows:
    # By the hours of UTC: a time zone with an odd offset shifts the hour, and no database needs its tables of zones.
    zone = zones.utc if timezone.is_aware(timezone.now()) else None
    since = access.DatabaseNow() - age
    rows = access.attempts().filter(finished_at__gte=since).order_by()
    hours = rows.annotate(hour=TruncHour("finished_at", tzinfo=zone)).values("hour")
    good = Q(outcome=Outcome.TRANSFERRED)
    bad = Q(outcome__in=[Outcome.RETRY, Outcome.FAILED, Outcome.LOST])
    counted = hours.annotate(good=Count("pk", filter=good), bad=Count("pk", filter=bad), moved=Sum("bytes"))
    return [dict(row) for row in access.persist(lambda: list(counted))]


def _is_small(rows: QuerySet[Any]) -> bool:
    return not access.persist(lambda: list(rows.order_by("pk").values_list("pk")[SMALL : SMALL + 1]))


def _later(name: str, count: Callable[[], None]) -> list[Callable[[], None]]:
    """Return ``count`` for this caller alone of several, as one that raises nothing."""

    def quietly() -> None:
        try:
            count()
        except Exception as error:
            logger.warning("The dashboard could not count", extra={"error": type(error).__name__})

    mine = try_cache(lambda cache: cache.add(_key(name, "counting"), True, COUNTING))
    return [] if mine is False else [quietly]


def _recall(name: str, *parts: str) -> Any:
    found = try_cache(lambda cache: cache.get(_key(name)))
    # Another version may have left something of another shape.
    return found if isinstance(found, dict) and found.keys() == set(parts) else _here.get(name)


def _keep(name: str, value: dict[str, Any]) -> None:
    _here[name] = value
    try_cache(lambda cache: cache.set(_key(name), value, DAY.total_seconds()))
    try_cache(lambda cache: cache.delete(_key(name, "counting")))


def _key(*parts: str) -> str:
    return "_".join((settings.QUEUED_STORAGE_CACHE_PREFIX, "dashboard", *parts))
