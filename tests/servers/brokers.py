"""The brokers that the worker tests run on: Redis, RabbitMQ, and files in a folder."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from kombu import pools

from .roots import fresh

KINDS = ("redis", "rabbitmq", "filesystem")


@dataclass(frozen=True)
class Broker:
    """A broker's address, and a queue that no other test uses."""

    url: str
    options: dict[str, Any] = field(default_factory=dict)
    queue: str = field(default_factory=lambda: f"queued-storage-{uuid.uuid4().hex[:12]}")

    def environment(self) -> dict[str, str]:
        """Return what ``tests.settings`` reads in a child process."""
        return {"TEST_BROKER": self.url, "TEST_BROKER_OPTIONS": json.dumps(self.options), "TEST_QUEUE": self.queue}


def filesystem() -> Broker:
    """Return a broker that keeps its messages in a new folder; it needs no server."""
    folder = fresh("broker")
    for name in ("messages", "control"):
        (folder / name).mkdir()
    messages = str(folder / "messages")
    options = {"data_folder_in": messages, "data_folder_out": messages, "control_folder": str(folder / "control")}
    return Broker("filesystem://", options)


@contextmanager
def used_by(app: Celery, broker: Broker) -> Iterator[Broker]:
    """Let this process publish to the broker while the block runs."""
    wanted = {
        "broker_url": broker.url,
        "broker_transport_options": broker.options,
        "task_default_queue": broker.queue,
    }
    try:
        with changed(app, **wanted):
            _forget_connections(app)
            yield broker
    finally:
        _forget_connections(app)


@contextmanager
def changed(app: Any, **configuration: Any) -> Iterator[None]:
    """Change an app's configuration while the block runs, and leave nothing of it, or of later changes, behind."""
    # Loads the configuration: before that there is nothing to change.
    _ = app.conf.broker_url
    changes = app.conf.maps[0]
    before = dict(changes)
    configure(app, **configuration)
    try:
        yield
    finally:
        changes.clear()
        changes.update(before)


def configure(app: Any, **configuration: Any) -> None:
    """Change an app's configuration, under its namespace as well: Celery 5.5 looks there alone."""
    app.conf.update(configuration | {f"CELERY_{name.upper()}": value for name, value in configuration.items()})


def _forget_connections(app: Any) -> None:
    # Celery keeps connections, producers and routes of the former broker; its hook for forked children drops them.
    # A broker whose address makes no sense has no connection to close.
    with suppress(KeyError):
        app.pool.force_close_all()
    # kombu would hand the closed pool out again.
    pools.reset()
    app._after_fork()
    app.__dict__.pop("amqp", None)
