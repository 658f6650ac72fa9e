"""Let each call of a flow fail in each way that fits, and judge what comes of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db import Error, connection

from queued_storage import locations, publishing
from queued_storage.exceptions import SaveUnknownError
from queued_storage.testing import FaultNotHitError, store
from tests.machines.calls import Point, Switchboard
from tests.machines.invariants import Manifest, Promises, sha256
from tests.machines.judge import judge
from tests.machines.points import Flow
from tests.machines.snapshot import Sight, Snapshot
from tests.machines.world import World

# Errors of these never reach the caller of anything.
SILENT = ("cache", "broker.", "remote.", "wire.")


@dataclass
class Result:
    """What failing each call of a flow has shown."""

    flow: str
    calls: Counter[str] = field(default_factory=Counter)
    points: int = 0
    hits: int = 0
    raised: int = 0
    unremoved: int = 0
    states: int = 0
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.flow:20} {self.calls.total():4} calls  {self.points:5} points  {self.hits:5} hit  "
            f"{self.raised:5} told to the caller  {self.states:3} states  {len(self.violations)} violations  "
            f"{self.seconds:6.1f} s  (not to be removed: {self.unremoved})"
        )


class Machine:
    """Fails each call of a flow; like the one that kills, it judges equal durable states once."""

    def __init__(self, world: World, manifest: Manifest, board: Switchboard, drain: Callable[[], object]) -> None:
        self.world, self.manifest, self.board, self.drain = world, manifest, board, drain

    def run(self, flow: Flow, dose: float = 1.0, of: str = "") -> Result:
        """Fail each call of ``flow`` whose kind begins with ``of``."""
        started, result = time.monotonic(), Result(flow.name)
        self.world.clear()
        self.manifest.clear()
        context = flow.prepare(self.world, self.manifest)
        before = Snapshot(self.world)
        # The first run imports and looks up what later ones find.
        for _ in range(2):
            assert self._act(flow, context, None) is None
            before.restore(Sight.of(self.world))
        result.calls = +self.board.calls
        points = self.board.points(of)
        every = max(1, round(1 / dose))
        verdicts: dict[tuple[str, bool], list[str]] = {}
        for point in points[::every]:
            error = self._act(flow, context, point)
            result.points += 1
            result.hits += self.board.hits > 0
            result.raised += error is not None
            after = Sight.of(self.world)
            # What cannot be removed stays: nobody's, and listed.
            may_stay = point.for_ever or self.board.removing
            key = after.state(self.world, self.manifest), may_stay
            bad = self._misfit(point, error) + ([] if may_stay else self._left(after))
            if key not in verdicts:
                verdicts[key] = self._judge(result, may_stay)
                after = Sight.of(self.world)
            result.violations += [f"{flow.name}, {point}: {wrong}" for wrong in bad + verdicts[key]]
            before.restore(after)
        result.states, result.seconds = len(verdicts), time.monotonic() - started
        return result

    def _act(self, flow: Flow, context: Any, point: Point | None) -> Exception | None:
        # A process that has just begun: nothing remembered, no connection.
        self._renew()
        connection.close()
        try:
            with self.board.watching(point):
                flow.act(self.world, self.manifest, context)
        except Exception as error:
            return error
        finally:
            self._renew()
            if point is not None and point.kind.startswith("database"):
                connection.close()
        return None

    def _renew(self) -> None:
        self.world.forget()
        self.drain()
        locations.breaker.succeeded()
        publishing._breakers.clear()
        publishing._pools.clear()
        for alias in self.world.kinds:
            store(alias).heal()

    def _misfit(self, point: Point, error: Exception | None) -> list[str]:
        """Judge whether this is an answer that a caller may get."""
        if not self.board.hits:
            return ["missed: the call was not made"]
        if error is None or isinstance(error, (SaveUnknownError, FaultNotHitError)):
            return []
        told = f"{type(error).__name__}: {error}"
        if point.kind.startswith(SILENT):
            return [f"raised {told}"]
        fitting = (Error,) if point.kind.startswith("database") else (OSError,)
        return [] if isinstance(error, fitting) else [f"raised {told}, which is no {fitting[0].__name__}"]

    def _left(self, after: Sight) -> list[str]:
        refused = Promises.of(self.manifest, self.world).refused
        left = [name for name, data in after.files.items() if "/local/" in name and sha256(data) in refused]
        return [f"leftover {name} of a save that raised" for name in left]

    def _judge(self, result: Result, may_stay: bool) -> list[str]:
        promises = Promises.of(self.manifest, self.world)
        if may_stay:
            promises.unknown |= promises.refused.union(*promises.kept.values())
        bad, debris = judge(self.world, promises)
        result.unremoved += debris.local_orphans + debris.unfinished_uploads
        return bad
