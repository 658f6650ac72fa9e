"""A RabbitMQ of our own, for faults that would meet everybody else on the one that runs on the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .processes import NotReadyError, Process, Unavailable, answers, free_port, stopped_at_end
from .roots import fresh

# Debian's own scripts on the path change the user; these are what they call.
_PROGRAMS = "/usr/lib/rabbitmq/bin"


@dataclass(frozen=True)
class Node:
    """Where the node is, and how to steer it."""

    url: str
    environment: dict[str, str]

    def control(self, *arguments: str) -> None:
        """Run ``rabbitmqctl``; raises ``NotReadyError`` with its output if that fails."""
        command = [_program("rabbitmqctl"), "--quiet", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=90, env={**os.environ, **self.environment}
        )
        if done.returncode:
            raise NotReadyError(f"rabbitmqctl {arguments[0]}: {done.stdout}{done.stderr}")


def _program(name: str) -> str:
    found = shutil.which(name, path=_PROGRAMS) or shutil.which(name)
    if found is None:
        raise Unavailable(f"no {name}: install Debian's rabbitmq-server")
    return found


def _environment(folder: Path, port: int) -> dict[str, str]:
    (folder / "enabled_plugins").touch()
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
    return {
        "HOME": str(folder),
        # A port mapper of our own ends with the node.
        "ERL_EPMD_PORT": str(free_port()),
        "RABBITMQ_NODENAME": f"queued-storage-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
    }


@contextmanager
def server() -> Iterator[Node]:
    """Run a node and yield it."""
    program, mapper = _program("rabbitmq-server"), shutil.which("epmd")
    folder, port = fresh("rabbitmq"), free_port()
    node = Node(f"amqp://guest:guest@127.0.0.1:{port}//", _environment(folder, port))
    process = Process([program], name="rabbitmq", log=folder / "out", env=node.environment)
    try:
        with stopped_at_end(process):
            process.wait_until(lambda: answers("127.0.0.1", port), bound=150, what="it listens")
            yield node
    finally:
        if mapper:
            command = [mapper, "-port", node.environment["ERL_EPMD_PORT"], "-kill"]
            subprocess.run(command, capture_output=True, timeout=10, check=False)
