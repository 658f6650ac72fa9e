"""What is done to the processes and to the wires between them."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.proxy import BUSY, CUT, DRIP, PASS, REFUSE, RESET, SILENT
from tests.chaos.report import Lost

if TYPE_CHECKING:
    from tests.chaos.controller import Chaos

Fault = Callable[[], None]

# Longer than the lease of the subjects that have one.
ZOMBIE = 8.0
# How long to wait for a worker to have a file in its hand before it is killed.
BUSY_WITHIN = 15.0
# How long a calm after the kill of a worker may last.
CALM = 60.0
# What each wire may do, and for how many seconds.
WIRES = [
    ("database", (RESET, CUT, REFUSE), 0.3),
    ("broker", (REFUSE, SILENT, RESET), 3.0),
    ("cache", (REFUSE, SILENT, RESET), 3.0),
    ("s3", (REFUSE, SILENT, RESET, CUT, DRIP, BUSY), 3.0),
]
WORKERS = ("worker1", "worker2")


def all_of(chaos: Chaos) -> dict[str, Fault]:
    """Return every fault by its name."""
    faults: dict[str, Fault] = {}
    for server, modes, seconds in WIRES:
        faults |= {f"{server} {mode}": _broken(chaos, server, mode, seconds) for mode in modes}
    faults |= {f"kill {name}": _killed(chaos, name) for name in ("web1", "beat")}
    faults |= {
        f"kill {name}": _worker_killed(chaos, name, calm) for name, calm in zip(WORKERS, (True, False), strict=True)
    }
    return faults | {
        "kill child": lambda: _child_killed(chaos),
        "zombie": lambda: _zombie(chaos),
        "flush cache": lambda: _flushed(chaos),
        "purge queue": lambda: _purged(chaos),
    }


def _broken(chaos: Chaos, server: str, mode: str, seconds: float) -> Fault:
    def run() -> None:
        chaos.proxies[server].set(mode)
        chaos.rest(seconds)
        chaos.proxies[server].set(PASS)

    return run


def _killed(chaos: Chaos, name: str) -> Fault:
    def run() -> None:
        chaos.processes[name].kill()
        chaos.start(name)

    return run


def _worker_killed(chaos: Chaos, name: str, calm: bool) -> Fault:
    """Kill a worker with a file in its hand, if the subject can tell; note what must come back.

    With ``calm`` nothing else happens until it is back, so that the time it takes is that of this fault alone.
    """

    def run() -> None:
        process = chaos.processes[name]
        ends = time.monotonic() + (BUSY_WITHIN if chaos.subject.has_ledger else 0)
        # A worker that has just been started has no children yet.
        while not chaos.subject.in_hand(names := _names(process.pid)) and time.monotonic() < ends:
            time.sleep(0.005)  # until the worker has taken a file
        process.kill()
        at = time.monotonic()
        lost = [Lost(at, pk, calm) for pk in chaos.subject.in_hand(names)]
        chaos.recovering += lost
        chaos.start(name)
        while calm and set(lost) & set(chaos.recovering) and time.monotonic() < at + CALM:
            chaos.rest(0.2)

    return run


def _names(worker: int) -> set[str]:
    return {f"{socket.gethostname()[:200]}:{child}" for child in children(worker)}


def _child_killed(chaos: Chaos) -> None:
    """Kill one child of a worker: its parent goes on."""
    found = children(chaos.processes[chaos.random.choice(WORKERS)].pid)
    if found:
        # It may have ended by itself meanwhile.
        with suppress(ProcessLookupError):
            os.kill(chaos.random.choice(found), signal.SIGKILL)


def _zombie(chaos: Chaos) -> None:
    """Stop one child of a worker for longer than its lease and let it go on."""
    for child in children(chaos.processes[chaos.random.choice(WORKERS)].pid)[:1]:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGSTOP)
            chaos.rest(ZOMBIE)
            os.kill(child, signal.SIGCONT)


def _flushed(chaos: Chaos) -> None:
    """Empty the cache."""
    import redis

    redis.Redis.from_url(chaos.cache).flushdb()


def _purged(chaos: Chaos) -> None:
    """Throw away every message that waits."""
    from kombu import Connection, Queue

    with Connection(chaos.broker) as connection:
        Queue(chaos.queue, channel=connection.default_channel).purge()


def children(pid: int) -> list[int]:
    """Return the ids of the processes that a process has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
