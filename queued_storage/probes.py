"""Is all well? Limits on what the ledger says, for the status command, for health pages and for alarms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import DateTimeField, ExpressionWrapper
from django.http import HttpRequest, JsonResponse
from django.utils.translation import gettext as _, override

from queued_storage import heartbeat, ledger
from queued_storage.models import Heartbeat
from queued_storage.summary import Summary, age_text, summarize


@dataclass(frozen=True)
class Limits:
    """What is still well; ``None`` sets no limit.

    ``max_age``: of the oldest owed file. ``max_owed``, ``max_bytes``: files and bytes owed. ``max_stalled``,
    ``max_failed``: files. ``max_down``: storages whose remote is down. ``max_sweep_age``: since the last sweep began.
    """

    max_age: timedelta | None = None
    max_owed: int | None = None
    max_bytes: int | None = None
    max_stalled: int | None = None
    max_failed: int | None = None
    max_down: int | None = None
    max_sweep_age: timedelta | None = None


@dataclass(frozen=True)
class Exceeded:
    """A limit that is exceeded, and a sentence about it."""

    limit: str
    text: str


def check(limits: Limits, storage: str | None = None) -> list[Exceeded]:
    """Return what exceeds ``limits`` at this moment, in one storage or in all together; empty: all is well.

    The transferred are not counted: this costs the same however many there are.
    """
    storages, total = summarize(storage, transferred=False)
    swept = sweep_age() if limits.max_sweep_age is not None else None
    return exceeded(limits, storages, total, swept)


def exceeded(
    limits: Limits, storages: Iterable[Summary], total: Summary, swept: timedelta | None = None
) -> list[Exceeded]:
    """Return what of a summary exceeds ``limits``; ``swept`` is the age of the last sweep, ``None`` for never."""
    failed, down = total.states["failed"].files, [summary.storage for summary in storages if summary.down_since]
    values: list[tuple[str, Any, str]] = [
        ("max_age", total.oldest_owed, _("the oldest owed file is %s old") % age_text(total.oldest_owed)),
        ("max_failed", failed, _("%d files have failed") % failed),
        ("max_owed", total.owed.files, _("%d files are owed") % total.owed.files),
        ("max_bytes", total.owed.bytes, _("%d bytes are owed") % total.owed.bytes),
        ("max_stalled", total.stalled, _("%d files have stalled") % total.stalled),
        ("max_down", len(down), _("%d remotes are down") % len(down)),
        ("max_sweep_age", swept or timedelta.max, _("the last sweep was %s") % sweep_text(swept)),
    ]
    return [
        Exceeded(name, text)
        for name, value, text in values
        if (limit := getattr(limits, name)) is not None and value is not None and value > limit
    ]


def page(limits: Limits) -> Callable[[HttpRequest], JsonResponse]:
    """Return a view that answers 200 within ``limits`` and 503 beyond them, with the reasons as JSON.

    For load balancers, uptime monitors and the like: ``path("health", probes.page(Limits(max_sweep_age=...)))``. It
    tells numbers and no names, and asks for no login.
    """

    def view(request: HttpRequest) -> JsonResponse:
        # A program reads it, whatever language the browser asks for.
        with override(None):
            found = check(limits)
        facts = {"ok": not found, "exceeded": {each.limit: each.text for each in found}}
        return JsonResponse(facts, status=503 if found else 200)

    return view


def sweep_age() -> timedelta | None:
    """Return how long ago the last sweep began, by the database's clock; ``None`` for never."""
    now = ExpressionWrapper(ledger.DatabaseNow(), output_field=DateTimeField())
    rows = Heartbeat.objects.using(ledger.using()).filter(duty=heartbeat.SWEEP).annotate(now=now)
    found: tuple[datetime, datetime] | None = ledger.persist(rows.values_list("now", "seen_at").first)
    return None if found is None else max(found[0] - found[1], timedelta(0))


def sweep_text(age: timedelta | None) -> str:
    """Return the age of the last sweep for people."""
    return _("never") if age is None else _("%s ago") % age_text(age)
