"""Two hosts without a shared disk: two folders, two workers of Celery's with a queue each, one broker, one sweep."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import transaction

from queued_storage import ledger, sweeping, tasks
from queued_storage.exceptions import TemporarilyUnavailableError
from queued_storage.models import State, TransferAttempt, TransferRecord
from tests.conftest import Media
from tests.fixtures import committing, read
from tests.servers import brokers
from tests.servers.brokers import Broker
from tests.servers.processes import wait_until
from tests.servers.roots import fresh
from tests.servers.workers import Celery

pytest_plugins = ["tests.fixtures"]
pytestmark = [committing, pytest.mark.timeout(300)]
HOSTS = ("one", "two")
# Files that share a transaction, and so a message.
TOGETHER = 50


class Hosts:
    """Two hosts: this process is one of them at a time, and each has a worker when it is told to."""

    def __init__(self, settings: Any, media: Media, celery: Celery, broker: Broker) -> None:
        self.settings, self.media, self.celery, self.broker = settings, media, celery, broker
        self.disks = {node: fresh(f"disk-{node}") for node in HOSTS}
        self.queue = f"files-{uuid.uuid4().hex[:12]}-{{node}}"
        self.settings.QUEUED_STORAGE_QUEUE = self.queue
        self.bodies: dict[str, bytes] = {}
        self.homes: dict[str, str] = {}

    def become(self, node: str) -> Any:
        """Go on as ``node`` and return its storage."""
        for name, value in self._settings(node).items():
            setattr(self.settings, name, value)
        return storages["default"]

    def _settings(self, node: str) -> dict[str, Any]:
        configured = deepcopy(self.settings.STORAGES)
        configured["default"]["OPTIONS"]["local_options"]["location"] = str(self.disks[node])
        return {"STORAGES": configured, "QUEUED_STORAGE_NODE": node}

    def worker(self, node: str, *listening: str) -> None:
        """Start a worker on ``node`` that listens to the queues of these hosts, its own by default."""
        queues = [self.queue.replace("{node}", name) for name in listening or [node]]
        self.celery.worker(self.broker, "--queues", ",".join(queues), settings=self._settings(node))

    def save(self, count: int) -> None:
        """Save files, on either host in turn; each has a body of its own."""
        for start in range(0, count, TOGETHER):
            node = HOSTS[start // TOGETHER % 2]
            storage = self.become(node)
            with transaction.atomic():
                for number in range(start, start + TOGETHER):
                    body = f"{node} {number} {uuid.uuid4()}".encode()
                    name = storage.save(f"{number % 7}/{number}.txt", ContentFile(body))
                    self.bodies[name], self.homes[name] = body, node

    def decoys(self) -> None:
        """Leave other bytes under some names of each host's files on the disk of the other one."""
        for name, node in list(self.homes.items())[::7]:
            place = self.disks[HOSTS[1 - HOSTS.index(node)]] / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"other bytes")

    def read_elsewhere(self, every: int) -> Counter[str]:
        """Read files on the host that does not have them; return how many were read, and how many could not be."""
        counts: Counter[str] = Counter()
        for node in HOSTS:
            storage = self.become(node)
            for name in [name for name, home in self.homes.items() if home != node][::every]:
                try:
                    assert read(storage, name) == self.bodies[name]
                    counts["read"] += 1
                except TemporarilyUnavailableError as error:
                    counts[
                        "later" if f"lies on the disk of {self.homes[name]} until" in str(error) else str(error)
                    ] += 1
        return counts


@pytest.fixture
def hosts(settings: Any, media: Media, celery_processes: Celery, redis_server: str) -> Iterator[Hosts]:
    """Two hosts that share a Redis, a database and a remote."""
    settings.STORAGES["default"]["OPTIONS"]["remote_options"]["location"] = str(media.remote)
    with brokers.used_by(celery_app(), Broker(redis_server)) as broker:
        yield Hosts(settings, media, celery_processes, broker)


def celery_app() -> Any:
    """Return the app of the tests."""
    from tests.celeryapp import app

    return app


def files(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.txt")}


def arrived() -> bool:
    """Tell whether everything is on the remote."""
    return not TransferRecord.objects.exclude(state=State.TRANSFERRED).exists()


def assert_all_well(hosts: Hosts) -> None:
    """Every file is on the remote, by one attempt of a worker of its own host."""
    assert files(hosts.media.remote) == hosts.bodies
    rows = TransferRecord.objects.values_list("name", "node", "state", "retries", "error_kind")
    assert set(rows) == {(name, node, "transferred", 1, "") for name, node in hosts.homes.items()}
    # The history of a file that went alone is written after its completion.
    wait_until(lambda: TransferAttempt.objects.count() >= len(hosts.homes), bound=30, what="the history")
    attempts = TransferAttempt.objects.values_list("outcome", "record__node", "worker")
    assert {outcome for outcome, _, _ in attempts} == {"transferred"}
    assert len(attempts) == len(hosts.homes)
    workers = {node: {worker for _, its, worker in attempts if its == node} for node in HOSTS}
    assert [len(found) for found in workers.values()] == [1, 1]
    assert not workers["one"] & workers["two"]


def test_a_thousand_files_of_two_hosts(hosts: Hosts, figure: Callable[[str], None]) -> None:
    """A thousand files, half on each host, arrive by one attempt each; readers elsewhere are never told wrong bytes."""
    hosts.save(1000)
    for node, folder in hosts.disks.items():
        assert files(folder) == {name: body for name, body in hosts.bodies.items() if hosts.homes[name] == node}
    hosts.decoys()
    assert hosts.read_elsewhere(every=50) == {"later": 20}
    hosts.worker("one")
    wait_until(lambda: TransferRecord.objects.filter(state=State.TRANSFERRED).count() == 500, bound=100, what="half")
    # Nobody has touched what lies on the other host.
    assert set(TransferRecord.objects.values_list("node", "state", "retries")) == {
        ("one", "transferred", 1),
        ("two", "queued", 0),
    }
    hosts.worker("two")
    counts = hosts.read_elsewhere(every=10)
    wait_until(arrived, bound=100, what="all of them")
    assert set(counts) <= {"read", "later"}
    assert_all_well(hosts)
    assert hosts.read_elsewhere(every=10) == {"read": 100}
    figure(f"read elsewhere while files arrived: {dict(counts)}")


def test_messages_at_the_wrong_host(hosts: Hosts, figure: Callable[[str], None]) -> None:
    """With workers that listen to the queues of both hosts each file still goes by one attempt, at its own host."""
    hosts.save(200)
    hosts.decoys()
    for node in HOSTS:
        hosts.worker(node, *HOSTS)
    sweeps, counts = 0, Counter[str]()

    def swept() -> bool:
        nonlocal sweeps
        # The sweep of a third host, which has no disk of its own.
        hosts.settings.QUEUED_STORAGE_NODE = "three"
        TransferRecord.objects.filter(state=State.QUEUED).update(due_at=ledger.DatabaseNow())
        sweeping.sweep(tasks.send)
        sweeps += 1
        counts.update(hosts.read_elsewhere(every=29))
        return arrived()

    wait_until(swept, bound=100, what="all of them")
    assert set(counts) <= {"read", "later"}
    assert_all_well(hosts)
    figure(f"{sweeps} sweeps; read elsewhere meanwhile: {dict(counts)}")
