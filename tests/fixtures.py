"""Fixtures of the tests of the core: a storage pair to the test's taste, its messages, its rows, its threads.

Test modules import from here and name it in ``pytest_plugins``; to be imported first, hence: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import connections
from django.db.models import F
from kombu.simple import SimpleQueue

from queued_storage import ledger, locations, signals, sweeping
from queued_storage.models import TransferAttempt, TransferRecord
from tests import usertasks
from tests.celeryapp import app
from tests.conftest import Media
from tests.factories import digest_of

Pair = Any
MakePair = Callable[..., Pair]


# For tests that need real commits. With fewer tables to empty, and no permissions to make anew, they end sooner.
committing = pytest.mark.django_db(transaction=True, available_apps=["queued_storage", "tests.app"])


@pytest.fixture
def make_pair(media: Media, settings: Any) -> MakePair:
    """Configure a queued storage in STORAGES and return it; its remote is a spy in a fresh folder."""

    def make(alias: str = "default", remote: str = "tests.storages.SpyStorage", **options: Any) -> Pair:
        configured = deepcopy(settings.STORAGES)
        entry = deepcopy(configured["default"])
        entry["BACKEND"] = options.pop("backend", entry["BACKEND"])
        entry["OPTIONS"]["remote"] = remote
        for side in ("local_options", "remote_options"):
            entry["OPTIONS"][side] |= options.pop(side, {})
        entry["OPTIONS"] |= options
        settings.STORAGES = configured | {alias: entry}
        return storages[alias]

    return make


@pytest.fixture
def pair(make_pair: MakePair) -> Pair:
    """The default storage: local folder, spy as remote."""
    return make_pair()


@dataclass(frozen=True)
class Message:
    """One message as a worker would get it."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    headers: dict[str, Any]

    def deliver(self) -> Any:
        """Run it in this process and return what the task returned."""
        return app.tasks[self.task].apply(self.args, self.kwargs, throw=True).result


class Outbox:
    """The messages that were published to the broker in memory."""

    def take(self, name: str = "") -> list[Message]:
        """Take all messages out of a queue, the default one unless it is named."""
        taken = []
        name = name or app.conf.task_default_queue
        with app.connection_for_read() as connection, SimpleQueue(connection, name) as queue:
            while queue.qsize():
                message = queue.get(block=True, timeout=5)
                args, kwargs, _ = message.payload
                taken.append(Message(message.headers["task"], args, kwargs, dict(message.headers)))
                message.ack()
        return taken

    def ids(self) -> list[int]:
        """Take all messages and return the ids of their records."""
        return [pk for message in self.take() for pk, _ in message.kwargs["records"]]

    def deliver(self) -> int:
        """Deliver messages until there are none left; return how many there were."""
        count = 0
        while messages := self.take():
            for message in messages:
                message.deliver()
            count += len(messages)
        return count


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    """The messages that this test publishes."""
    box = Outbox()
    box.take()
    yield box
    box.take()


VOLATILE = {
    "id",
    "created_at",
    "updated_at",
    "transferred_at",
    "checked_at",
    "deleted_at",
    "due_at",
    "lease",
    "key",
    "digest",
}


def facts(record: TransferRecord, content: bytes | None = None) -> dict[str, Any]:
    """Return a record as a dictionary without what differs from run to run.

    Times become whether they are set, ``due`` is counted from the last change, ``digest`` tells whether it is the one
    of ``content``.
    """
    record = ledger.records().get(pk=record.pk)
    plain = {field.name: getattr(record, field.name) for field in record._meta.fields if field.name not in VOLATILE}
    return plain | {
        "due": None if record.due_at is None else record.due_at - record.updated_at,
        "transferred": record.transferred_at is not None,
        "deleted": record.deleted_at is not None,
        "leased": record.lease is not None,
        "keyed": record.key is not None,
        "digest": record.digest if content is None else record.digest == digest_of(content),
    }


def saved(name: str, content: bytes, **changes: Any) -> dict[str, Any]:
    """Return the facts of a file that was just saved as ``name``, with ``changes``."""
    return {
        "storage": "default",
        "name": name,
        "generation": 1,
        "state": "queued",
        "location": "local",
        "local_name": name,
        "remote_name": name,
        "size": len(content),
        "digest": True,
        "content_type": "text/plain" if name.endswith(".txt") else "",
        "retries": 0,
        "worker": "",
        "node": "",
        "local_copy": True,
        "error_kind": "",
        "error": "",
        "due": timedelta(seconds=60),
        "transferred": False,
        "deleted": False,
        "leased": False,
        "keyed": True,
    } | changes


def moved(name: str, content: bytes, **changes: Any) -> dict[str, Any]:
    """Return the facts of a file that was transferred on the first attempt, with ``changes``."""
    facts = {"state": "transferred", "location": "remote", "retries": 1, "due": None, "transferred": True}
    return saved(name, content, **(facts | changes))


def record_of(storage: Pair, name: str) -> TransferRecord:
    """Return the record that holds ``name``."""
    record = ledger.lookup(locations.record_key(storage.alias, name))
    assert record is not None, f"no record of {name}"
    return record


