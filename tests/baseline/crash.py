"""M2 for the baselines: the same forks, kills and manifest; the worker starts again and does what messages are left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django.core.files
from django.core.cache import caches
from django.core.files.base import ContentFile

import tests.baseline
from queued_storage.testing import store
from tests.baseline.cached import CachedStateStorage, move as move_cached
from tests.baseline.naive import NaiveStorage, move as move_naive
from tests.machines.invariants import Manifest, Promises, read_all, sha256
from tests.machines.points import Point
from tests.machines.victims import PointMissedError, in_child

# The code of the baselines, and Django's file system storage, which is their local side.
TRACED = tuple(f"{Path(package.__file__ or '').parent}{os.sep}" for package in (tests.baseline, django.core.files))

NAME, FIRST = "folder/file.txt", b"the first content of this file; " * 5


class Mailbox:
    """A broker that loses nothing: a file for each message, as it was given to ``delay``."""

    folder: Path

    @classmethod
    def delay(cls, *arguments: Any) -> None:
        """Put a message into the box."""
        number = len(list(cls.folder.iterdir()))
        (cls.folder / f"{number}.part").write_text(json.dumps(arguments))
        (cls.folder / f"{number}.part").rename(cls.folder / f"{number}.json")

    @classmethod
    def take(cls) -> list[Any] | None:
        """Take a message out of the box; as Celery does, before it is worked on."""
        for path in sorted(cls.folder.glob("*.json")):
            arguments: list[Any] = json.loads(path.read_text())
            path.unlink()
            return arguments
        return None


@dataclass
class Kind:
    """One baseline: its storage over folders below a root, and what its worker does with a message."""

    name: str
    root: Path
    make: Callable[[Kind], Any]
    work: Callable[[Any, list[Any]], Any]
    built: Any = field(default=None)

    @property
    def remote_options(self) -> dict[str, Any]:
        """Options of the remote: atomic as an object store is."""
        return {"name": self.name, "location": str(self.root / "remote")}

    def storage(self, alias: str) -> Any:
        """Return the storage, as the judges ask for it."""
        self.built = self.built or self.make(self)
        return self.built

    def overwrites(self, alias: str) -> bool:
        """A name keeps its content."""
        return False

    def clear(self) -> None:
        """Forget everything."""
        for folder in ("local", "remote", "mail"):
            shutil.rmtree(self.root / folder, ignore_errors=True)
        Mailbox.folder = self.root / "mail"
        Mailbox.folder.mkdir(parents=True)
        caches["default"].clear()

    def work_off(self) -> None:
        """Be a worker until there is no message left."""
        while (arguments := Mailbox.take()) is not None:
            self.work(self.storage("default"), arguments)


_MAIL = "tests.baseline.crash.Mailbox"
_REMOTE = "queued_storage.testing.FaultyStorage"


def cached(root: Path) -> Kind:
    """Return the algorithm of 0.8 over a folder."""

    def make(kind: Kind) -> CachedStateStorage:
        local = "django.core.files.storage.FileSystemStorage"
        return CachedStateStorage(local, _REMOTE, {"location": str(root / "local")}, kind.remote_options, _MAIL)

    return Kind("0.8 (state in the cache)", root, make, lambda storage, arguments: move_cached(*arguments))


def naive(root: Path) -> Kind:
    """Return the naive upload over a folder."""

    def make(kind: Kind) -> NaiveStorage:
        return NaiveStorage(str(root / "local"), _REMOTE, kind.remote_options, _MAIL)

    return Kind("upload in a task", root, make, lambda storage, arguments: move_naive(storage, *arguments))


def save(kind: Kind, manifest: Manifest) -> None:
    """Save a file, with its lines in the manifest."""
    file = manifest.intent("default", NAME, FIRST)
    manifest.ack(file, kind.storage("default").save(NAME, ContentFile(FIRST)))


@dataclass
class Losses:
    """At how many crash points what was wrong afterwards."""

    subject: str
    points: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def note(self, place: str, found: list[str]) -> None:
        """Count the kinds of what was found after a kill at ``place``."""
        self.points += 1
        for kind in {sentence.split()[0] for sentence in found}:
            self.bad[kind] += 1
        self.examples += [f"{place}: {found[0]}"] if found else []


class Tracer:
    """Tells ``met`` of each line of the baseline that is executed from now on."""

    def __init__(self, met: Callable[[Point], None]) -> None:
        self.met = met
        self.visits: Counter[tuple[str, int]] = Counter()

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        """Choose the frames to follow: not those of this machine."""
        file = frame.f_code.co_filename
        return self._line if file.startswith(TRACED) and file != __file__ else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            place = frame.f_code.co_filename, frame.f_lineno
            self.visits[place] += 1
            self.met(Point(*place, self.visits[place]))
        return self._line


def run(kind: Kind, manifest: Manifest) -> Losses:
    """Kill a save, and the work on its message, at each executed line; count what is wrong when the worker is back."""
    losses = Losses(kind.name)
    for name, prepare, act in (
        ("save", lambda: None, lambda: save(kind, manifest)),
        ("transfer", lambda: save(kind, manifest), kind.work_off),
    ):
        for point in _census(kind, manifest, prepare, act):
            _begin(kind, manifest, prepare)
            _kill(act, point)
            place = f"{name}, killed at {Path(point.file).name}:{point.line} visit {point.visit}"
            losses.note(place, _judge(kind, manifest))
    return losses


def _begin(kind: Kind, manifest: Manifest, prepare: Callable[[], None]) -> None:
    kind.clear()
    manifest.clear()
    prepare()


def _traced(act: Callable[[], None], met: Callable[[Point], None]) -> None:
    sys.settrace(Tracer(met))
    try:
        act()
    finally:
        sys.settrace(None)


def _census(kind: Kind, manifest: Manifest, prepare: Callable[[], None], act: Callable[[], None]) -> list[Point]:
    # Once in this process, so that its children need not import anything for the first time.
    _begin(kind, manifest, prepare)
    act()
    _begin(kind, manifest, prepare)

    def note(pipe: int) -> None:
        visited: list[tuple[str, int, int]] = []
        _traced(act, lambda point: visited.append((point.file, point.line, point.visit)))
        with os.fdopen(pipe, "wb") as file:
            file.write(json.dumps(visited).encode())

    _, written = in_child(note)
    assert not (bad := _judge(kind, manifest)), f"{kind.name}, not killed: {bad}"
    return [Point(*visit) for visit in json.loads(written)]


def _kill(act: Callable[[], None], point: Point) -> None:
    def die(pipe: int) -> None:
        _traced(act, lambda met: os.kill(os.getpid(), signal.SIGKILL) if met == point else None)

    killed, _ = in_child(die)
    if not killed:
        raise PointMissedError(str(point))


def _judge(kind: Kind, manifest: Manifest) -> list[str]:
    """Let the worker do what is left, let the cache forget, and compare with the manifest.

    ``lost`` is a file that cannot be read, ``wrong`` one that reads otherwise, ``stale`` one that cannot be read for
    as long as the cache keeps its entry, ``stranded`` one that never comes to the remote.
    """
    kind.work_off()
    promises = Promises.of(manifest, kind)  # type: ignore[arg-type]
    at_once = read_all(kind, promises)  # type: ignore[arg-type]
    caches["default"].clear()
    bad = read_all(kind, promises)  # type: ignore[arg-type]
    if at_once and not bad:
        bad = [f"stale {at_once[0]}"]
    arrived = {sha256(data) for data in dict(store(kind.name).objects).values()}
    kept = [name for (_, name), contents in promises.kept.items() if not contents & arrived]
    return bad + [f"stranded {name}: not on the remote, and nothing is left that would bring it there" for name in kept]
