"""Many small files, every way side by side: ``python -m benchmarks.drain``; ``--quick`` for a glance.

1 KB and 100 KB, over a null S3 server that answers at once, and one whose every answer takes 50 ms. The ledger is on
PostgreSQL, the broker is Redis. Each way runs some rounds in turns with the others; what is told is the median.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TEST_DATABASE", "postgresql")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from django.core.files.storage import storages
from django.test import override_settings

from benchmarks import null_s3, ours, peers
from benchmarks.measuring import database
from queued_storage import ledger, publishing
from queued_storage.copying import measure
from tests.baseline import cached, naive
from tests.celeryapp import app
from tests.servers import brokers, redis, workers
from tests.servers.processes import wait_until
from tests.servers.roots import fresh

LATENCY = 0.05
LANES = 16
WORKERS = 2
LOOP = "django-storages, a loop of saves"


@dataclass
class Stage:
    """A server, a folder with files of one size, and the ledger that owes them."""

    endpoint: str
    latency: float
    size: int
    broker: brokers.Broker
    folder: Path
    bodies: dict[str, Any]

    def files(self, count: int) -> tuple[Path, dict[str, Any]]:
        """Return a new folder with the first ``count`` of the files, and what they are; links cost nothing."""
        folder = fresh("some")
        names = sorted(self.bodies)[:count]
        for name in names:
            os.link(self.folder / name, folder / name)
        return folder, {name: self.bodies[name] for name in names}


Way = Callable[[Stage, int], dict[str, float]]


def by_command(threads: int | None, remote: str = ours.S3) -> Way:
    """Return our command without a broker, in so many threads, or in as many as it finds to pay."""

    def way(stage: Stage, count: int) -> dict[str, float]:
        folder, bodies = stage.files(count)
        found = _settings(stage, folder, remote)
        with override_settings(STORAGES=found):
            ours.queue(storages["default"], bodies)
        return ours.run("drain", found, threads or 0)

    return way


def _settings(stage: Stage, folder: Path, remote: str = ours.S3) -> dict[str, Any]:
    options = ours.object_options(stage.endpoint) if remote == ours.OBSTORE else None
    return ours.settings_for(stage.endpoint, folder, remote, options)


def loop(stage: Stage, count: int) -> dict[str, float]:
    """Save each with django-storages."""
    return ours.run("loop", _settings(stage, stage.files(count)[0]))


def by_peer(name: str) -> Way:
    """Return a way of ``benchmarks.peers``."""
    return lambda stage, count: peers.run(name, stage.endpoint, stage.files(count)[0])


@contextmanager
def _worker(stage: Stage, folder: Path, overrides: dict[str, Any] | None = None, remote: str = ours.S3) -> Any:
    celery = workers.Celery()
    with override_settings(STORAGES=_settings(stage, folder, remote) | (overrides or {})):
        try:
            celery.worker(stage.broker, "--include", "tests.baseline.cached", concurrency=WORKERS)
            yield
        finally:
            celery.end()


def _timed(start: Callable[[], object], done: Callable[[], bool]) -> dict[str, float]:
    started = time.perf_counter()
    start()
    wait_until(done, bound=120, what="everything was moved")
    return {"seconds": time.perf_counter() - started}


def by_worker(stage: Stage, count: int, remote: str = ours.S3) -> dict[str, float]:
    """Our Celery task, in a real worker."""
    folder, bodies = stage.files(count)
    with _worker(stage, folder, remote=remote):
        pair: Any = storages["default"]
        warm, owed = dict(list(bodies.items())[:2]), ledger.records().filter(state__in=["queued", "transferring"])
        for batch in (warm, bodies):
            # Processes of the worker make their first connection to S3 beforehand, as they have in the field.
            null_s3.forget(stage.endpoint)
            ours.queue(pair, batch)
            records = list(ledger.records().order_by("pk"))
            found = _timed(
                lambda records=records: publishing.send([(pair, record, None) for record in records]),  # type: ignore[misc]
                lambda: not owed.exists(),
            )
        assert ledger.records().filter(state="transferred").count() == count
    return found


def by_former_worker(stage: Stage, count: int) -> dict[str, float]:
    """The task of 0.8, in a real worker."""
    folder, bodies = stage.files(count)
    sides = [
        ("django.core.files.storage.FileSystemStorage", {"location": str(folder)}),
        (ours.PLAIN_S3, ours.s3_options(stage.endpoint)),
    ]
    return _by_task(stage, folder, lambda: [cached.transfer.delay(name, *sides) for name in bodies])


def by_naive_worker(stage: Stage, count: int) -> dict[str, float]:
    """An upload in a task as one writes it in an afternoon, in a real worker."""
    folder, bodies = stage.files(count)
    options = {
        "location": str(folder),
        "remote": ours.PLAIN_S3,
        "remote_options": ours.s3_options(stage.endpoint),
        "task": "tests.baseline.naive.upload",
    }
    overrides = {"default": {"BACKEND": "tests.baseline.naive.NaiveStorage", "OPTIONS": options}}
    return _by_task(stage, folder, lambda: [naive.upload.delay(name) for name in bodies], overrides)


def _by_task(
    stage: Stage, folder: Path, start: Callable[[], object], overrides: dict[str, Any] | None = None
) -> dict[str, float]:
    with _worker(stage, folder, overrides):
        return _timed(start, lambda: not any(folder.iterdir()))


OURS, OBSTORE, WORKER = "ours, queued_storage_run", "ours, the same through obstore", "ours, a Celery worker"
THREADS = f"ours, queued_storage_run --threads {LANES}"
OBSTORE_WORKER = "ours, a Celery worker through obstore"
FORMER, NAIVE = "0.8's algorithm, a Celery worker", "a hand-written task, a Celery worker"
FLOOR = "a plain PUT, one connection"


def ways(latency: float, quick: bool) -> dict[str, tuple[Way, int]]:
    """Return every way with the number of files that it gets."""
    # Of the fast ones so many that the start, and the end when lanes fall idle, are a small part of the time.
    many, some, few = (1000, 50, 10) if latency else (1000, 300, 20)
    many *= 1 if quick else 2
    lanes = LANES if latency else None
    return {
        THREADS if latency else OURS: (by_command(lanes), many),
        OBSTORE: (by_command(lanes, ours.OBSTORE), many),
        WORKER: (by_worker, many),
        OBSTORE_WORKER: (partial(by_worker, remote=ours.OBSTORE), many),
        NAIVE: (by_naive_worker, some),
        FORMER: (by_former_worker, few),
        LOOP: (loop, some),
        **{f"boto3 {name}": (by_peer(name), some) for name in ("put_object", "upload_fileobj", "crt")},
        "aws s3 cp": (by_peer("aws"), some),
        "rclone copy": (by_peer("rclone"), many),
        "s5cmd cp": (by_peer("s5cmd"), many),
        FLOOR: (by_peer("http_put"), some),
    }


#: Without and with latency: a way of ours, another one, and how many times as many files a second ours is to move.
GOALS = {
    False: [
        (OURS, LOOP, 2.0),
        (WORKER, LOOP, 3.0),
        (OBSTORE, "s5cmd cp", 1.0),
        (OBSTORE, "rclone copy", 1.0),
    ],
    True: [(WORKER, FORMER, 45.0), (THREADS, FLOOR, 0.9 * LANES), (OBSTORE, FLOOR, 0.9 * LANES)],
}


@contextmanager
def staged(latency: float, size: int, count: int, broker: brokers.Broker) -> Any:
    """Run a server and make files."""
    folder = fresh("files")
    for number in range(count):
        (folder / f"{number:05}.bin").write_bytes(os.urandom(size))
    found = ours.settings_for("", folder)
    with null_s3.running(latency) as endpoint, override_settings(STORAGES=found):
        pair: Any = storages["default"]
        bodies = {path.name: measure(pair.local, path.name) for path in sorted(folder.iterdir())}
        yield Stage(endpoint, latency, size, broker, folder, bodies)


@contextmanager
def everything() -> Any:
    """Run the database and the broker."""
    with ExitStack() as stack:
        server = brokers.Broker(stack.enter_context(redis.server()))
        stack.enter_context(brokers.used_by(app, server))
        stack.enter_context(database())
        yield server


def compare(stage: Stage, wanted: Mapping[str, tuple[Way, int]], rounds: int) -> dict[str, dict[str, float]]:
    """Run every way some rounds in turns; return medians: files a second, the ratio to the loop, CPU a file."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in wanted}
    for turn in range(rounds):
        for name, (way, count) in wanted.items():
            null_s3.forget(stage.endpoint)
            result = way(stage, count)
            cpu = {"cpu": result["cpu"] / count * 1000} if "cpu" in result else {}
            found[name].append({"rate": count / result["seconds"], **cpu})
            print(f"round {turn + 1}: {name:<45}{found[name][-1]['rate']:9.0f} files/s", file=sys.stderr, flush=True)
    for results in found.values():
        # Against the loop of the same round: whatever else the machine does falls upon both.
        for result, base in zip(results, found[LOOP], strict=True):
            result["ratio"] = result["rate"] / base["rate"]
    return {name: _medians(results) for name, results in found.items()}


