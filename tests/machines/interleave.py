"""Run the real code of several actors one step at a time, in every order that a bound on preemptions allows.

A step ends before each statement outside a transaction, each call of a storage and each call of the cache; a
transaction is one step, because the database makes it so. Schedules are replayed from the start, so a run is named by
the actors that were chosen, in order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.core.cache.backends.locmem import LocMemCache
from django.db import connection, connections

from queued_storage.local import LocalStorage
from queued_storage.testing import FaultyRemoteStorage
from tests.machines.world import World

# How long one step may take before the machine itself is considered stuck, in seconds.
PATIENCE = 30.0

_actor = threading.local()


class StuckError(AssertionError):
    """A step did not end: an actor waits for another one, which the schedule does not let run."""


class Actor(threading.Thread):
    """One actor: parks at each point until it is told to go on."""

    def __init__(self, name: str, act: Callable[[], Any]) -> None:
        super().__init__(name=name, daemon=True)
        self.act, self.result = act, None
        self.error: BaseException | None = None
        self.done = False
        self.points: list[str] = []
        self._go, self._parked = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        """Act, from point to point."""
        _actor.current = self
        self._go.acquire()
        try:
            with connection.execute_wrapper(_before_statement):
                self.result = self.act()
        except BaseException as error:
            self.error = error
        finally:
            connections.close_all()
            self.done = True
            self._parked.release()

    def park(self, label: str) -> None:
        """End the step here."""
        self.points.append(label)
        self._parked.release()
        self._go.acquire()

    def step(self) -> None:
        """Let the actor run to its next point, or to its end."""
        self._go.release()
        if not self._parked.acquire(timeout=PATIENCE):
            raise StuckError(f"{self.name} after {self.points[-5:]}")


def point(label: str) -> None:
    """End the step of the actor that runs in this thread, if any and if no transaction is open."""
    actor: Actor | None = getattr(_actor, "current", None)
    if actor is not None and not connection.in_atomic_block:
        actor.park(label)


def _before_statement(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    point(sql.split(None, 1)[0])
    return execute(sql, params, many, context)


class SteppedLocal(LocalStorage):
    """A local storage each of whose calls is a step."""

    def store(self, *args: Any, **kwargs: Any) -> Any:
        """Save as one step: what happens inside is a matter of the local storage's own tests."""
        point("local save")
        return super().store(*args, **kwargs)

    def replace(self, name: str, content: Any, max_length: int | None = None) -> Any:
        """Save over whatever lies there, which no local storage may do: for the mutants."""
        super().delete(name)
        return super().store(name, content, max_length)

    def _open(self, *args: Any, **kwargs: Any) -> Any:
        point("local open")
        return super()._open(*args, **kwargs)

    def delete(self, name: Any) -> None:
        """Delete as one step."""
        point("local delete")
        super().delete(name)


class SteppedRemote(FaultyRemoteStorage):
    """A remote each of whose calls is a step; an upload lands when its step runs, however late."""

    def stat(self, name: str) -> Any:
        """Look as one step."""
        point("remote stat")
        return super().stat(name)

    def _save(self, name: str, content: Any) -> str:
        point("remote save")
        return super()._save(name, content)

    def _open(self, name: str, mode: str = "rb") -> Any:
        point("remote open")
        return super()._open(name, mode)

    def delete(self, name: str) -> None:
        """Delete as one step."""
        point("remote delete")
        super().delete(name)


class SteppedCache(LocMemCache):
    """A cache each of whose calls is a step."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Read as one step."""
        point("cache get")
        return super().get(*args, **kwargs)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        """Add as one step."""
        point("cache add")
        return super().add(*args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> Any:
        """Write as one step."""
        point("cache set")
        return super().set(*args, **kwargs)


class SteppedWorld(World):
    """A world all of whose storages go step by step."""

    def _entry(self, alias: str, options: dict[str, Any]) -> dict[str, Any]:
        entry = super()._entry(alias, options)
        entry["OPTIONS"]["local"] = "tests.machines.interleave.SteppedLocal"
        entry["OPTIONS"]["remote"] = "tests.machines.interleave.SteppedRemote"
        return entry


@dataclass
class Run:
    """One schedule: who was chosen at each step, among whom, and what became of the actors."""

    actors: dict[str, Actor]
    chosen: list[str] = field(default_factory=list)
    enabled: list[list[str]] = field(default_factory=list)

    def __str__(self) -> str:
        counts: list[list[Any]] = []
        for name in self.chosen:
            if counts and counts[-1][0] == name:
                counts[-1][1] += 1
            else:
                counts.append([name, 1])
        return " ".join(f"{name}*{count}" for name, count in counts)


def play(acts: dict[str, Callable[[], Any]], prefix: list[str]) -> Run:
    """Run the actors by the choices of ``prefix``, then each to its end, in order."""
    run = Run({name: Actor(name, act) for name, act in acts.items()})
    for actor in run.actors.values():
        actor.start()
    while enabled := [name for name, actor in run.actors.items() if not actor.done]:
        position = len(run.chosen)
        last = run.chosen[-1] if run.chosen else enabled[0]
        name = prefix[position] if position < len(prefix) else last if last in enabled else enabled[0]
        run.chosen.append(name)
        run.enabled.append(enabled)
        run.actors[name].step()
    for actor in run.actors.values():
        actor.join(PATIENCE)
    return run


def preemptions(chosen: list[str], enabled: list[list[str]]) -> int:
    """Count how often an actor was interrupted that could have gone on."""
    pairs = zip(chosen, chosen[1:], enabled[1:], strict=False)
    return sum(before != after and before in possible for before, after, possible in pairs)


def explore(play_one: Callable[[list[str]], Run], bound: int, most: int) -> Iterator[Run]:
    """Yield a run for every schedule with at most ``bound`` preemptions, up to ``most`` runs, fewest first."""
    waiting: list[list[list[str]]] = [[[]], *([] for _ in range(bound))]
    for _ in range(most):
        level = next((prefixes for prefixes in waiting if prefixes), None)
        if level is None:
            return
        prefix = level.pop(0)
        run = play_one(prefix)
        yield run
        for position in range(len(prefix), len(run.chosen)):
            for other in run.enabled[position]:
                if other != run.chosen[position]:
                    choices = [*run.chosen[:position], other]
                    cost = preemptions(choices, run.enabled[: position + 1])
                    if cost <= bound:
                        waiting[cost].append(choices)