def attempts(record: TransferRecord | None = None) -> list[tuple[str, str, int]]:
    """Return outcome, kind and bytes of every attempt, oldest first."""
    rows = TransferAttempt.objects.order_by("pk")
    rows = rows if record is None else rows.filter(record=record)
    return list(rows.values_list("outcome", "error_kind", "bytes"))


def put(storage: Pair, name: str, content: bytes = b"content") -> TransferRecord:
    """Save a file and return its record."""
    return record_of(storage, storage.save(name, ContentFile(content)))


def transfer(storage: Pair, name: str, content: bytes = b"content") -> TransferRecord:
    """Save a file, transfer it, and return its record."""
    record = put(storage, name, content)
    assert sweeping.process(record.pk) == "transferred"
    return record_of(storage, record.name)


def read(storage: Any, name: str) -> bytes:
    """Return all bytes of a file."""
    with storage.open(name) as file:
        return bytes(file.read())


def make_due(*records: TransferRecord, by: timedelta = timedelta(0)) -> None:
    """Let time pass for ``records``: what was due later is due now, and all of it happened ``by`` earlier."""
    rows = ledger.records().filter(pk__in=[record.pk for record in records])
    rows.filter(due_at__isnull=False).update(due_at=ledger.DatabaseNow())
    for field in ("created_at", "transferred_at", "deleted_at"):
        rows.filter(**{f"{field}__isnull": False}).update(**{field: F(field) - by})


def finish(limit: int = 20) -> None:
    """Sweep, with the time of every record come, until no transfer, eviction or first removal is owed."""
    for _ in range(limit):
        make_due(*(record for record in ledger.records() if not _removed(record)))
        if not sweeping.sweep(sweeping.process_all):
            return
    raise AssertionError("the sweep finds more and more to do")


def _removed(record: TransferRecord) -> bool:
    # The timer of a record whose copies are gone stands at the date of its prune.
    if record.deleted_at is None or record.due_at is None or record.error:
        return False
    return record.due_at - record.deleted_at > timedelta(days=5)


class Threads:
    """Functions in threads of their own, each with its own database connection; errors reach the test."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.results: dict[int, Any] = {}
        self.errors: list[BaseException] = []

    def start(self, function: Callable[..., Any], *args: Any) -> None:
        """Start ``function`` in a new thread."""
        number = len(self.threads)

        def run() -> None:
            try:
                self.results[number] = function(*args)
            except BaseException as error:
                self.errors.append(error)
            finally:
                connections.close_all()

        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()

    def join(self, bound: float = 180.0) -> list[Any]:
        """Wait for all of them and return their results in the order of their start."""
        for thread in self.threads:
            thread.join(bound)
            assert not thread.is_alive(), "a thread stands still"
        if self.errors:
            raise self.errors[0]
        return [self.results[number] for number in range(len(self.threads))]

    def together(self, count: int, function: Callable[[int], Any]) -> list[Any]:
        """Run ``function(number)`` in ``count`` threads that begin at the same moment."""
        barrier = threading.Barrier(count)

        def run(number: int) -> Any:
            barrier.wait(60)
            return function(number)

        for number in range(count):
            self.start(run, number)
        return self.join()


_FIGURES: list[str] = []


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say something measured at the end of the run."""
    return lambda text: _FIGURES.append(f"{request.node.name}: {text}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was measured."""
    for line in _FIGURES:
        terminalreporter.write_line(line)


@pytest.fixture
def threads() -> Threads:
    """Threads that end with the test."""
    return Threads()


class Receiver:
    """Remembers what a signal said."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def __call__(self, sender: Any, name: str, **facts: Any) -> None:
        self.told.append((name, str(facts.get("kind", ""))))


@pytest.fixture
def told() -> Iterator[Any]:
    """What the signals say: one receiver for each of ``failed``, ``stalled`` and ``transferred``."""

    class Told:
        failed, stalled, transferred = Receiver(), Receiver(), Receiver()

    connected = [
        (signals.transfer_failed, Told.failed),
        (signals.transfer_stalled, Told.stalled),
        (signals.file_transferred, Told.transferred),
    ]
    for signal, receiver in connected:
        signal.connect(receiver)
    yield Told
    for signal, receiver in connected:
        signal.disconnect(receiver)


def configure(**values: Any) -> None:
    """Configure the test app; under its namespace too, which Celery 5.5 looks at alone."""
    app.conf.update(values | {f"CELERY_{name.upper()}": value for name, value in values.items()})


@pytest.fixture
def forgetful() -> None:
    """Let the users' tasks begin with nothing remembered."""
    usertasks.NOTIFIED.clear()
    usertasks.DELAYED.clear()
    usertasks.OwnRun.seen.clear()


@pytest.fixture
def answering(make_pair: MakePair) -> Iterator[tuple[Pair, Any]]:
    """A storage whose task answers what the test wants."""
    task = app.tasks["tests.usertasks.Answering"]
    yield make_pair(task="tests.usertasks.Answering"), task
    task.answer, task.copies = True, True
