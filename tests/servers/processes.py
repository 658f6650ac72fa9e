"""Start child processes, wait for them with a bound, and never leave one behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from . import roots

T = TypeVar("T")


class Unavailable(Exception):
    """A server cannot be had on this machine; the message says what is missing."""


class NotReadyError(Exception):
    """A process died, or a condition did not come true within its bound."""


def wait_until(condition: Callable[[], T], *, bound: float, what: str) -> T:
    """Return the first true value of ``condition``; raise ``NotReadyError`` after ``bound`` seconds."""
    deadline = time.monotonic() + bound
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise NotReadyError(f"{what}: not within {bound:g} s")
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(host: str, port: int, *, timeout: float = 1.0) -> bool:
    """Tell whether something accepts connections at that address."""
    try:
        socket.create_connection((host, port), timeout=timeout).close()
    except OSError:
        return False
    return True


class Process:
    """A child in a session of its own, its output in a file, ended together with all its children."""

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        name: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> None:
        self.name, self.log = name, log
        with log.open("ab") as sink:
            self.popen = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
                cwd=cwd,
                start_new_session=True,
                user=user,
            )
        roots.started(self.pid)

    @property
    def pid(self) -> int:
        """The process id; also the id of its process group."""
        return int(self.popen.pid)

    @property
    def alive(self) -> bool:
        """Whether the process itself still runs."""
        return self.popen.poll() is None

    def output(self) -> str:
        """Return everything it has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_until(self, condition: Callable[[], T], *, bound: float, what: str) -> T:
        """Wait like the function of that name, but stop at once, with the log, when the process dies."""

        def condition_or_death() -> T:
            if not (value := condition()) and not self.alive:
                raise NotReadyError(f"{self.name} ended with {self.popen.returncode} before: {what}")
            return value

        try:
            return wait_until(condition_or_death, bound=bound, what=what)
        except NotReadyError as error:
            raise NotReadyError(f"{error}\n{self.output()[-4000:]}") from None

    def wait_for_output(self, pattern: str, *, bound: float = 30.0) -> str:
        """Return the first part of the output that matches ``pattern``."""
        found = self.wait_until(
            lambda: re.search(pattern, self.output(), re.MULTILINE), bound=bound, what=f"{self.name} prints {pattern!r}"
        )
        assert found is not None
        return found.group(0)

    def send(self, number: int) -> None:
        """Send a signal to the process alone, for instance ``SIGTERM`` to let a worker finish."""
        if self.alive:
            self.popen.send_signal(number)

    def kill(self) -> None:
        """End the whole process group with no warning, as a power cut would."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(timeout=10)
        roots.ended(self.pid)

    def stop(self, *, number: int = signal.SIGTERM, bound: float = 10.0) -> None:
        """Ask the process to end, wait ``bound`` seconds, then kill what is left of its group."""
        self.send(number)
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout=bound)
        self.kill()


@contextmanager
def stopped_at_end(process: Process, *, number: int = signal.SIGTERM) -> Iterator[Process]:
    """Stop the process when the block ends, however it ends."""
    try:
        yield process
    finally:
        process.stop(number=number)


def on_free_port(start: Callable[[int], Process], ready: Callable[[int], bool], *, bound: float) -> tuple[Process, int]:
    """Start a server on a free port; try another one where somebody else took the port in between."""
    for last in (False, False, True):
        port = free_port()
        process = start(port)
        try:
            process.wait_until(lambda port=port: ready(port), bound=bound, what=f"{process.name} answers")  # type: ignore[misc]
        except NotReadyError:
            died = not process.alive
            process.kill()
            if last or not died:
                raise
        else:
            return process, port
    raise AssertionError("unreachable")
