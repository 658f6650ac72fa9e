"""Faults of workers and of what the broker does with their messages, with real Celery processes."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import transaction

from queued_storage import sweeping, tasks
from queued_storage.exceptions import ErrorKind
from queued_storage.models import Outcome, State, TransferAttempt, TransferRecord
from tests.celeryapp import app
from tests.chaos.faults import children
from tests.conftest import Media
from tests.servers import brokers
from tests.servers.brokers import Broker
from tests.servers.processes import NotReadyError, Process, wait_until
from tests.servers.workers import Celery

pytestmark = [pytest.mark.django_db(transaction=True)]

BODY = os.urandom(2_000_000)


@pytest.fixture
def redis_broker(redis_server: str) -> Any:
    """A queue of this test on Redis, which gives messages to others after a second."""
    with brokers.used_by(app, Broker(redis_server, {"visibility_timeout": 1})) as broker:
        yield broker


class Gate:
    """A named pipe at which uploads stand still: those that are there, and for as long as it is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        # With a writer a reader waits in its read, not in its open, which a stopped process would begin anew.
        self._writer = os.open(path, os.O_RDWR)

    def wait_for(self, worker: Process) -> int:
        """Wait until a process of the worker stands here; return its id."""

        def standing() -> list[int]:
            return [child for child in children(worker.pid) if str(self.path) in _open_files(child)]

        return wait_until(standing, bound=60, what="an upload at the gate")[0]

    def let_others_pass(self) -> None:
        """Hold only those who stand here already."""
        self.path.unlink()

    def open(self) -> None:
        """Let everybody go on."""
        self.path.unlink(missing_ok=True)
        os.close(self._writer)


def _open_files(pid: int) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(link))
    return found


@pytest.fixture
def gate(media: Media, settings: Any) -> Gate:
    """Let uploads stand still."""
    gate = Gate(media.remote.parent / f"gate-{media.remote.name}")
    remote(settings, "tests.gated.GatedStorage", gate=str(gate.path))
    return gate


def remote(settings: Any, path: str, **options: Any) -> None:
    """Give the default storage another remote."""
    configured = settings.STORAGES["default"]["OPTIONS"]
    configured["remote"] = path
    configured["remote_options"] |= options
    settings.STORAGES = settings.STORAGES


def give_back_what_is_not_acknowledged() -> None:
    """Do what kombu does in every process on Redis now and then: what is older than its time-out goes to others."""

    def given_back() -> bool:
        with app.connection_for_read() as connection:
            channel = connection.default_channel
            channel.qos.restore_visible(num=10, interval=1)
            return not channel.client.zcard(channel.unacked_index_key)

    wait_until(given_back, bound=20, what="the time-out of the message")


def states() -> list[str]:
    """Return the states of all records, oldest first."""
    return list(TransferRecord.objects.order_by("pk").values_list("state", flat=True))


def outcomes(*wanted: str) -> bool:
    """Wait until all attempts have ended like this, oldest first; they are noted just after the state."""

    def ended() -> list[str]:
        return list(TransferAttempt.objects.order_by("pk").values_list("outcome", flat=True))

    with suppress(NotReadyError):
        return wait_until(lambda: ended() == [*wanted], bound=10, what=f"{wanted}")
    raise AssertionError(ended())


def sweep_until(wanted: list[str]) -> None:
    """Sweep, with messages, until the records are in these states."""

    def swept() -> bool:
        sweeping.sweep(tasks.send)
        return states() == wanted

    wait_until(swept, bound=60, what=f"{wanted}")


def test_a_stopped_worker_that_comes_back_changes_nothing(
    redis_broker: Broker, media: Media, gate: Gate, celery_processes: Celery, settings: Any
) -> None:
    """A worker stopped for longer than its lease finds its file done by another one, and touches nothing."""
    settings.QUEUED_STORAGE_LEASE = 5
    settings.QUEUED_STORAGE_RETRY_DELAY = 0.1
    # The parent of the stopped process goes on to take messages, which then lie there: others are sent.
    settings.QUEUED_STORAGE_RESEND_DELAY = 1
    zombie = celery_processes.worker(redis_broker, "--prefetch-multiplier", "1")
    name = storages["default"].save("big.bin", ContentFile(BODY))
    child = gate.wait_for(zombie)
    os.kill(child, signal.SIGSTOP)
    gate.let_others_pass()
    celery_processes.worker(redis_broker)
    sweep_until([State.TRANSFERRED])
    row = TransferRecord.objects.values().get()
    os.kill(child, signal.SIGCONT)
    gate.open()
    zombie.wait_for_output("The lease was lost; nothing was touched", bound=30)
    assert TransferRecord.objects.values().get() == row
    assert outcomes(Outcome.LOST, Outcome.TRANSFERRED)
    assert (media.local / name).read_bytes() == (media.remote / name).read_bytes() == BODY
    # Django's own storage, the remote here, leaves an empty file behind where its source breaks off.
    assert [path.name for path in media.remote.iterdir() if path.stat().st_size] == ["big.bin"]


