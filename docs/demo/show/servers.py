"""The processes of the show: web server, worker, beat, S3; and the folder that is the broker."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from show.processes import Process, ShowError, free_ports, listens

PROJECT = Path(__file__).resolve().parents[1]
# Bytes per second to S3.
LINE = 20 * 1024 * 1024


class Servers:
    """Start, break and end the processes; everything they write is in the folder ``state``."""

    def __init__(self, state: Path) -> None:
        self.state, self.logs = state, state / "logs"
        self.s3_port, self.line_port, self.web_port = free_ports(3)
        self.broker = state / "broker"
        self.running: dict[str, Process] = {}
        for folder in (self.logs, state / "media", state / "temporary"):
            folder.mkdir(parents=True)

    def environment(self) -> dict[str, str]:
        """Return what the settings of the gallery read."""
        return {
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "GALLERY_S3": f"http://127.0.0.1:{self.line_port}",
            "GALLERY_STATE": str(self.state),
            "PYTHONUNBUFFERED": "1",
            # moto and Django keep large bodies in temporary files.
            "TMPDIR": str(self.state / "temporary"),
        }

    def start(self, name: str, *arguments: str, **environment: str) -> Process:
        """Start ``python -m`` with these arguments as the process ``name``; it is not ready yet."""
        command = [sys.executable, "-m", *arguments]
        log = self.logs / f"{name}.log"
        process = Process(name, command, log, {**self.environment(), **environment}, PROJECT)
        self.running[name] = process
        return process

    def start_s3(self) -> None:
        """Start the S3 server and the line to it."""
        self.start("s3", "moto.server", "-H", "127.0.0.1", "-p", str(self.s3_port))
        self.start("line", "show.line", str(self.line_port), str(self.s3_port), str(LINE))

    def start_web(self) -> None:
        """Start the web server."""
        self.start("web", "django", "runserver", "--noreload", f"127.0.0.1:{self.web_port}", DJANGO_DEBUG="1")

    def start_broker(self) -> None:
        """Make the folder of the broker, empty."""
        for folder in ("messages", "control"):
            (self.broker / folder).mkdir(parents=True)

    def stop_broker(self) -> None:
        """Take the folder of the broker away, with every message in it."""
        self.broker.rename(self.state / "broker-gone")

    def start_celery(self) -> None:
        """Start the worker and beat."""
        celery = ("celery", "--app", "mysite")
        self.start("worker", *celery, "worker", "--concurrency", "2", "--loglevel", "INFO")
        schedule = ["--schedule", str(self.state / "beat"), "--pidfile", "", "--max-interval", "1"]
        self.start("beat", *celery, "beat", "--loglevel", "INFO", *schedule)

    def wait(self, *names: str) -> None:
        """Wait until these processes are ready; raises ``ShowError`` when one ends before, or time is up."""
        ready = {
            "s3": lambda: listens(self.s3_port),
            "line": lambda: listens(self.line_port),
            "web": lambda: listens(self.web_port),
            "worker": lambda: re.search(r"celery@.* ready\.", self.running["worker"].output()) is not None,
            "beat": lambda: "beat: Starting" in self.running["beat"].output(),
        }
        for name in names:
            self.running[name].ready(ready[name])

    def kill(self, name: str) -> int:
        """Kill a process and all its children with SIGKILL and return its id; raises ``ShowError`` if it was dead."""
        process = self.running[name]
        if not process.alive:
            raise ShowError(f"{name} was dead before it could be killed")
        process.kill()
        return process.pid

    def close(self) -> None:
        """End everything."""
        for process in self.running.values():
            process.ask()
        for process in self.running.values():
            process.stop()

    def tails(self, lines: int = 40) -> str:
        """Return the end of every log."""
        parts = []
        for log in sorted(self.logs.glob("*.log")):
            tail = log.read_text(errors="replace").splitlines()[-lines:]
            parts.append(os.linesep.join([f"--- {log}", *tail]))
        return os.linesep.join(parts)
