"""Chaos with real parts: load, faults from a seed, a referee, and the accounts at the end."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tests.chaos import accounts, faults
from tests.chaos.manifest import Reader
from tests.chaos.proxy import FaultProxy
from tests.chaos.report import Lost, Report
from tests.chaos.subjects import OURS, Subject
from tests.servers.processes import Process, wait_until
from tests.servers.roots import fresh
from tests.servers.s3 import S3Server

ROOT = Path(__file__).resolve().parents[2]

# Seconds that each web process rests between two acts.
PACE = os.environ.get("QUEUED_STORAGE_CHAOS_PACE", "0.15")
# Redis gives a dead worker's messages to others after an hour; here as much shorter as everything else.
VISIBILITY = 30


class Chaos:
    """One run: real database, broker, cache and S3 behind proxies, real processes that are killed and stopped."""

    def __init__(
        self, seed: str, database: str, broker: str, cache: str, s3: S3Server, subject: Subject = OURS
    ) -> None:
        self.random, self.seed, self.s3, self.subject = random.Random(seed), seed, s3, subject
        self.folder, self.media = fresh("chaos"), fresh("chaos-media")
        self.proxies = {
            name: FaultProxy(_port(url))
            for name, url in (("database", database), ("broker", broker), ("cache", cache), ("s3", s3.endpoint))
        }
        self.database, self.broker, self.cache = database, broker, cache
        self.processes: dict[str, Process] = {}
        self.recovering: list[Lost] = []
        # When each fault began, by two clocks.
        self.timeline: list[tuple[float, datetime, str]] = []
        self.report = Report(subject.name, seed, 0)
        self.queue = f"chaos-{os.getpid()}-{self.random.randrange(10**6)}"
        self.bucket = s3.create_bucket(self.queue)

    def environment(self) -> dict[str, str]:
        """Return what every process of the run finds: each server behind its proxy."""
        proxied = {
            name: _through(proxy, url)
            for (name, proxy), url in zip(
                self.proxies.items(), (self.database, self.broker, self.cache, self.s3.endpoint), strict=True
            )
        }
        remote = self.s3.options(self.bucket, file_overwrite=False) | {"endpoint_url": proxied["s3"]}
        cache = {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": proxied["cache"],
            "OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1},
            "TIMEOUT": 10,
        }
        storages = {"default": self.subject.entry(self.media, remote)}
        overrides = {**self.subject.settings, "STORAGES": storages, "CACHES": {"default": cache}}
        redis = self.broker.startswith("redis")
        return {
            "TEST_DATABASE": proxied["database"],
            "TEST_BROKER": proxied["broker"],
            "TEST_BROKER_OPTIONS": json.dumps({"visibility_timeout": VISIBILITY} if redis else {}),
            "TEST_QUEUE": self.queue,
            "TEST_SETTINGS": json.dumps(overrides),
            "DJANGO_SETTINGS_MODULE": "tests.settings",
        }

    # Processes

    def commands(self) -> dict[str, list[str]]:
        """Return the command of each process by its name."""
        celery = [sys.executable, "-m", "celery", "--app", "tests.celeryapp"]
        quiet = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
        worker = [*celery, "worker", "--concurrency", "2", *quiet]
        beat = [*celery, "beat", "--schedule", str(self.folder / "beat"), "--pidfile", "", "--max-interval", "1"]
        commands = {f"web{number}": [*self.module("web"), f"{self.seed}-{number}", PACE] for number in (1, 2)}
        commands |= {f"worker{number}": [*worker, "--hostname", f"{self.queue}-{number}@chaos"] for number in (1, 2)}
        return commands | {
            "beat": [*beat, "--loglevel", "WARNING"],
            "referee": [*self.module("referee"), self.seed],
        }

    def module(self, name: str) -> list[str]:
        """Return the command that runs a module of this folder on the folder of the run."""
        return [sys.executable, "-m", f"tests.chaos.{name}", str(self.folder)]

    def start(self, name: str) -> None:
        """Start a process, again if it has ended."""
        self.processes[name] = self.process(name, self.commands()[name])

    def process(self, name: str, command: list[str]) -> Process:
        """Start a command in the environment of the run."""
        return Process(command, name=name, log=self.folder / f"{name}.log", env=self.environment(), cwd=ROOT)

    def rest(self, seconds: float) -> None:
        """Let the processes go on for a while, restart what has died of a fault, and see what has recovered."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, process in self.processes.items():
                if not process.alive:
                    # No fault touches the referee: its end would be the end of what it has seen.
                    assert name != "referee", process.output()[-2000:]
                    self.start(name)
            self._see_recoveries()
            time.sleep(0.1)  # the length of the fault, not a wait for anything

    def _see_recoveries(self) -> None:
        if not self.recovering:
            return
        arrived = self.subject.arrived([lost.pk for lost in self.recovering])
        for lost in self.recovering:
            if lost.pk in arrived:
                self._note_recovery(lost, round(time.monotonic() - lost.at, 1))
        self.recovering = [lost for lost in self.recovering if lost.pk not in arrived]

    def _note_recovery(self, lost: Lost, seconds: float) -> None:
        if not lost.calm:
            self.report.recoveries_amid_faults.append(seconds)
            return
        if seconds >= max(self.report.recoveries, default=0):
            faults = [f"{when:%H:%M:%S} {fault}" for began, when, fault in self.timeline if began >= lost.at - 3]
            self.report.slowest_recovery = sorted([*self.subject.history(lost.pk), *faults])
        self.report.recoveries.append(seconds)

    def run(self, seconds: float, only: Collection[str] | None = None) -> Report:
        """Break things for ``seconds``, heal everything, wait until all is quiet, and draw up the accounts.

        ``only`` leaves out all faults but these.
        """
        self.report.seconds = seconds
        try:
            for name in self.commands():
                self.start(name)
            reader = Reader(self.folder)
            wait_until(
                lambda: len([1 for promise in reader.read().values() if promise.kept]) > 5,
                bound=60,
                what="the first files",
            )
            self._break_things(seconds, only)
            self._settle()
        finally:
            for process in self.processes.values():
                process.kill()
            for proxy in self.proxies.values():
                proxy.close()
        return self.report

    def _break_things(self, seconds: float, only: Collection[str] | None) -> None:
        known = {name: fault for name, fault in faults.all_of(self).items() if only is None or name in only}
        end, plan = time.monotonic() + seconds, list[str]()
        while time.monotonic() < end:
            # Every fault has its turn before any comes twice.
            plan = plan or self.random.sample(sorted(known), len(known))
            fault = plan.pop()
            self.report.faults[fault] += 1
            self.timeline.append((time.monotonic(), datetime.now(timezone.utc), fault))
            known[fault]()
            self.rest(self.random.uniform(0.3, 1.5))

    # The end

    def _settle(self) -> None:
        """Stop the load, wait until nothing is owed, and draw up the accounts."""
        for name in ("web1", "web2"):
            self.processes.pop(name).kill()
        start = time.monotonic()
        wait_until(self._at_rest(), bound=180, what="everything at rest")
        self.report.settled_after = round(time.monotonic() - start, 1)
        self._see_recoveries()
        self.processes.pop("referee").stop(bound=30)
        judge = self.process("judge", self.module("judge"))
        wait_until(lambda: not judge.alive, bound=600, what="every file read once more")
        for name, proxy in self.proxies.items():
            self.report.hits |= {f"{name} {mode}": count for mode, count in proxy.hits.items()}
        remote = accounts.objects(self.s3.client(), self.bucket)
        accounts.draw_up(self.report, self.subject, self.folder, remote, accounts.local_files(self.media))

    def _at_rest(self) -> Any:
        last: dict[str, Any] = {"seen": None, "at": 0.0}

        def told() -> bool:
            self.rest(0.5)
            assert self.subject.at_rest is not None
            return self.subject.at_rest()

        def still() -> bool:
            self.rest(1)
            seen = (self._keys(), sorted(path.name for path in self.media.rglob("*")))
            if seen != last["seen"]:
                last.update(seen=seen, at=time.monotonic())
            return bool(time.monotonic() - last["at"] > self.subject.still)

        return told if self.subject.at_rest is not None else still

    def _keys(self) -> list[str]:
        pages = self.s3.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _through(proxy: FaultProxy, url: str) -> str:
    parts = urlsplit(url)
    login = f"{parts.username}:{parts.password}@" if parts.password else f"{parts.username}@" if parts.username else ""
    return urlunsplit(parts._replace(netloc=f"{login}127.0.0.1:{proxy.port}"))
