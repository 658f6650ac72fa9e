"""Crash points: executed lines of the package, how they are counted, and how a process dies at one of them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

import queued_storage
from tests.machines.invariants import Manifest
from tests.machines.world import World

PACKAGE = str(Path(queued_storage.__file__).parent) + os.sep


@dataclass(frozen=True)
class Point:
    """The ``visit``-th execution of a line of the package."""

    file: str
    line: int
    visit: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line} visit {self.visit}"


@dataclass(frozen=True)
class Flow:
    """Something that a process does with the files, and what there was before.

    What ``prepare`` returns is given to ``act``, perhaps in another process: it is something that JSON can hold. So are
    the ``settings`` that the flow needs. A ``long`` flow, which does for several files what others do for one, is
    killed at repeated visits of a line in larger doses only.
    """

    name: str
    kinds: tuple[str, ...]
    prepare: Callable[[World, Manifest], Any]
    act: Callable[[World, Manifest, Any], None]
    settings: Mapping[str, Any] = field(default_factory=dict)
    long: bool = False


class Census:
    """A trace function that notes each line of the package that is executed in this thread."""

    def __init__(self) -> None:
        self.visited: list[Point] = []
        self._visits: Counter[tuple[str, int]] = Counter()

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        """Choose the frames to follow."""
        return self._line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            place = frame.f_code.co_filename.removeprefix(PACKAGE), frame.f_lineno
            self._visits[place] += 1
            self.visited.append(Point(*place, self._visits[place]))
        return self._line


class Trap:
    """A trace function that kills this process at one point; follows only the functions that have its line."""

    def __init__(self, point: Point) -> None:
        self._path, self._number, self._left = PACKAGE + point.file, point.line, point.visit
        self._known: dict[CodeType, bool] = {}

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        """Choose the frames to follow."""
        code = frame.f_code
        if code.co_filename != self._path:
            return None
        if code not in self._known:
            self._known[code] = any(line == self._number for _, _, line in code.co_lines())
        return self._line if self._known[code] else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line" and frame.f_lineno == self._number:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._line


class Halt:
    """A trace function that calls ``stop()`` at each of some points, and goes on when that returns."""

    def __init__(self, points: Iterable[Point], stop: Callable[[], None]) -> None:
        self._points, self._stop = set(points), stop
        self._visits: Counter[tuple[str, int]] = Counter()

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        """Choose the frames to follow."""
        return self._line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            place = frame.f_code.co_filename.removeprefix(PACKAGE), frame.f_lineno
            self._visits[place] += 1
            if Point(*place, self._visits[place]) in self._points:
                self._stop()
        return self._line


def lines_of(points: list[Point]) -> int:
    """Return on how many lines ``points`` lie."""
    return len({(point.file, point.line) for point in points})


def chosen(visited: list[Point], dose: float, again: bool = True) -> Iterator[Point]:
    """Yield the crash points of a flow, in the order of execution.

    Of each line the first visit and, where a line is visited ``again``, the second and the last one. Below a dose of 1
    that part of them; from 10 on every visit.
    """
    visits = Counter((point.file, point.line) for point in visited)
    every, owed = max(1.0, 1 / dose), 0.0
    for point in visited:
        repeated = again and point.visit in (2, visits[point.file, point.line])
        if point.visit == 1 or repeated or dose >= 10:
            owed -= 1
            if owed < 0:
                owed += every
                yield point
