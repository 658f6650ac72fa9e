"""M5: reader, workers, sweep, deleter, overwriter and savers in every order that two preemptions allow."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import caches
from django.core.files.base import ContentFile

from queued_storage import ledger, locations, publishing, removal, saving, sweeping
from queued_storage.models import TransferRecord
from tests.machines.interleave import Run, SteppedLocal, SteppedWorld, explore, play
from tests.machines.invariants import Promises, read_all, settled, sha256
from tests.machines.world import LONG, advance, prune, settle
from tests.servers.roots import fresh

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(1200)]

DOSE = float(os.environ.get("QUEUED_STORAGE_DOSE", "1"))
# Schedules of one scenario at the usual dose; what is left out by it is said.
MOST = max(20, round(60 * DOSE))
PREEMPTIONS = 2 if DOSE < 10 else 3

NAME, FIRST, SECOND = "dir/file.bin", b"first" * 20, b"second" * 30


class Stage:
    """One storage in a stepped world, and what its actors do."""

    def __init__(self, settings: Any) -> None:
        self.world = SteppedWorld(fresh("interleave"), in_memory=True)
        settings.STORAGES = self.world.settings()
        settings.CACHES = {"default": {"BACKEND": "tests.machines.interleave.SteppedCache"}}
        settings.CELERY_TASK_ALWAYS_EAGER = False
        settings.QUEUED_STORAGE_STAGING_AGE = 0.000001

    def storage(self, alias: str) -> Any:
        """Return the storage."""
        return self.world.storage(alias)

    def save(self, alias: str, content: bytes = FIRST) -> str:
        """Save under the one name; returns the name that was given."""
        return str(self.storage(alias).save(NAME, ContentFile(content)))

    def read(self, alias: str) -> bytes | None:
        """Read the name; ``None`` if it is said not to exist."""
        try:
            with self.storage(alias).open(NAME) as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def work(self) -> None:
        """Do what a message asks for: the first record, whatever it is owed."""
        sweeping.process(TransferRecord.objects.order_by("pk").values_list("pk", flat=True)[0])

    def sweep(self) -> None:
        """Let every lease end, sweep, and do at once what the sweep hands out."""
        advance(LONG)
        sweeping.sweep(sweeping.process_all)

    def prune(self) -> None:
        """Remove and prune what was deleted long ago, when the cache has forgotten it too."""
        advance(timedelta(days=8))
        caches["default"].clear()
        for record in TransferRecord.objects.filter(state="deleted"):
            removal.remove(record)


@dataclass(frozen=True)
class Scenario:
    """Who meets whom, over what."""

    name: str
    alias: str
    actors: tuple[str, ...]
    prepare: Callable[[Stage], Any] = lambda stage: None


def _saved(alias: str) -> Callable[[Stage], Any]:
    return lambda stage: stage.save(alias)


def _transferred(alias: str) -> Callable[[Stage], Any]:
    def prepare(stage: Stage) -> None:
        stage.save(alias)
        stage.work()

    return prepare


def _deleted(stage: Stage) -> None:
    _transferred("keep")(stage)
    stage.storage("keep").delete(NAME)
    stage.work()


SCENARIOS = [
    Scenario("reader, worker that evicts", "evict", ("read", "work"), _saved("evict")),
    Scenario("two workers", "evict", ("work", "work again"), _saved("evict")),
    Scenario("worker, sweep after the lease", "evict", ("work", "sweep"), _saved("evict")),
    Scenario("worker, deleter", "keep", ("work", "delete"), _saved("keep")),
    Scenario("worker that evicts, deleter", "evict", ("work", "delete"), _saved("evict")),
    Scenario("reader, deleter", "keep", ("read", "delete"), _transferred("keep")),
    Scenario("worker, overwriter", "overwrite", ("work", "save second"), _saved("overwrite")),
    Scenario("reader, overwriter", "overwrite", ("read", "save second"), _transferred("overwrite")),
    Scenario("two overwriters", "overwrite", ("save second", "save third"), _saved("overwrite")),
    Scenario("two savers of one name", "keep", ("save second", "save third")),
    Scenario("saver, worker that evicts", "evict", ("save second", "work"), _saved("evict")),
    Scenario("saver, prune", "keep", ("save second", "prune"), _deleted),
    Scenario("reader, worker, sweep", "evict", ("read", "work", "sweep"), _saved("evict")),
    Scenario("worker, deleter, sweep", "keep", ("work", "delete", "sweep"), _saved("keep")),
    Scenario("reader, overwriter, worker", "overwrite", ("read", "save second", "work"), _saved("overwrite")),
]


def _acts(stage: Stage, alias: str) -> dict[str, Callable[[], Any]]:
    return {
        "read": lambda: stage.read(alias),
        "work": stage.work,
        "work again": stage.work,
        "sweep": stage.sweep,
        "prune": stage.prune,
        "delete": lambda: stage.storage(alias).delete(NAME),
        "save second": lambda: stage.save(alias, SECOND),
        "save third": lambda: stage.save(alias, SECOND[::-1]),
    }


def _judge(stage: Stage, scenario: Scenario, run: Run) -> list[str]:
    bad = [f"{name} raised {actor.error!r}" for name, actor in run.actors.items() if actor.error is not None]
    promises = Promises()
    existed = scenario.prepare is not Scenario.prepare and scenario.prepare is not _deleted
    if existed:
        promises.keep((scenario.alias, NAME), sha256(FIRST))
    allowed = {FIRST} if existed else {None}
    saves = {
        name: content for name, content in (("save second", SECOND), ("save third", SECOND[::-1])) if name in run.actors
    }
    if scenario.alias == "overwrite":
        allowed |= set(saves.values())
        promises.kept[scenario.alias, NAME] = {sha256(content) for content in saves.values()} or {sha256(FIRST)}
    else:
        for name, content in saves.items():
            promises.keep((scenario.alias, str(run.actors[name].result)), sha256(content))
    if "delete" in run.actors:
        allowed.add(None)
        promises.drop((scenario.alias, NAME))
    if "read" in run.actors and run.actors["read"].error is None and run.actors["read"].result not in allowed:
        bad.append(f"read {run.actors['read'].result!r}")
    bad += read_all(stage.world, promises)
    if not settle():
        bad.append("never quiet")
    bad += read_all(stage.world, promises)
    # What a worker that was thought dead sent after a removal goes with the record, at the latest.
    prune()
    bad += settled(stage.world, promises)[0]
    return bad


@pytest.fixture
def stage(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage; no message is sent: the actors do what messages would ask for."""
    monkeypatch.setattr(publishing, "send", lambda entries: None)
    return Stage(settings)


