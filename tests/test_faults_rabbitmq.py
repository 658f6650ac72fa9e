"""Faults of RabbitMQ itself, on a node of our own: alarms, time-outs of consumers, and a server that forgets all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages

from queued_storage import ledger
from queued_storage.models import Outcome, State
from tests.celeryapp import app
from tests.conftest import Media, serve
from tests.servers import brokers, rabbitmq_node
from tests.servers.brokers import Broker
from tests.servers.processes import wait_until
from tests.servers.rabbitmq_node import Node
from tests.servers.workers import Celery
from tests.test_faults_workers import BODY, Gate, gate as gate, outcomes, states, sweep_until

# The first test waits for the start of the node.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A RabbitMQ that nobody else uses."""
    yield from serve(rabbitmq_node.server)


@pytest.fixture
def broker(node: Node) -> Iterator[Broker]:
    """A queue of this test on it."""
    with brokers.used_by(app, Broker(node.url)) as broker:
        yield broker


def test_an_alarm(node: Node, broker: Broker, media: Media, celery_processes: Celery, settings: Any) -> None:
    """While RabbitMQ takes no messages a save costs a second once; when it does again, the sweep sends them."""
    settings.QUEUED_STORAGE_PUBLISH_PAUSE = 10
    node.control("set_vm_memory_high_watermark", "0.0000001")
    try:
        seconds = []
        for number in range(3):
            began = time.monotonic()
            storages["default"].save(f"{number}.txt", ContentFile(b"x"))
            seconds.append(time.monotonic() - began)
    finally:
        node.control("set_vm_memory_high_watermark", "0.4")
    assert 0.9 < seconds[0] < 2
    assert max(seconds[1:]) < 0.9
    assert states() == [State.QUEUED] * 3
    settings.QUEUED_STORAGE_PUBLISH_PAUSE = 0.1
    settings.QUEUED_STORAGE_RESEND_DELAY = 1
    celery_processes.worker(broker)
    ledger.records().update(due_at=ledger.DatabaseNow())
    sweep_until([State.TRANSFERRED] * 3)
    assert outcomes(*[Outcome.TRANSFERRED] * 3)


def test_a_consumer_that_takes_too_long(
    node: Node, broker: Broker, media: Media, gate: Gate, celery_processes: Celery, settings: Any
) -> None:
    """When RabbitMQ shuts out a worker that is long at one file, Celery ends it; this file and the next arrive once."""
    settings.QUEUED_STORAGE_RESEND_DELAY = 1
    node.control("eval", "application:set_env(rabbit, consumer_timeout, 1000).")
    node.control("eval", "application:set_env(rabbit, channel_tick_interval, 500).")
    worker = celery_processes.worker(broker)
    storages["default"].save("long.bin", ContentFile(BODY))
    gate.wait_for(worker)
    gate.let_others_pass()
    # Its message is taken by the same worker, and waits there unacknowledged.
    storages["default"].save("behind.bin", ContentFile(BODY))
    worker.wait_for_output("delivery acknowledgement on channel .* timed out", bound=60)
    node.control("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
    gate.open()
    wait_until(lambda: not worker.alive, bound=60, what="the end of the worker")
    celery_processes.worker(broker)
    sweep_until([State.TRANSFERRED] * 2)
    assert outcomes(*[Outcome.TRANSFERRED] * 2)
    assert sorted(path.name for path in media.remote.iterdir()) == ["behind.bin", "long.bin"]


def test_a_server_that_forgets_all(
    node: Node, broker: Broker, media: Media, celery_processes: Celery, settings: Any
) -> None:
    """Queues and messages that are gone after a restart are made and sent again, and running workers go on."""
    settings.QUEUED_STORAGE_RESEND_DELAY = 1
    settings.QUEUED_STORAGE_PUBLISH_PAUSE = 0.1
    for number in range(3):
        storages["default"].save(f"{number}.txt", ContentFile(b"x"))
    # Two workers of one name would fight for its queue of commands.
    worker = celery_processes.worker(broker, "--hostname", "celery@first")
    wait_until(lambda: states() == [State.TRANSFERRED] * 3, bound=60, what="the transfers before")
    for command in ("stop_app", "reset"):
        node.control(command)
    storages["default"].save("meanwhile.txt", ContentFile(b"x"))
    assert states() == [*[State.TRANSFERRED] * 3, State.QUEUED]
    node.control("start_app")
    sweep_until([State.TRANSFERRED] * 4)
    assert worker.alive
