"""Send messages without ever making a request wait for the broker, or fail because of it.

A message is a hint: what is not sent, or lost on the way, is sent again by the sweep.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from celery import Celery, Task, current_app
from celery.utils import uuid
from django.db import connections, transaction
from kombu import Producer
from kombu.pools import ProducerPool

from queued_storage import ledger, locations, nodes
from queued_storage.breaker import Breaker
from queued_storage.conf import settings
from queued_storage.models import State, TransferRecord
from queued_storage.names import escape
from queued_storage.pairs import StoragePair
from queued_storage.redaction import without_secrets

if TYPE_CHECKING:
    AnyTask = Task[Any, Any]
else:
    AnyTask = Task

logger = logging.getLogger("queued_storage")

# The task that does what is owed where the task of the storage is not asked.
LOOK = "queued_storage.tasks.look"
# Records in one message: bounds what a worker does between two acknowledgements.
PER_MESSAGE = 100
# Broker connections a process may open for publishing.
CONNECTIONS = 10

# Storage, record, and the id that the message is to have, if any.
Entry = tuple[StoragePair, TransferRecord, "str | None"]

# A connection is of no use in a forked child, nor a pause to another broker.
Broker = tuple[int, int, str]
_pools: dict[Broker, ProducerPool] = {}
_breakers: dict[Broker, Breaker] = {}


def publish(
    task: AnyTask,
    records: Sequence[tuple[int, int]],
    queue: str | None = None,
    task_id: str | None = None,
    hops: int = 0,
) -> Any:
    """Send one message that asks a worker to look at ``records`` (id and count of retries each).

    ``hops`` tells how often it was sent on from one host to another. Returns the task's result, or ``None`` if the
    broker did not take the message within QUEUED_STORAGE_PUBLISH_TIMEOUT, or has failed so lately that it was not
    asked. Never raises.
    """
    kwargs: dict[str, Any] = {"records": [list(pair) for pair in records]}
    options: dict[str, Any] = {"task_id": task_id, "kwargs": kwargs | ({"hops": hops} if hops else {})}
    if queue:
        options["queue"] = queue
    # Older than this, the sweep has sent another one.
    expires = settings.QUEUED_STORAGE_RESEND_CAP.total_seconds()
    return _send(task, expires=expires, ignore_result=True, serializer="json", **options)


def delay(storage: StoragePair, record: TransferRecord) -> Any:
    """Call a task that does not take records with the six documented arguments, as ``publish`` does; never raises.

    The queue is for tasks of Celery; what else has a ``delay`` knows its own way.
    """
    task, args, queue = storage.task, task_arguments(storage, record), nodes.queue_of(storage, record)
    if isinstance(task, Task):
        return _send(task, args=args, **({"queue": queue} if queue else {}))
    try:
        return task.delay(*args)
    except Exception:
        logger.exception("The task of a storage could not be called; the sweep will try again")
        return None


def _send(task: AnyTask, **options: Any) -> Any:
    broker = _broker(task.app)
    breaker = _breakers.setdefault(broker, Breaker(lambda: settings.QUEUED_STORAGE_PUBLISH_PAUSE))
    eager = task.app.conf.task_always_eager
    try:
        if eager:
            # Not by apply_async(), which takes a connection to the broker all the same.
            return task.apply(**options)
        if not breaker.allows():
            return None
        with _producer(task.app, broker) as producer:
            result = task.apply_async(**options, producer=producer, retry=False)
        breaker.succeeded()
        return result
    except Exception as error:
        # What an eager task raises says nothing about the broker.
        if not eager:
            breaker.failed()
            _drop_pool(broker)
        logger.warning("Could not publish; the sweep will", extra={"error": f"{type(error).__name__}: {escape(error)}"})
        return None


def _broker(app: Any) -> Broker:
    address = app.conf.broker_write_url or app.conf.broker_url
    return os.getpid(), id(app), f"{address} {app.conf.broker_transport_options}"


@contextlib.contextmanager
def _producer(app: Celery, broker: Broker) -> Iterator[Producer]:
    if broker not in _pools:
        _pools[broker] = ProducerPool(_connection(app).Pool(CONNECTIONS), limit=CONNECTIONS)
    timeout = settings.QUEUED_STORAGE_PUBLISH_TIMEOUT.total_seconds()
    producer = _pools[broker].acquire(block=True, timeout=timeout)
    try:
        yield producer
    except BaseException:
        # An orderly end would wait for the broker's answer, once for the channel and once for the connection.
        with contextlib.suppress(Exception):
            connection: Any = producer.connection
            connection.collect()
        raise
    producer.release()


def _connection(app: Celery) -> Any:
    # Celery's own connections wait for a silent broker for as long as it likes, whatever the retry policy says.
    timeout = settings.QUEUED_STORAGE_PUBLISH_TIMEOUT.total_seconds()
    options = {
        "redis": {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry_on_timeout": False},
        # Without confirms RabbitMQ drops messages silently while its memory or disk alarm is on.
        "amqp": {"read_timeout": timeout, "write_timeout": timeout, "confirm_publish": True},
    }
    driver = app.connection_for_write().transport.driver_type
    # kombu would pause before it gives up on a broker that refuses.
    at_once = {"max_retries": 0, "interval_start": 0, "interval_step": 0}
    transport_options = {**at_once, **options.get(driver, {})}
    return app.connection_for_write(connect_timeout=timeout, transport_options=transport_options)


def _drop_pool(broker: Broker) -> None:
    pool = _pools.pop(broker, None)
    if pool is not None:
        with contextlib.suppress(Exception):
            pool.force_close_all()  # type: ignore[attr-defined]


def task_arguments(storage: StoragePair, record: TransferRecord) -> tuple[Any, ...]:
    """Return the six documented arguments, for tasks that do not take records; no secret is among them."""
    options = [
        without_secrets({} if storage.named else side) for side in (storage.local_options, storage.remote_options)
    ]
    return (
        record.local_name,
        locations.cache_key(storage, record.name),
        storage.local_path,
        storage.remote_path,
        *options,
    )


class Publication:
    """One record's message, sent after the commit of its transaction, together with those of the records after it.

    Django drops the callbacks of a savepoint that is rolled back. What was dropped is collected at once, so that a
    weak reference tells whether a later callback is still to come, which then sends for both.
    """

    def __init__(self, entry: Entry) -> None:
        self.entries = [entry]
        self.next: Callable[[], Publication | None] = lambda: None

    def __call__(self) -> Any:
        """Hand over to the next one, or send; an error is logged and never reaches the caller, whose commit is done."""
        following = self.next()
        if following is not None:
            following.entries[:0] = self.entries
            return None
        try:
            return send(self.entries)
        except Exception:
            logger.exception("Could not publish; the sweep will")
            return None


def after_commit(storage: StoragePair, record: TransferRecord) -> Any:
    """Send a message for ``record`` once the current transaction commits; several files share one message.

    Returns the task's result: of the message, sent or still to be sent, or ``None`` if it could not be sent.
    """
    connection, task_id = connections[ledger.using()], uuid()
    publication = Publication((storage, record, task_id))
    if not connection.in_atomic_block:
        return publication()
    earlier: list[weakref.ref[Publication]] = connection.__dict__.setdefault("queued_storage_publications", [])
    while earlier and earlier[-1]() is None:
        earlier.pop()
    if earlier and (before := earlier[-1]()):
        before.next = weakref.ref(publication)
    earlier.append(weakref.ref(publication))
    transaction.on_commit(publication, using=ledger.using())
    return storage.task.AsyncResult(task_id) if isinstance(storage.task, Task) else None


def send(entries: Iterable[Entry], confirm: bool = False, hops: int = 0) -> Any:
    """Send messages for ``entries`` (storage, record, id of the message) now; return the result of the last one.

    Each goes to the queue of its storage, and where the name of that says so, of the host that has the file.

    A task that does not take records is called with the six documented arguments where a transfer is owed; what else
    is owed, and with ``confirm`` the look whether a task of somebody else's has done its work, is for a task of ours.
    """
    groups: dict[tuple[Any, str | None], list[Entry]] = {}
    result = None
    for storage, record, task_id in entries:
        task, queue = storage.task, nodes.queue_of(storage, record)
        if not getattr(task, "takes_records", False):
            owed = record.state not in (State.TRANSFERRED, State.DELETED)
            if owed and (hasattr(task, "transfer") or not confirm):
                result = delay(storage, record)
                continue
            task = current_app.tasks[LOOK]
        groups.setdefault((task, queue), []).append((storage, record, task_id))
    for (task, queue), group in groups.items():
        for start in range(0, len(group), PER_MESSAGE):
            chunk = group[start : start + PER_MESSAGE]
            pairs = [(record.pk, record.retries) for _, record, _ in chunk]
            result = publish(task, pairs, queue, chunk[0][2], hops)
    return result
