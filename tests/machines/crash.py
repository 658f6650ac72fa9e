"""Kill a process at each line of the package that a flow executes, and see what is left.

Which visits of a line are crash points, ``points.chosen`` says. A process that lives on in spite of its crash point is
an error, not a pass.

A dose of 1 kills at each of them. A smaller one lets a process stand still at each of them, looks at what would be left
if it died there, and kills where that is something new, and at that part of the other points.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

from tests.machines.invariants import Debris, Manifest, Promises
from tests.machines.judge import judge
from tests.machines.points import Flow, Point, chosen, lines_of
from tests.machines.snapshot import Sight, Snapshot
from tests.machines.victims import Victims
from tests.machines.world import World

# Connections of other processes to this database, by vendor.
OTHERS = {
    "postgresql": (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ),
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
}


@dataclass
class Result:
    """What killing at each point of a flow has shown."""

    flow: str
    lines: int = 0
    met: int = 0
    points: int = 0
    hits: int = 0
    alike: int = 0
    states: int = 0
    seconds: float = 0.0
    explained: Debris = field(default_factory=Debris)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.flow:20} {self.met:4} of {self.lines:4} lines  {self.points:5} points  {self.hits:5} killed  "
            f"{self.alike:5} alike  {self.states:3} states  {len(self.violations)} violations  {self.seconds:6.1f} s  "
            f"(left by the killed: {self.explained.local_orphans} unacknowledged files,"
            f" {self.explained.unfinished_uploads} unfinished uploads)"
        )


def wait_for_others(bound: float = 20.0) -> None:
    """Wait until the database has noticed the death of a child: its last statement may be on its way still."""
    if connection.vendor not in OTHERS:
        return
    ends = time.monotonic() + bound
    while time.monotonic() < ends:
        with connection.cursor() as cursor:
            cursor.execute(OTHERS[connection.vendor])
            if cursor.fetchone()[0] == 0:
                return
        time.sleep(0.001)  # until they are gone
    raise AssertionError("the database still holds connections of processes that are dead")


class Machine:
    """Kills a flow at each of its points and judges what the sweep makes of it.

    Two points that leave the same durable state (rows, files, cache, manifest) have the same future: that state is
    judged once, its verdict counts for both.
    """

    def __init__(self, world: World, manifest: Manifest, victims: Victims) -> None:
        self.world, self.manifest, self.victims = world, manifest, victims

    def run(self, flow: Flow, dose: float = 1.0, again: bool = True, enough: int | None = None) -> Result:
        """Kill ``flow`` at the points that ``chosen()`` names; stop once there are ``enough`` violations."""
        started = time.monotonic()
        visited = self._census(flow)
        points, due = list(chosen(visited, max(1, dose), again)), set(chosen(visited, dose, again))
        result = Result(flow.name, lines=lines_of(visited), met=lines_of(points), points=len(points))
        expected = self._walk(flow, points) if dose < 1 else {}
        context = self._begin(flow)
        before = Snapshot(self.world)
        verdicts: dict[str | None, list[str]] = {}
        for point in points:
            state = expected.get(point)
            if point in due or state not in verdicts:
                state = self._kill(point, context, before, verdicts, result)
                result.hits += 1
            else:
                result.alike += 1
            result.violations += [f"{flow.name}, killed at {point}: {bad}" for bad in verdicts[state]]
            if enough is not None and len(result.violations) >= enough:
                break
        result.states, result.seconds = len(verdicts), time.monotonic() - started
        return result

    def _kill(
        self, point: Point, context: Any, before: Snapshot, verdicts: dict[str | None, list[str]], result: Result
    ) -> str:
        self.victims.kill(point, context)
        wait_for_others()
        after = Sight.of(self.world)
        state = after.state(self.world, self.manifest)
        if state not in verdicts:
            verdicts[state] = self._judge(result)
            after = Sight.of(self.world)
        if after != before.sight:
            before.restore(after)
        return state

    def _walk(self, flow: Flow, points: list[Point]) -> dict[Point, str]:
        # What others see while a process stands still is what it leaves if it dies there: what it has not yet written
        # or committed goes with it. Where that were not so, the state would not be among the verdicts.
        context = self._begin(flow)
        states = {
            point: Sight.of(self.world).state(self.world, self.manifest) for point in self.victims.walk(points, context)
        }
        wait_for_others()
        return states

    def _census(self, flow: Flow) -> Any:
        visited = self.victims.census(self._begin(flow))
        wait_for_others()
        assert not (bad := self._judge(Result(flow.name))), f"{flow.name}, not killed: {bad}"
        return visited

    def _begin(self, flow: Flow) -> Any:
        self.world.clear()
        self.manifest.clear()
        return flow.prepare(self.world, self.manifest)

    def _judge(self, result: Result) -> list[str]:
        bad, debris = judge(self.world, Promises.of(self.manifest, self.world))
        result.explained.local_orphans += debris.local_orphans
        result.explained.unfinished_uploads += debris.unfinished_uploads
        return bad
