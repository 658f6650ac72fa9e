"""Real Celery workers and a real beat, as processes of their own on the database of the running test."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

from . import databases
from .brokers import Broker
from .processes import Process
from .roots import fresh

_ROOT = Path(__file__).resolve().parents[2]
_SHARED_SETTINGS = ("STORAGES", "MEDIA_ROOT", "MEDIA_URL", "CACHES", "CELERY_BEAT_SCHEDULE")


def _jsonable(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} cannot be handed to a worker process: only what JSON can hold")


def _current_settings(overrides: dict[str, Any]) -> str:
    # A worker configured otherwise than the test is a bug that looks like one of the product.
    names = {*_SHARED_SETTINGS, *(name for name in dir(settings) if name.startswith("QUEUED_STORAGE_"))}
    current = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
    return json.dumps(current | overrides, default=_jsonable)


class Celery:
    """Starts workers and beats, remembers them, prints their output for a failed test, ends them."""

    def __init__(self) -> None:
        self.processes: list[Process] = []

    def worker(
        self,
        broker: Broker,
        *arguments: str,
        pool: str = "prefork",
        concurrency: int = 1,
        settings: dict[str, Any] | None = None,
        bound: float = 60.0,
    ) -> Process:
        """Start ``celery worker`` and return it when it takes messages; it has the settings of this moment."""
        options = ["--pool", pool, "--concurrency", str(concurrency), "--loglevel", "INFO"]
        # Workers of one test would otherwise wait for each other's gossip at their start.
        quiet = ["--without-gossip", "--without-mingle"]
        process = self._start("worker", broker, [*options, *quiet, *arguments], settings or {})
        process.wait_for_output(r"celery@.* ready\.", bound=bound)
        return process

    def beat(
        self, broker: Broker, *arguments: str, settings: dict[str, Any] | None = None, bound: float = 60.0
    ) -> Process:
        """Start ``celery beat`` and return it when it ticks; ``CELERY_BEAT_SCHEDULE`` is that of this moment."""
        schedule = ["--schedule", str(fresh("beat") / "schedule"), "--pidfile", "", "--max-interval", "1"]
        process = self._start("beat", broker, [*schedule, "--loglevel", "INFO", *arguments], settings or {})
        process.wait_for_output(r"beat: Starting\.\.\.", bound=bound)
        return process

    def _start(self, command: str, broker: Broker, options: Iterable[str], overrides: dict[str, Any]) -> Process:
        environment = {
            databases.VARIABLE: databases.url_of(connection.settings_dict),
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "TEST_SETTINGS": _current_settings(overrides),
            **broker.environment(),
        }
        process = Process(
            [sys.executable, "-m", "celery", "--app", "tests.celeryapp", command, *options],
            name=f"celery {command} {len(self.processes) + 1}",
            log=fresh("celery") / f"{command}.log",
            env=environment,
            cwd=_ROOT,
        )
        self.processes.append(process)
        return process

    def end(self) -> None:
        """Kill everything that is still there; a test that needs a polite end asks for it with ``stop()``."""
        for process in reversed(self.processes):
            process.kill()
