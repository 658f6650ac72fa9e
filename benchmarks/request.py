"""What a request pays: ``python -m benchmarks.request``. Saves, URLs and reads beside their floors and beside 0.8.

On PostgreSQL (or what ``TEST_DATABASE`` names) with a private Redis as broker and cache; the remote is a folder that
takes 50 ms for every call. The algorithm of 0.8 is that of ``tests/baseline/cached.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

os.environ.setdefault("TEST_DATABASE", "postgresql")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from celery import shared_task
from django.core.cache import caches
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, storages
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from benchmarks.measuring import ROUNDS, database, report, side_by_side
from queued_storage import ledger, locations, sweeping
from queued_storage.digests import Body
from queued_storage.local import LocalStorage
from queued_storage.saving import new_record
from tests.baseline.cached import CachedStateStorage
from tests.celeryapp import app
from tests.servers import brokers, redis
from tests.servers.roots import fresh

LATENCY = 0.05
BODY = os.urandom(100_000)
FLOOR = "floor: durable local save + one INSERT + publish"
MESSAGES = "messages of 100 saves in one transaction"
CALLS = "calls of the remote for cold URLs"
# Files whose URL is asked for once, in each round.
COLD = 50


class FarStorage(FileSystemStorage):
    """A remote that is 50 ms away, and counts its calls."""

    calls = 0

    def _wait(self) -> None:
        self.calls += 1
        time.sleep(LATENCY)

    def exists(self, name: Any) -> bool:
        self._wait()
        return super().exists(name)

    def _save(self, name: str, content: Any) -> str:
        self._wait()
        return super()._save(name, content)

    def _open(self, name: str, mode: str = "rb") -> Any:
        self._wait()
        return super()._open(name, mode)

    def size(self, name: str) -> int:
        self._wait()
        return super().size(name)


@shared_task(ignore_result=True)
def nothing(*args: Any) -> None:
    """Be published."""


FAR = "benchmarks.request.FarStorage"


def measure_save(pair: Any, old: Any) -> dict[str, float]:
    """Compare saves of 100 KB; return the ratios, and how many messages a hundred saves in one transaction send."""
    durable, plain = LocalStorage(location=str(fresh("floor"))), FileSystemStorage(str(fresh("plain")))

    def floor(number: int) -> None:
        name = durable.save(f"{number}.bin", ContentFile(BODY))
        ledger.insert(new_record(pair, f"floor/{name}", name, Body(len(BODY), {"sha256": "0" * 64})))
        nothing.apply_async(args=[[[number, 0]]])

    ways = {
        "ours": lambda number: pair.save(f"{number}.bin", ContentFile(BODY)),
        FLOOR: floor,
        "FileSystemStorage.save (no fsync, nothing else)": lambda number: plain.save(
            f"{number}.bin", ContentFile(BODY)
        ),
        "0.8, remote 50 ms away": lambda number: old.save(f"{number}.bin", ContentFile(BODY)),
    }
    medians = side_by_side(ways, 40, {"0.8, remote 50 ms away": 5})
    goals = {
        FLOOR: "(goal <= 1.3)",
        "0.8, remote 50 ms away": "(<= 0.067)",
    }
    ratios = report("save() of 100 KB in the request", medians, "ours", goals)
    published = count_published(pair)
    print(f"  100 saves in one transaction: {published} publish, {statements(pair)} statements (100 INSERTs)")
    return ratios | {MESSAGES: published}


def count_published(pair: Any) -> int:
    """Return how many messages a hundred saves in one transaction send."""
    with app.connection_for_write() as broker:
        queue = broker.SimpleQueue(app.conf.task_default_queue)
        queue.clear()
        with transaction.atomic():
            for number in range(100):
                pair.save(f"together-{number}.bin", ContentFile(b"x"))
        found = int(queue.qsize())
        queue.close()
    return found


def statements(pair: Any) -> int:
    """Return how many statements a hundred saves in one transaction take, transaction control left out."""
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        for number in range(100):
            pair.save(f"counted-{number}.bin", ContentFile(b"x"))
    return sum(query["sql"].startswith(("INSERT", "SELECT", "UPDATE")) for query in queries)


def _transferred(pair: Any, folder: str, count: int) -> list[str]:
    """Return names of files that are on the remote, and of which the cache knows nothing."""
    names = [pair.save(f"{folder}/{number}.bin", ContentFile(BODY[:1000])) for number in range(count)]
    for name in names:
        with pair.local.open(name) as file:
            FileSystemStorage.save(pair.remote, name, file)
    moved = {"state": "transferred", "transferred_at": ledger.DatabaseNow(), "due_at": None}
    ledger.records().filter(name__in=names).update(**moved)
    return names


def measure_urls(pair: Any, old: Any) -> dict[str, float]:
    """Compare URLs: warm, cold, and a page of a hundred; return the ratios."""
    names = _transferred(pair, "page", 100)
    unseen = _transferred(pair, "cold", ROUNDS * COLD)
    keys = [locations.cache_key(pair, name) for name in names]
    cache = caches["default"]
    pair.locate(names)

    def floor(number: int) -> str:
        cache.get(keys[number % 100])
        return str(pair.remote.url(names[number % 100]))

    def cold(number: int) -> str:
        return str(pair.url(unseen[number]))

    def old_cold(number: int) -> None:
        old.side(f"nobody-{number}.bin")

    warm = side_by_side(
        {"ours": lambda number: pair.url(names[number % 100]), "floor: one cache get + url()": floor}, 300
    )
    ratios = report(
        "url() of a transferred file, warm cache (Redis)",
        warm,
        "ours",
        {"floor: one cache get + url()": "(goal <= 1.3)"},
    )
    before = pair.remote.calls
    chilly = side_by_side({"ours": cold, "0.8, remote 50 ms away": old_cold}, COLD, {"0.8, remote 50 ms away": 5})
    ratios |= report("url(), cold cache", chilly, "ours", {"0.8, remote 50 ms away": "(goal <= 0.02)"})

    def page(number: int) -> list[str]:
        pair.locate(names)
        return [pair.remote.url(name) for name in names]

    single = {"ours": page, "a hundred single url()": lambda number: [pair.url(name) for name in names]}
    ratios[CALLS] = pair.remote.calls - before
    goals = {"a hundred single url()": "(goal <= 0.1)"}
    return ratios | report("a page with 100 URLs, warm", side_by_side(single, 5), "ours", goals)


def measure_reads(pair: Any) -> None:
    """Compare size, exists and open, of a local file and of a remote one, with the storage's own."""
    (remote,) = _transferred(pair, "read", 1)
    sides = {"local": (pair.save("read.bin", ContentFile(BODY)), pair.local), "remote": (remote, pair.remote)}
    for side, (name, own) in sides.items():

        def read(storage: Any, name: str = name) -> bytes:
            with storage.open(name) as file:
                content: bytes = file.read()
            return content

        calls = {
            "open() and read": read,
            "size()": lambda storage, name=name: storage.size(name),
            "exists()": lambda storage, name=name: storage.exists(name),
        }
        for method, call in calls.items():
            ways = {
                "ours": lambda number, call=call: call(pair),
                f"the {side} storage": lambda number, call=call, own=own: call(own),
            }
            goals = {f"the {side} storage": "(goal <= 1.2)"}
            medians = side_by_side(ways, 200 if side == "local" else 5)
            report(f"{method} of a {side} file", medians, "ours", goals)


