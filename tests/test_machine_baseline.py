"""The same kills and the same chaos for what others do: the machines see losses there, and none here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.baseline import crash
from tests.baseline.subjects import CACHED, NAIVE
from tests.chaos.controller import Chaos
from tests.chaos.report import Report, seeded
from tests.chaos.subjects import OURS, Subject
from tests.machines.flows import FLOWS
from tests.machines.invariants import Manifest
from tests.machines.snapshot import CACHE
from tests.servers.databases import url_of
from tests.servers.roots import fresh
from tests.servers.s3 import S3Server
from tests.test_machine_crash import MakeMachine, make_machine as make_machine, victims as victims

pytestmark = [pytest.mark.django_db(transaction=True)]

# Seconds of chaos for each of the three; a short run takes the faults that tell them apart.
SECONDS = float(os.environ.get("QUEUED_STORAGE_BASELINE_SECONDS", "20"))
TELLING = ("kill child", "kill worker1", "kill worker2", "purge queue", "s3 refuse")
SHORT = 100
KINDS_OF_LOSS = ("lost", "wrong", "stale", "stranded")


@pytest.fixture
def root(settings: Any) -> Callable[[], Path]:
    """Make a folder for the baselines, with a cache that all processes share."""

    def make() -> Path:
        folder = fresh("baseline")
        backend = "django.core.cache.backends.filebased.FileBasedCache"
        settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(folder / CACHE)}}
        return folder

    return make


def _ours(make_machine: MakeMachine) -> crash.Losses:
    """Kill a save and a transfer of ours at each executed line."""
    losses = crash.Losses("queued_storage")
    for name in ("save", "transfer and evict"):
        flow = next(flow for flow in FLOWS if flow.name == name)
        result = make_machine(flow).run(flow)
        losses.points += result.hits
        losses.examples += result.violations
        losses.bad["lost"] += len(result.violations)
    return losses


@pytest.mark.timeout(900)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="the baselines use no database: once is enough")
def test_kills_at_every_line(make_machine: MakeMachine, root: Callable[[], Path], capsys: Any) -> None:
    """A kill at the wrong line costs a file of each baseline, and none of ours."""
    ours = _ours(make_machine)
    folder = root()
    theirs = [
        crash.run(make(folder / name), Manifest(folder / f"{name}.manifest"))
        for name, make in (("cached", crash.cached), ("naive", crash.naive))
    ]
    with capsys.disabled():
        print("\n" + "\n".join(_crash_table([ours, *theirs])))  # noqa: T201
    assert ours.examples == []
    for losses in theirs:
        assert losses.bad["stranded"], losses
        assert losses.examples


def _crash_table(all_losses: list[crash.Losses]) -> Iterator[str]:
    yield f"{'killed at every executed line':32}{'crash points':>14}" + "".join(f"{kind:>10}" for kind in KINDS_OF_LOSS)
    for losses in all_losses:
        counts = "".join(f"{losses.bad[kind]:10}" for kind in KINDS_OF_LOSS)
        yield f"{losses.subject:32}{losses.points:14}{counts}"
    for losses in all_losses:
        yield from (f"  {losses.subject}: {example}" for example in losses.examples[:3])


@pytest.mark.timeout(6 * SECONDS + 1500)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no connection that could be cut")
@pytest.mark.skipif(
    "QUEUED_STORAGE_BASELINE_SECONDS" not in os.environ,
    reason="minutes of chaos on what others do: set QUEUED_STORAGE_BASELINE_SECONDS to see it",
)
def test_chaos(redis_server: str, s3_server: S3Server, capsys: Any) -> None:
    """In the same chaos each baseline loses files, and we none."""
    with seeded(os.environ.get("QUEUED_STORAGE_SEED")) as seed:
        reports = [_chaos(subject, seed, redis_server, s3_server) for subject in (OURS, CACHED, NAIVE)]
        with capsys.disabled():
            print("\n" + "\n".join(_chaos_table(reports)))  # noqa: T201
        ours, *theirs = reports
        assert ours.violations == []
        assert (ours.lost, ours.wrong, ours.unreadable, ours.stranded) == (0, 0, 0, 0)
        for report in theirs:
            assert report.lost + report.wrong + report.unreadable + report.stranded, report.lines()


def _chaos(subject: Subject, seed: str, redis: str, s3: S3Server) -> Report:
    cache = redis.replace("/0", "/1")
    chaos = Chaos(seed, url_of(connection.settings_dict), redis, cache, s3, subject)
    return chaos.run(SECONDS, only=TELLING if SECONDS < SHORT else None)


def _chaos_table(reports: list[Report]) -> Iterator[str]:
    columns = ("acknowledged", "kept", "lost", "wrong", "unreadable", "stranded")
    seen = ("not found", "wrong", "lie", "undead")
    head = [*columns, *(f"seen {verdict}" for verdict in seen), "slowest save"]
    yield f"chaos, {reports[0].seconds:.0f} s each, seed {reports[0].seed}: " + " | ".join(head)
    for report in reports:
        counts = [getattr(report, name) for name in columns] + [report.reads[verdict] for verdict in seen]
        yield f"{report.subject:28}" + " | ".join(map(str, [*counts, f"{report.slowest_save:.1f} s"]))
