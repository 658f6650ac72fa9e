"""Metrics for Prometheus, computed from the ledger at scrape time: right under many processes, and after a restart.

Mount ``view`` where your Prometheus, and nobody else, can reach it: ``path("metrics", metrics.view)``. With
``?transferred=1`` the transferred files are counted, too, which reads the whole table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from django.db.models import Count, Sum
from django.http import HttpRequest, HttpResponse

from queued_storage import backlog, ledger, probes, selecting
from queued_storage.models import State
from queued_storage.pairs import configured
from queued_storage.summary import Summary, summarize

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HOUR = timedelta(hours=1)
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass
class Metric:
    """One metric with its samples; all are gauges: the ledger says how it is now."""

    name: str
    help: str
    samples: list[tuple[dict[str, str], float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """Add one sample."""
        self.samples.append((labels, value))

    def lines(self) -> Iterator[str]:
        """Yield the metric in the text format of Prometheus; nothing where it has no sample."""
        if not self.samples:
            return
        yield f"# HELP queued_storage_{self.name} {self.help}"
        yield f"# TYPE queued_storage_{self.name} gauge"
        for labels, value in self.samples:
            shown = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels.items())
            number = int(value) if value == int(value) else value
            yield f"queued_storage_{self.name}{f'{{{shown}}}' if shown else ''} {number}"


def collect(transferred: bool = False) -> list[Metric]:
    """Return every metric as it is at this moment, with four queries, or five with ``transferred``."""
    storages, _ = summarize(transferred=transferred)
    age = probes.sweep_age()
    sweep = Metric("sweep_age_seconds", "Time since the last sweep began; no sample: never.")
    if age is not None:
        sweep.add(age.total_seconds())
    return [*_of_storages(storages, transferred), *_of_limits(storages), *_of_attempts(), sweep]


def _of_storages(storages: Iterable[Summary], transferred: bool) -> list[Metric]:
    files, size = Metric("files", "Files by state."), Metric("bytes", "Bytes of files by state.")
    owed, owed_size = Metric("owed_files", "Files that are owed."), Metric("owed_bytes", "Bytes that are owed.")
    oldest = Metric("oldest_owed_seconds", "Age of the oldest owed file; 0 where none is owed.")
    stalled = Metric("stalled_files", "Files that have used up their retries.")
    failed = Metric("failed_files", "Failed files by kind of error.")
    down, paused = Metric("down", "Whether the remote is down."), Metric("paused", "Whether the storage is paused.")
    for summary in storages:
        alias = summary.storage
        for state, amount in summary.states.items():
            if transferred or state != State.TRANSFERRED:
                files.add(amount.files, storage=alias, state=state)
                size.add(amount.bytes, storage=alias, state=state)
        owed.add(summary.owed.files, storage=alias)
        owed_size.add(summary.owed.bytes, storage=alias)
        oldest.add((summary.oldest_owed or timedelta(0)).total_seconds(), storage=alias)
        stalled.add(summary.stalled, storage=alias)
        for kind, count in sorted(summary.failed.items()):
            failed.add(count, storage=alias, kind=kind)
        down.add(summary.down_since is not None, storage=alias)
        paused.add(summary.paused_since is not None, storage=alias)
    return [files, size, owed, owed_size, oldest, stalled, failed, down, paused]


def _of_limits(storages: Iterable[Summary]) -> list[Metric]:
    files = Metric("max_owed_files", "Files that may be owed, where there is a limit.")
    size = Metric("max_owed_bytes", "Bytes that may be owed, where there is a limit.")
    full = Metric("full", "Whether a storage with limits owes as much as it may.")
    limited = {pair.alias: pair for pair in configured() if pair.limited}
    for summary in storages:
        pair = limited.get(summary.storage)
        if pair is None:
            continue
        if pair.max_owed_files is not None:
            files.add(pair.max_owed_files, storage=pair.alias)
        if pair.max_owed_size is not None:
            size.add(pair.max_owed_size, storage=pair.alias)
        full.add(backlog.is_full(pair, summary.owed.files, summary.owed.bytes), storage=pair.alias)
    return [files, size, full]


def _of_attempts() -> list[Metric]:
    attempts = Metric("attempts_last_hour", "Attempts that ended in the last hour, by outcome and kind of error.")
    moved = Metric("attempted_bytes_last_hour", "Bytes that went to the remote in the last hour.")
    rows = ledger.attempts().filter(finished_at__gte=selecting.ago(HOUR)).order_by()
    groups = rows.values_list("record__storage", "outcome", "error_kind").annotate(files=Count("pk"), size=Sum("bytes"))
    totals: dict[str, int] = {}
    for alias, outcome, kind, count, size in sorted(groups):
        attempts.add(count, storage=alias, outcome=outcome, kind=kind)
        totals[alias] = totals.get(alias, 0) + int(size or 0)
    for alias, total in totals.items():
        moved.add(total, storage=alias)
    return [attempts, moved]


def render(transferred: bool = False) -> str:
    """Return every metric in the text format of Prometheus."""
    return "".join(f"{line}\n" for metric in collect(transferred) for line in metric.lines())


def view(request: HttpRequest) -> HttpResponse:
    """Answer a scrape. It asks for no login: mount it where only your Prometheus comes, or decorate it."""
    return HttpResponse(render(transferred="transferred" in request.GET), content_type=CONTENT_TYPE)