def test_a_message_delivered_again(redis_broker: Broker, media: Media, gate: Gate, celery_processes: Celery) -> None:
    """A message that waits in one worker until Redis gives it to a second one makes one upload, not two."""
    first = celery_processes.worker(redis_broker, "--prefetch-multiplier", "1")
    storages["default"].save("long.bin", ContentFile(BODY))
    gate.wait_for(first)
    gate.let_others_pass()
    storages["default"].save("behind.bin", ContentFile(BODY))
    wait_until(lambda: first.output().count(" received") == 2, bound=60, what="the message behind the upload")
    second = celery_processes.worker(redis_broker)
    give_back_what_is_not_acknowledged()
    second.wait_for_output(r"Transfer\[.* succeeded", bound=60)
    assert states() == [State.TRANSFERRING, State.TRANSFERRED]
    gate.open()
    wait_until(lambda: first.output().count(" succeeded") == 2, bound=60, what="the same message in the first worker")
    assert states() == [State.TRANSFERRED] * 2
    assert outcomes(*[Outcome.TRANSFERRED] * 2)
    assert sorted(path.name for path in media.remote.iterdir()) == ["behind.bin", "long.bin"]


def test_a_file_that_kills_its_worker_is_put_aside(
    redis_broker: Broker, media: Media, celery_processes: Celery, settings: Any
) -> None:
    """A file whose upload kills the process each time fails after three workers, says why, and stops no other."""
    remote(settings, "tests.killing.KillingStorage")
    settings.QUEUED_STORAGE_LEASE = 4
    settings.QUEUED_STORAGE_RETRY_DELAY = 0.1
    celery_processes.worker(redis_broker, concurrency=2)
    storages["default"].save("poison.bin", ContentFile(b"poison"))
    for number in range(3):
        storages["default"].save(f"good{number}.bin", ContentFile(b"good"))
    sweep_until([State.FAILED, *[State.TRANSFERRED] * 3])
    poison = TransferRecord.objects.get(name="poison.bin")
    assert (poison.error_kind, poison.retries, poison.local_copy) == (ErrorKind.LOST, 3, True)
    assert "did not renew its lease: killed, or stuck" in poison.error
    assert [*TransferAttempt.objects.filter(record=poison).values_list("outcome", flat=True)] == [Outcome.LOST] * 3
    with storages["default"].open("poison.bin") as file:
        assert file.read() == b"poison"


@pytest.mark.parametrize("loss", ["flushed", "taken"])
def test_messages_that_redis_loses(
    loss: str, redis_broker: Broker, redis_server: str, media: Media, celery_processes: Celery, settings: Any
) -> None:
    """Messages lost in a FLUSHALL, or by a worker that dies between taking and noting one, are sent again."""
    import redis

    settings.QUEUED_STORAGE_RESEND_DELAY = 1
    with transaction.atomic():
        for number in range(3):
            storages["default"].save(f"{number}.txt", ContentFile(b"x"))
    server = redis.Redis.from_url(redis_server)
    assert server.llen(redis_broker.queue) == 1
    if loss == "flushed":
        server.flushall()
    else:
        server.rpop(redis_broker.queue)
    assert server.llen(redis_broker.queue) == 0
    celery_processes.worker(redis_broker)
    assert states() == [State.QUEUED] * 3
    sweep_until([State.TRANSFERRED] * 3)


@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_another_pool(pool: str, redis_broker: Broker, media: Media, celery_processes: Celery) -> None:
    """A worker with another pool than processes brings the files home, each once."""
    celery_processes.worker(redis_broker, pool=pool, concurrency=4)
    with transaction.atomic():
        for number in range(20):
            storages["default"].save(f"{number}.bin", ContentFile(os.urandom(50_000)))
    for number in range(20):
        storages["default"].save(f"single{number}.bin", ContentFile(os.urandom(50_000)))
    wait_until(lambda: states() == [State.TRANSFERRED] * 40, bound=60, what="the transfers")
    assert outcomes(*[Outcome.TRANSFERRED] * 40)


def test_a_warm_shutdown_in_mid_upload(
    redis_broker: Broker, media: Media, gate: Gate, celery_processes: Celery
) -> None:
    """A worker told to stop in the middle of an upload finishes that upload before it ends."""
    worker = celery_processes.worker(redis_broker)
    name = storages["default"].save("big.bin", ContentFile(BODY))
    gate.wait_for(worker)
    worker.send(signal.SIGTERM)
    worker.wait_for_output("Warm shutdown", bound=30)
    assert worker.alive
    gate.open()
    wait_until(lambda: not worker.alive, bound=30, what="the end of the worker")
    assert states() == [State.TRANSFERRED]
    assert outcomes(Outcome.TRANSFERRED)
    assert (media.remote / name).read_bytes() == BODY