@contextmanager
def everything() -> Iterator[tuple[Any, Any]]:
    """Start what is needed; yield a queued storage and one that works as 0.8 did."""
    with ExitStack() as stack:
        server = stack.enter_context(redis.server())
        cache = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": server}}
        entry = {
            "BACKEND": "queued_storage.backends.QueuedStorage",
            "OPTIONS": {
                "local": "queued_storage.local.LocalStorage",
                "local_options": {"location": str(fresh("local")), "base_url": "/media/"},
                "remote": FAR,
                "remote_options": {"location": str(fresh("remote")), "base_url": "https://remote.example/"},
            },
        }
        settings = override_settings(
            CACHES=cache,
            STORAGES={"default": entry, "staticfiles": entry},
            # Others may keep Redis waiting; a pause after a time-out would be measured in its place.
            QUEUED_STORAGE_PUBLISH_TIMEOUT=30,
        )
        stack.enter_context(settings)
        stack.enter_context(brokers.used_by(app, brokers.Broker(server)))
        stack.enter_context(database())
        pair = storages["default"]
        old = CachedStateStorage(
            "django.core.files.storage.FileSystemStorage",
            FAR,
            {"location": str(fresh("old-local"))},
            {"location": str(fresh("old-remote"))},
            "benchmarks.request.nothing",
        )
        yield pair, old


def main() -> None:
    """Measure and print."""
    with everything() as (pair, old):
        print(f"{connection.vendor}, Redis; medians of rounds in turns; less than 1 means that ours is faster")
        measure_save(pair, old)
        measure_urls(pair, old)
        measure_reads(pair)
        idle = side_by_side({"a sweep with nothing due": lambda number: sweeping.sweep(lambda records: None)}, 20)
        report("sweep", idle, "a sweep with nothing due")


if __name__ == "__main__":
    # As a module with a name: tasks and storages are found by their paths.
    from benchmarks import request

    request.main()
