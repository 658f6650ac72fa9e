"""The broker refuses, or is silent: no request waits for it, nothing is lost, and the sweep sends later."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import shared_task
from django.core.files.base import ContentFile
from django.db import transaction

from queued_storage import ledger, sweeping, tasks
from tests.celeryapp import app
from tests.fixtures import (
    MakePair,
    Pair,
    Threads,
    committing,
    facts,
    finish,
    make_due,
    moved,
    put,
    read,
    record_of,
    saved,
)
from tests.servers import brokers
from tests.servers.brokers import Broker
from tests.servers.processes import free_port

pytest_plugins = ["tests.fixtures"]
pytestmark = committing
FIRST, LATER = 2.0, 0.5


@pytest.fixture(params=["redis", "amqp"])
def silent(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        broker = Broker(f"{request.param}://127.0.0.1:{listener.getsockname()[1]}//")
        with brokers.used_by(app, broker):
            yield broker


@pytest.fixture(params=["redis", "amqp"])
def refusing(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker that nobody listens for."""
    with brokers.used_by(app, Broker(f"{request.param}://127.0.0.1:{free_port()}//")) as broker:
        yield broker


def seconds(call: Callable[[], Any]) -> float:
    """Return how long ``call`` takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def save(pair: Pair, name: str) -> float:
    """Save a file and return how long it took."""
    return seconds(lambda: pair.save(name, ContentFile(b"content")))


def check(pair: Pair, figure: Callable[[str], None]) -> None:
    """Save, ask again and delete with the broker away; then let the sweep do the work."""
    first = save(pair, "0.txt")
    later = [save(pair, f"{number}.txt") for number in range(1, 6)]
    again = seconds(lambda: pair.transfer("0.txt"))
    deletion = seconds(lambda: pair.delete("5.txt"))
    figure(f"first save {first:.3f} s, then {max(later):.3f}, transfer() {again:.3f}, delete {deletion:.3f}")
    assert first < FIRST
    assert max(*later, again, deletion) < LATER
    assert facts(record_of(pair, "0.txt"), b"content") == saved("0.txt", b"content")
    finish()
    assert facts(record_of(pair, "0.txt"), b"content") == moved("0.txt", b"content")
    assert not pair.exists("5.txt")


def test_a_silent_broker(pair: Pair, silent: Broker, figure: Callable[[str], None]) -> None:
    """A silent broker delays one save by a second, and the next ones not at all; the sweep finishes the work."""
    check(pair, figure)


def test_a_refusing_broker(pair: Pair, refusing: Broker, figure: Callable[[str], None]) -> None:
    """A broker that is not there delays nobody; the sweep finishes the work."""
    check(pair, figure)


def test_a_silent_broker_and_a_transaction(pair: Pair, silent: Broker) -> None:
    """The wait comes once, after the commit, for however many files, and the commit stands."""
    with transaction.atomic():
        assert max(save(pair, f"{number}.txt") for number in range(20)) < LATER
        began = time.perf_counter()
    assert time.perf_counter() - began < FIRST
    assert ledger.records().count() == 20


def test_a_silent_broker_and_many_requests(pair: Pair, silent: Broker, threads: Threads) -> None:
    """Requests that meet the silent broker at the same moment wait side by side, not one after the other."""
    assert max(threads.together(8, lambda number: save(pair, f"{number}.txt"))) < FIRST + 1


def test_the_pause_ends(pair: Pair, silent: Broker, settings: Any) -> None:
    """After the pause one caller tries the broker again; the pause then doubles."""
    settings.QUEUED_STORAGE_PUBLISH_PAUSE = 0.2
    settings.QUEUED_STORAGE_PUBLISH_TIMEOUT = 0.3
    waits = [save(pair, "0.txt")]
    while sum(wait > 0.25 for wait in waits) < 3:
        waits.append(save(pair, f"{len(waits)}.txt"))
        assert len(waits) < 1000
    tried = [number for number, wait in enumerate(waits) if wait > 0.25]
    assert tried[0] == 0
    assert tried[2] - tried[1] > 1


@shared_task(name="tests.plain_task")
def plain_task(*args: Any) -> None:
    """A task of somebody else's, which knows nothing of records."""


def test_a_silent_broker_and_a_task_of_somebody_else(make_pair: MakePair, silent: Broker) -> None:
    """A Celery task that is not ours keeps no request waiting either."""
    pair = make_pair(task="tests.test_contract_broker.plain_task")
    assert save(pair, "0.txt") < FIRST
    assert save(pair, "1.txt") < LATER


class OwnRun(tasks.Transfer):
    """A subclass that overrides ``run`` and so gets the six arguments."""

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Do what ours does."""
        return super().run(*args, **kwargs)


def test_a_silent_broker_and_an_overridden_run(make_pair: MakePair, silent: Broker) -> None:
    """A subclass that overrides ``run`` keeps no request waiting either."""
    pair = make_pair(task="tests.test_contract_broker.OwnRun")
    assert save(pair, "0.txt") < FIRST
    assert save(pair, "1.txt") < LATER


def test_a_sweep_with_a_silent_broker(pair: Pair, silent: Broker) -> None:
    """A sweep that cannot send ends soon, and the next one sends what is still owed."""
    records = [put(pair, f"{number}.txt") for number in range(3)]
    make_due(*records)
    assert seconds(lambda: sweeping.sweep(tasks.send)) < FIRST
    make_due(*records)
    assert sweeping.sweep(sweeping.process_all) == {"sent": 3}
    assert [read(pair, record.name) for record in records] == [b"content"] * 3


def test_an_unknown_broker(pair: Pair) -> None:
    """A broker address that makes no sense costs no file."""
    with brokers.used_by(app, Broker("nonsense://host")):
        assert save(pair, "0.txt") < FIRST
    finish()
    assert record_of(pair, "0.txt").state == "transferred"


def test_a_broker_that_comes_back(pair: Pair, settings: Any, redis_server: str) -> None:
    """Publishing goes on by itself when the broker is back."""
    settings.QUEUED_STORAGE_PUBLISH_PAUSE = 0.05
    port = free_port()
    address = redis_server.split("://", 1)[1].split("/")[0].rpartition("@")[2]
    with brokers.used_by(app, Broker(f"redis://127.0.0.1:{port}/0")):
        assert pair.save("0.txt", ContentFile(b"content"))
        assert pair.transfer("0.txt") is None
        with forwarding(port, address):
            for _ in range(200):
                if pair.transfer("0.txt") is not None:
                    break
            else:
                raise AssertionError("never published again")


class forwarding:
    """Forward a port to an address while the block runs."""

    def __init__(self, port: int, address: str) -> None:
        host, _, target = address.partition(":")
        self.port, self.target = port, (host, int(target))
        self.sockets: list[socket.socket] = []
        self.threads = Threads()

    def __enter__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.threads.start(self._accept)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            self.sockets += [near, far]
            self.threads.start(self._pump, near, far)
            self.threads.start(self._pump, far, near)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return

    def __exit__(self, *exception: object) -> None:
        for each in (self.listener, *self.sockets):
            for end in (lambda each=each: each.shutdown(socket.SHUT_RDWR), each.close):
                try:
                    end()
                except OSError:
                    continue
        self.threads.join(5)