def _medians(results: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def title(size: int, latency: float) -> str:
    """Return what is compared."""
    return f"{size // 1000} KB files, {'every answer after 50 ms' if latency else 'a server that answers at once'}"


def tell(heading: str, medians: Mapping[str, dict[str, float]]) -> None:
    """Print one comparison: each way's rate, and as a ratio to django-storages' loop."""
    print(f"\n{heading}")
    for name, median in medians.items():
        cpu = f"{median['cpu']:9.2f} ms of CPU a file" if "cpu" in median else ""
        print(f"  {name:<45}{median['rate']:>9.0f} files/s {median['ratio']:>8.2f} x the loop{cpu}", flush=True)


def run(quick: bool = False, sizes: tuple[int, ...] = (1_000, 100_000)) -> dict[str, dict[str, dict[str, float]]]:
    """Compare for each size, without and with latency; return the medians by title."""
    found = {}
    with everything() as broker:
        for latency in (0.0, LATENCY):
            for size in sizes:
                wanted = ways(latency, quick)
                count = max(count for _, count in wanted.values())
                with staged(latency, size, count, broker) as stage:
                    medians = compare(stage, wanted, 1 if quick else 3)
                found[title(size, latency)] = medians
                tell(title(size, latency), medians)
    return found


def main(quick: bool) -> None:
    """Measure and print."""
    run(quick)


if __name__ == "__main__":
    # As a module with a name: tasks are found by their paths.
    from benchmarks import drain

    drain.main("--quick" in sys.argv)
