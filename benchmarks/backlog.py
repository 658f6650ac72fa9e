"""The day after an outage: ``python -m benchmarks.backlog [files]``, 100,000 by default.

So many files of 1 KB are owed, all of them due, and no message is left. One sweep sends what workers need; a real
Celery worker moves everything to a null S3 server. Told are messages for each file, whether the oldest went first, and
the time as a ratio to a bare loop of django-storages saves in the same run.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

from django.core.files.storage import storages
from django.test import override_settings

# First: it sets Django up.
from benchmarks import drain, null_s3, ours
from queued_storage import ledger, sweeping, tasks
from queued_storage.models import TransferRecord
from tests.servers import workers
from tests.servers.processes import wait_until

# Saves of the loop that it is compared with.
LOOP = 500


def messages(broker: Any) -> int:
    """Return how many messages wait in the queue."""
    import redis

    return int(redis.Redis.from_url(broker.url).llen(broker.queue))  # type: ignore[arg-type]


def owe(pair: Any, bodies: dict[str, Any]) -> None:
    """Have all these files be owed and due, each saved a moment after the one before."""
    ours.queue(pair, bodies)
    first = TransferRecord.objects.order_by("pk").values_list("pk", flat=True)[0]
    moment = ledger.DatabaseNow() - timedelta(days=1)
    TransferRecord.objects.update(due_at=moment, created_at=moment)
    assert TransferRecord.objects.filter(pk__gte=first).count() == len(bodies)


def early(count: int) -> float:
    """Return how far, as a part of all, the first tenth to arrive is from being the oldest tenth: 0 is in order."""
    arrived = TransferRecord.objects.order_by("transferred_at", "pk").values_list("pk", flat=True)[: count // 10]
    oldest = set(TransferRecord.objects.order_by("pk").values_list("pk", flat=True)[: count // 10])
    return sum(pk not in oldest for pk in arrived) / max(count // 10, 1)


def main(count: int) -> None:
    """Measure and print."""
    with drain.everything() as broker, drain.staged(0.0, 1000, count, broker) as stage:
        few = drain.loop(stage, min(LOOP, count))["seconds"] / min(LOOP, count)
        folder, bodies = stage.files(count)
        with override_settings(STORAGES=ours.settings_for(stage.endpoint, folder)):
            pair: Any = storages["default"]
            owe(pair, bodies)
            started = time.perf_counter()
            sent = sweeping.sweep(tasks.send)["sent"]
            swept, waiting = time.perf_counter() - started, messages(broker)
            null_s3.forget(stage.endpoint)
            celery = workers.Celery()
            try:
                celery.worker(broker, concurrency=drain.WORKERS)
                started = time.perf_counter()
                owed = ledger.records().exclude(state="transferred")
                wait_until(lambda: not owed.exists(), bound=3600, what="everything was moved")
                seconds = time.perf_counter() - started
            finally:
                celery.end()
            assert set(TransferRecord.objects.values_list("state", "retries")) == {("transferred", 1)}
            print(f"{count:,} files owed after an outage; PostgreSQL, Redis, a worker of {drain.WORKERS} processes")
            print(f"  the sweep: {sent:,} files in {waiting:,} messages, {waiting / count:.3f} a file (goal <= 1.2)")
            print(f"  the sweep took {swept / seconds:.3f} of the time of the transfers")
            print(f"  of the first tenth to arrive {early(count):.1%} were not of the oldest tenth")
            print(f"  the worker: {few * count / seconds:.2f} x a bare loop of saves")


if __name__ == "__main__":
    # As a module with a name: tasks and storages are found by their paths.
    from benchmarks import backlog

    backlog.main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
