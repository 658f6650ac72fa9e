"""The whole way to every remote: saved in this process, moved by a real Celery worker, evicted, and read back.

What the remotes are stands in ``tests/remotes/places.py``; a new one needs an entry there.
"""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages

from queued_storage import sweeping, tasks
from queued_storage.models import Outcome, State, TransferRecord
from tests.fixtures import attempts, facts, make_due, moved, read, record_of
from tests.remotes.conftest import Served
from tests.remotes.contract import MB
from tests.remotes.material import upload
from tests.servers.brokers import Broker
from tests.servers.processes import wait_until
from tests.servers.roots import fresh
from tests.servers.workers import Celery

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

SIZE = 10 * MB


@pytest.fixture
def wanted() -> str:
    """A name that no other test uses."""
    return f"{uuid.uuid4().hex}/a b 100%.bin"


@pytest.fixture
def body() -> bytes:
    """Bytes of which no block is like another; more than one block on every remote."""
    return bytes(upload(SIZE).read())


def states() -> list[str]:
    """Return the states of all records, oldest first."""
    return list(TransferRecord.objects.order_by("pk").values_list("state", flat=True))


def test_a_file_arrives_and_comes_back(
    served: Served, settings: Any, filesystem_broker: Broker, celery_processes: Celery, wanted: str, body: bytes
) -> None:
    """A file is verified on the remote by a worker of its own, its local copy evicted, and its bytes are the same."""
    settings.STORAGES = settings.STORAGES | {"default": served.entry(keep_local=False)}
    celery_processes.worker(filesystem_broker, settings=served.settings)
    storage = storages["default"]
    name = storage.save(wanted, ContentFile(body))
    record = record_of(storage, name)
    wait_until(lambda: facts(record)["local_copy"] is False, bound=100, what="transfer and eviction")
    assert facts(record, body) == moved(name, body, local_copy=False, content_type="application/octet-stream")
    wait_until(lambda: attempts(record) == [(Outcome.TRANSFERRED, "", SIZE)], bound=10, what="the attempt")
    assert not storage.local.exists(name)
    assert storage.using_remote(name)
    assert read(storage, name) == body
    storage.delete(name)
    wait_until(lambda: served.stat(name) is None, bound=60, what="the removal")
    assert not storage.exists(name)


def test_a_worker_killed_in_mid_upload(
    served: Served, settings: Any, filesystem_broker: Broker, celery_processes: Celery, wanted: str, body: bytes
) -> None:
    """A worker killed with most of the bytes sent shows nobody half a file; another one brings it home."""
    settings.QUEUED_STORAGE_RETRY_DELAY = 0.1
    entry = served.entry(local="tests.remotes.pausing.PausingStorage")
    marker = fresh("pausing") / "marker"
    entry["OPTIONS"]["local_options"]["marker"] = str(marker)
    settings.STORAGES = settings.STORAGES | {"default": entry}
    worker = celery_processes.worker(filesystem_broker, settings=served.settings)
    storage = storages["default"]
    name = storage.save(wanted, ContentFile(body))
    wait_until(marker.exists, bound=60, what="most of the upload")
    assert states() == [State.TRANSFERRING]
    worker.kill()
    record = record_of(storage, name)
    make_due(record)
    assert served.stat(name) is None
    assert storage.using_local(name)
    celery_processes.worker(filesystem_broker, settings=served.settings)

    def swept() -> bool:
        sweeping.sweep(tasks.send)
        return states() == [State.TRANSFERRED]

    wait_until(swept, bound=100, what="the rescue")
    # The worker writes its last line after the state that everybody waits for.
    wait_until(lambda: len(attempts(record)) == 2, bound=10, what="the attempt")
    assert [row[:2] for row in attempts(record)] == [(Outcome.LOST, "lost"), (Outcome.TRANSFERRED, "")]
    expected = moved(name, body, content_type="application/octet-stream", retries=2)
    assert facts(record, body) == expected
    assert read(storage.remote, name) == body