def _explore(stage: Stage, scenario: Scenario, most: int = MOST) -> tuple[int, list[str], int]:
    acts = {name: act for name, act in _acts(stage, scenario.alias).items() if name in scenario.actors}

    def play_one(prefix: list[str]) -> Run:
        stage.world.clear()
        scenario.prepare(stage)
        return play(acts, prefix)

    runs, bad, steps = 0, [], 0
    for run in explore(play_one, PREEMPTIONS, most):
        runs, steps = runs + 1, max(steps, len(run.chosen))
        bad += [f"{run}: {violation}" for violation in _judge(stage, scenario, run)]
    return runs, bad, steps


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_every_order(scenario: Scenario, stage: Stage, request: pytest.FixtureRequest) -> None:
    """Whatever the order of their steps, no actor reads wrong bytes and everything ends in its place."""
    runs, bad, steps = _explore(stage, scenario)
    rest = "all" if runs < MOST else "the first"
    figures = f"{rest} {runs} schedules of at most {PREEMPTIONS} preemptions, {steps} steps, {len(bad)} bad"
    request.config.get_terminal_writer().line(f"\n{scenario.name}: {figures}")
    assert runs > 3
    assert not bad, "\n".join(bad[:10])


def test_a_worker_that_overwrites_gone_is_caught(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine sees a worker that sets its answer in the cache where it must only add it."""

    def write(key: str, location: Any, timeout: timedelta) -> None:
        locations.try_cache(lambda cache: cache.set(key, location.dump(), timeout.total_seconds()))

    monkeypatch.setattr(locations, "_write", write)
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == "worker, deleter")
    assert [violation for violation in _explore(stage, scenario, 120)[1] if "exists() is true" in violation]


def test_a_name_shared_by_two_bodies_is_caught(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine sees an overwrite that puts the new body where the old one lies."""
    monkeypatch.setattr(saving, "generation_name", lambda name, generation: name)
    monkeypatch.setattr(ledger, "generation_name", lambda name, generation: name)
    monkeypatch.setattr(SteppedLocal, "store", SteppedLocal.replace)
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == "worker, overwriter")
    assert _explore(stage, scenario, 120)[1]
