"""The whole way through real Celery processes, on each broker."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import transaction

from queued_storage import ledger, sweeping, tasks
from queued_storage.conf import BEAT_SCHEDULE
from queued_storage.models import Outcome, State, TransferAttempt, TransferRecord
from tests.conftest import Media
from tests.servers.brokers import Broker
from tests.servers.processes import wait_until
from tests.servers.workers import Celery

pytestmark = [pytest.mark.django_db(transaction=True)]


def states() -> list[str]:
    """Return the states of all records, oldest first."""
    return list(TransferRecord.objects.order_by("pk").values_list("state", flat=True))


def test_a_saved_file_arrives(broker: Broker, media: Media, celery_processes: Celery) -> None:
    """A file saved in this process is verified on the remote by a worker of its own, without a sweep."""
    celery_processes.worker(broker)
    storage = storages["default"]
    body = os.urandom(3_000_000)
    name = storage.save("reports/a b.bin", ContentFile(body))
    wait_until(lambda: states() == [State.TRANSFERRED], bound=60, what="the transfer")
    assert storage.using_remote(name)
    assert (media.remote / name).read_bytes() == body
    with storage.open(name) as file:
        assert file.read() == body


def test_beat_brings_home_what_nobody_was_told_of(
    broker: Broker, media: Media, celery_processes: Celery, settings: Any
) -> None:
    """A file whose message was lost arrives by the sweep that beat runs."""
    settings.CELERY_BEAT_SCHEDULE = {name: {**entry, "schedule": 0.5} for name, entry in BEAT_SCHEDULE.items()}
    with transaction.atomic():
        storages["default"].save("lost.txt", ContentFile(b"x"))
        transaction.get_connection().run_on_commit.clear()
    TransferRecord.objects.update(due_at=ledger.DatabaseNow())
    celery_processes.worker(broker)
    celery_processes.beat(broker)
    wait_until(lambda: states() == [State.TRANSFERRED], bound=60, what="the sweep and the transfer")


def test_a_killed_worker_costs_time_and_nothing_else(
    broker: Broker, media: Media, celery_processes: Celery, settings: Any
) -> None:
    """A worker killed with the file in its hand loses its lease; another one brings the file home."""
    settings.QUEUED_STORAGE_LEASE = 5
    settings.QUEUED_STORAGE_RETRY_DELAY = 0.1
    gate = media.remote.parent / "gate"
    os.mkfifo(gate)
    settings.STORAGES["default"]["OPTIONS"]["remote"] = "tests.gated.GatedStorage"
    settings.STORAGES["default"]["OPTIONS"]["remote_options"]["gate"] = str(gate)
    settings.STORAGES = settings.STORAGES
    worker = celery_processes.worker(broker)
    body = os.urandom(2_000_000)
    name = storages["default"].save("big.bin", ContentFile(body))
    wait_until(lambda: states() == [State.TRANSFERRING], bound=60, what="the claim")
    worker.kill()
    assert states() == [State.TRANSFERRING]
    gate.unlink()
    celery_processes.worker(broker)

    def swept() -> bool:
        sweeping.sweep(tasks.send)
        return states() == [State.TRANSFERRED]

    wait_until(swept, bound=60, what="the rescue")
    assert hashlib.sha256((media.remote / name).read_bytes()).digest() == hashlib.sha256(body).digest()
    # The history is written after the completion.
    outcomes = TransferAttempt.objects.order_by("pk").values_list("outcome", flat=True)
    wait_until(lambda: list(outcomes.all()) == [Outcome.LOST, Outcome.TRANSFERRED], bound=30, what="the history")


def test_a_hundred_copies_of_one_message_are_one_transfer(
    broker: Broker, media: Media, celery_processes: Celery
) -> None:
    """The same message a hundred times at once is one attempt and one file."""
    with transaction.atomic():
        storages["default"].save("once.txt", ContentFile(b"once"))
        transaction.get_connection().run_on_commit.clear()
    record = TransferRecord.objects.get()
    for _ in range(100):
        tasks.send([record])
    celery_processes.worker(broker, concurrency=4)
    wait_until(lambda: states() == [State.TRANSFERRED], bound=60, what="the transfer")
    storages["default"].save("after.txt", ContentFile(b"after"))
    wait_until(lambda: states() == [State.TRANSFERRED] * 2, bound=60, what="a later file")
    assert TransferAttempt.objects.filter(record=record).count() == 1
    assert sorted(path.name for path in Path(media.remote).iterdir()) == ["after.txt", "once.txt"]


def test_a_warm_shutdown_finishes_the_file(broker: Broker, media: Media, celery_processes: Celery) -> None:
    """A worker told to stop finishes what it has in hand."""
    worker = celery_processes.worker(broker)
    storages["default"].save("last.bin", ContentFile(os.urandom(5_000_000)))
    wait_until(lambda: states() != [State.QUEUED], bound=60, what="the claim")
    worker.stop()
    assert states() == [State.TRANSFERRED]
