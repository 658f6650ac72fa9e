"""A process of its own that forks one victim for each crash point and tells what became of it.

It is lean, because a fork copies the tables of all memory, and holds no connection to the database when it forks, so
that each victim opens its own. The judge stays connected meanwhile, as the other processes of a site would.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from django.db import connection, connections
from django.test import override_settings

from tests.machines.flows import FLOWS
from tests.machines.invariants import Manifest
from tests.machines.mutants import MUTANTS
from tests.machines.points import Census, Halt, Point, Trap
from tests.machines.world import KINDS, World
from tests.servers import databases

ROOT = Path(__file__).resolve().parents[2]
START = """
from tests.machines import seeding
seeding.inherit()
import django
django.setup()
from tests.machines.victims import serve
serve()
"""


class ChildFailedError(AssertionError):
    """The code under test raised where it was not killed."""


class PointMissedError(AssertionError):
    """The process ended without passing its crash point."""


class Victims:
    """The judge's end: asks for victims on the database of this process."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            databases.VARIABLE: databases.url_of(connection.settings_dict),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", START], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def configure(self, world: World, manifest: Manifest, flow: str, mutant: str, **settings: Any) -> None:
        """Set the stage for all that follows: the same as that of the judge."""
        # The server makes STORAGES itself: JSON has no durations.
        settings.pop("STORAGES", None)
        stage = {"root": str(world.root), "kinds": list(world.kinds), "manifest": str(manifest.path)}
        self._ask("configure", flow=flow, mutant=mutant, settings=settings, **stage)

    def census(self, context: Any) -> list[Point]:
        """Let one go to the end of its flow and return every visit of a line, in the order of execution."""
        return [Point(*visit) for visit in self._ask("census", context=context)]

    def kill(self, point: Point, context: Any) -> None:
        """Let one begin its flow and die at ``point``; raises ``PointMissedError`` if it does not come by."""
        if not self._ask("kill", context=context, point=[point.file, point.line, point.visit]):
            raise PointMissedError(f"did not pass {point}")

    def walk(self, points: Sequence[Point], context: Any) -> Iterator[Point]:
        """Let one stop at each of ``points`` on its way to the end, and yield each while it stands there.

        Raises ``PointMissedError`` if it does not come by all of them.
        """
        # Not below the folder of the world, where somebody would read these as files.
        with tempfile.TemporaryDirectory() as folder:
            reached, onward = Path(folder) / "reached", Path(folder) / "onward"
            os.mkfifo(reached)
            os.mkfifo(onward)
            places = [[point.file, point.line, point.visit] for point in points]
            self._say("walk", context=context, points=places, reached=str(reached), onward=str(onward))
            with reached.open("rb", buffering=0) as stops, onward.open("wb", buffering=0) as goes:
                for point in points:
                    if not stops.read(1):
                        break
                    yield point
                    goes.write(b".")
                else:
                    point = None
            self._hear()
        if point is not None:
            raise PointMissedError(f"did not pass {point}")

    def end(self) -> None:
        """End the process that forks them."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self.process.stdout.close()

    def _ask(self, what: str, **facts: Any) -> Any:
        self._say(what, **facts)
        return self._hear()

    def _say(self, what: str, **facts: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"what": what, **facts}).encode() + b"\n")
        self.process.stdin.flush()

    def _hear(self) -> Any:
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline() or b'{"error": "the process that forks victims is dead"}')
        if "error" in answer:
            raise ChildFailedError(answer["error"])
        return answer["result"]


class Server:
    """The other end: does what it is asked for."""

    world: World
    manifest: Manifest
    flow: Any
    mutate: Callable[[], None]
    overridden: Any = None

    def configure(self, root: str, kinds: list[str], manifest: str, flow: str, mutant: str, settings: Any) -> None:
        """Set the stage, and run the flow once, so that no victim imports or looks up anything for the first time."""
        if self.overridden is not None:
            self.overridden.disable()
        self.world = World(Path(root), kinds={kind: KINDS[kind] for kind in kinds})
        self.overridden = override_settings(STORAGES=self.world.settings(), **settings)
        self.overridden.enable()
        self.manifest = Manifest(Path(manifest))
        self.flow = next(known for known in FLOWS if known.name == flow)
        self.mutate = next((known.apply for known in MUTANTS if known.name == mutant), lambda: None)
        self.world.clear()
        self.manifest.clear()
        self.flow.act(self.world, self.manifest, self.flow.prepare(self.world, self.manifest))
        connections.close_all()
        gc.collect()
        gc.freeze()

    def census(self, context: Any) -> list[list[Any]]:
        """Fork a process that is not killed and return what it has visited."""
        census = Census()

        def act(pipe: int) -> None:
            self._act(census, context)
            with os.fdopen(pipe, "wb") as file:
                visits = [[point.file, point.line, point.visit] for point in census.visited]
                file.write(json.dumps(visits).encode())

        visited: list[list[Any]] = json.loads(in_child(act)[1])
        return visited

    def kill(self, context: Any, point: list[Any]) -> bool:
        """Fork a process that dies at ``point`` and return whether it did."""
        return in_child(lambda pipe: self._act(Trap(Point(*point)), context))[0]

    def walk(self, context: Any, points: list[list[Any]], reached: str, onward: str) -> None:
        """Fork a process that tells of each of ``points`` on one pipe and goes on when the other says so."""

        def act(pipe: int) -> None:
            with open(reached, "wb", buffering=0) as stops, open(onward, "rb", buffering=0) as goes:

                def stop() -> None:
                    stops.write(b".")
                    goes.read(1)

                self._act(Halt((Point(*point) for point in points), stop), context)

        in_child(act)

    def _act(self, trace: Any, context: Any) -> None:
        gc.disable()
        self.mutate()
        self.world.forget()
        sys.settrace(trace)
        try:
            self.flow.act(self.world, self.manifest, context)
        finally:
            sys.settrace(None)


def in_child(action: Callable[[int], None]) -> tuple[bool, bytes]:
    """Run ``action(pipe)`` in a forked process; return whether that was killed, and what it wrote to the pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            action(writing)
            code = 0
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        written = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise ChildFailedError(written.decode(errors="replace"))
    return os.WIFSIGNALED(status), written


def serve() -> None:
    """Answer the questions on standard input until it ends."""
    logging.getLogger("queued_storage").setLevel(logging.CRITICAL)
    server = Server()
    # Whatever the code under test may print is not an answer.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        for line in sys.stdin.buffer:
            question = json.loads(line)
            try:
                answer = {"result": getattr(server, question.pop("what"))(**question)}
            except Exception:
                answer = {"error": traceback.format_exc()}
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()
