"""Child processes that never outlive the show, and waiting with a bound."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class ShowError(Exception):
    """The show did not go as announced; the message says what was seen."""


def wait_until(condition: Callable[[], T], bound: float, what: str) -> T:
    """Return the first true value of ``condition``; raises ``ShowError`` after ``bound`` seconds."""
    deadline = time.monotonic() + bound
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise ShowError(f"{what}: not within {bound:g} s")
        time.sleep(0.02)
    return value


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nobody listens on at this moment."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def listens(port: int) -> bool:
    """Tell whether something accepts connections at that port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Process:
    """A child in a session of its own, its output in a file."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.name, self.log = name, log
        # Only what this process prints counts, not what one of the same name printed before.
        self._start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as sink:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                cwd=cwd,
                # Ctrl-C is for the show alone, which then ends its children in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id; also the id of its process group."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether the process itself still runs."""
        return self._popen.poll() is None

    def output(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_bytes()[self._start :].decode(errors="replace")

    def ready(self, condition: Callable[[], bool], bound: float = 60) -> None:
        """Wait until ``condition`` is true; raises ``ShowError`` when the process ends before, or time is up."""
        wait_until(lambda: condition() or not self.alive, bound, f"{self.name} is ready")
        if not self.alive:
            raise ShowError(f"{self.name} ended with code {self._popen.returncode}")

    def kill(self) -> None:
        """End the process and all its children with no warning, as a power cut would."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def stop(self, bound: float = 3) -> None:
        """Ask the process to end, then end what is left of it."""
        self.ask()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(bound)
        self.kill()

    def ask(self) -> None:
        """Ask the process to end."""
        if self.alive:
            self._popen.terminate()
