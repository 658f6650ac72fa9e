"""What the dashboard of the admin shows: numbers of the ledger, made ready to be drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Max, Min
from django.utils import timezone

from queued_storage import access, backlog, disks, figures, heartbeat
from queued_storage.disks import Disk
from queued_storage.exceptions import ErrorKind
from queued_storage.figures import Figures
from queued_storage.models import Outcome, State
from queued_storage.pairs import StoragePair, configured
from queued_storage.summary import Summary, age_text, summarize

HOURS, DAYS = 24, 30
# A sweep that was last seen longer ago than this is reported; beat's entry runs it once a minute.
SWEEP_MISSED = timedelta(minutes=5)
WORKERS_SEEN = timedelta(hours=1)
# Attempts in which the last success and the workers of each storage are looked for.
LATEST = 1000


@dataclass(frozen=True)
class Bucket:
    """What happened in one hour or one day, which begins at ``start``."""

    start: datetime
    transferred: int = 0
    failed: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Failures:
    """The files that are failed for one kind of error."""

    kind: str
    files: int
    first: datetime
    last: datetime

    @property
    def label(self) -> str:
        """The kind for people."""
        return str(ErrorKind(self.kind).label) if self.kind in ErrorKind.values else self.kind


@dataclass
class StorageState:
    """One storage: its numbers, its last success, workers, limits and disk."""

    summary: Summary
    last_success: datetime | None = None
    disk: Disk | None = None
    workers: set[str] = field(default_factory=set)
    # The storage itself, where it has limits to what it may owe.
    limits: StoragePair | None = None

    @property
    def status(self) -> str:
        """``"paused"``, ``"down"`` or ``"up"``."""
        return "paused" if self.summary.paused_since else "down" if self.summary.down_since else "up"

    @property
    def is_full(self) -> bool:
        """Whether it owes as much as it may, or more."""
        return self.limits is not None and backlog.is_full(
            self.limits, self.summary.owed.files, self.summary.owed.bytes
        )

    @property
    def full_in(self) -> str:
        """When its local disk will be full, for people."""
        return age_text(self.disk.full_in if self.disk else None)


@dataclass
class Dashboard:
    """All that the page shows, as of ``now``."""

    now: datetime
    total: Summary
    storages: list[StorageState]
    hours: list[Bucket]
    days: list[Bucket]
    failures: list[Failures]
    workers: list[str]
    last_sweep: datetime | None
    figures: Figures

    @property
    def is_counting(self) -> bool:
        """Whether nobody knows yet how many files are transferred."""
        return self.figures.transferred is None

    @property
    def is_empty(self) -> bool:
        """Whether there has been no file yet, as far as anybody knows."""
        states = (State.TRANSFERRED, State.DELAYED, State.FAILED)
        return not (self.is_counting or self.total.owed.files or any(self.total.states[each].files for each in states))

    @property
    def drained_in(self) -> timedelta | None:
        """How long the owed files take at the rate of the last full hour and this one; ``None`` without a rate."""
        done = sum(bucket.transferred for bucket in self.hours[-2:])
        elapsed = self.now - self.hours[-2].start
        return elapsed * (self.total.owed.files / done) if done and self.total.owed.files else None

    @property
    def drained(self) -> str:
        """The same for people."""
        return age_text(self.drained_in)

    @property
    def oldest_owed(self) -> str:
        """The age of the oldest owed file for people."""
        return age_text(self.total.oldest_owed)

    @property
    def sweep_missed(self) -> bool:
        """Whether nobody has swept lately."""
        return self.last_sweep is None or self.now - self.last_sweep > SWEEP_MISSED


def collect() -> Dashboard:
    """Read everything; on large tables some of it is some minutes old, see ``figures``."""
    now = timezone.now()
    found = figures.collect(now)
    summaries, total = summarize(transferred=False)
    done = {row["storage"]: row for row in found.transferred or ()}
    for row in done.values():
        group = {**row, "state": State.TRANSFERRED, "stalled": 0}
        total.add(group)
        for summary in summaries:
            if summary.storage == row["storage"]:
                summary.add(group)
    pairs = list(configured())
    found_disks, limits = disks.collect(pairs), {pair.alias: pair for pair in pairs if pair.limited}
    lately, workers = _latest(now)
    return Dashboard(
        now=now,
        total=total,
        storages=[
            StorageState(
                each,
                last_success=lately.get(each.storage) or done.get(each.storage, {}).get("last"),
                disk=found_disks.get(each.storage),
                workers=workers.get(each.storage, set()),
                limits=limits.get(each.storage),
            )
            for each in summaries
        ],
        hours=_hours(found.history, now),
        days=_days(found.history, now),
        failures=_failures(),
        workers=sorted(set().union(*workers.values()) - {""}),
        last_sweep=heartbeat.last(heartbeat.SWEEP),
        figures=found,
    )


def _latest(now: datetime) -> tuple[dict[str, datetime], dict[str, set[str]]]:
    """Return, by storage, the last success among the latest attempts, and whose attempts of the last hour those were.

    A busy storage may push those of a quiet one out of the latest; a worker counts as well while it has a file.
    """
    latest = access.attempts().order_by("-finished_at")[:LATEST]
    successes: dict[str, datetime] = {}
    workers: dict[str, set[str]] = {}
    for alias, outcome, moment, worker in latest.values_list("record__storage", "outcome", "finished_at", "worker"):
        if outcome == Outcome.TRANSFERRED:
            successes.setdefault(alias, moment)
        if now - moment < WORKERS_SEEN:
            workers.setdefault(alias, set()).add(worker)
    running = access.unfinished().filter(state=State.TRANSFERRING).order_by()
    for alias, worker in running.values_list("storage", "worker").distinct()[:LATEST]:
        workers.setdefault(alias, set()).add(worker)
    return successes, workers


def _hours(history: list[dict[str, Any]], now: datetime) -> list[Bucket]:
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    wanted = [this_hour - timedelta(hours=HOURS - 1 - index) for index in range(HOURS)]
    by_hour = {row["hour"]: row for row in history}
    return [_bucket(start, [by_hour[start]] if start in by_hour else []) for start in wanted]


def _days(history: list[dict[str, Any]], now: datetime) -> list[Bucket]:
    def day_of(moment: datetime) -> datetime:
        return _local(moment).replace(hour=0, minute=0, second=0, microsecond=0)

    by_day: dict[Any, list[dict[str, Any]]] = {}
    for row in history:
        by_day.setdefault(day_of(row["hour"]).date(), []).append(row)
    today = day_of(now)
    wanted = [today - timedelta(days=DAYS - 1 - index) for index in range(DAYS)]
    return [_bucket(start, by_day.get(start.date(), [])) for start in wanted]


def _bucket(start: datetime, rows: list[dict[str, Any]]) -> Bucket:
    good, bad, moved = (sum(row[key] or 0 for row in rows) for key in ("good", "bad", "moved"))
    return Bucket(_local(start), good, bad, moved)


def _local(moment: datetime) -> datetime:
    return timezone.localtime(moment) if timezone.is_aware(moment) else moment


def _failures() -> list[Failures]:
    rows = access.unfinished().filter(state=State.FAILED).order_by().values("error_kind")
    groups = rows.annotate(files=Count("pk"), first=Min("updated_at"), last=Max("updated_at"))
    found = [Failures(group["error_kind"], group["files"], group["first"], group["last"]) for group in groups]
    return sorted(found, key=lambda each: -each.files)
