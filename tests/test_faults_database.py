"""Faults of the database and of the ways to reach it: nothing may be lost, shown wrongly, or wait."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.db import DatabaseError, OperationalError, connection, connections, transaction

from queued_storage import ledger, sweeping
from queued_storage.models import State, TransferRecord
from tests.app.models import Document
from tests.conftest import Media
from tests.fixtures import (
    MakePair,
    Outbox,
    Pair,
    Threads,
    attempts,
    committing,
    finish,
    make_due,
    put,
    read,
    record_of,
    transfer,
)
from tests.test_commands import manage

pytest_plugins = ["tests.fixtures"]
pytestmark = committing

one_writer = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time, who waits")


@contextmanager
def failing(error: Exception, *, times: int | None = 1, where: str = "") -> Iterator[list[str]]:
    """Let statements with ``where`` in them fail, the first few or all; yield those that did."""
    failed: list[str] = []

    def wrapper(execute: Callable[..., Any], statement: str, *arguments: Any) -> Any:
        if where in statement and (times is None or len(failed) < times):
            failed.append(statement)
            raise error
        return execute(statement, *arguments)

    with connection.execute_wrapper(wrapper):
        yield failed


def live(pair: Pair, name: str = "a.txt") -> None:
    """Let a file be saved, moved, read, deleted and forgotten."""
    record = transfer(pair, name)
    cache.clear()
    assert (read(pair, name), pair.exists(name), pair.size(name)) == (b"content", True, 7)
    pair.delete(name)
    finish()
    make_due(record, by=ledger.settings.QUEUED_STORAGE_PRUNE_AFTER)
    sweeping.sweep(sweeping.process_all)
    assert ledger.get(record.pk) is None


@pytest.mark.parametrize("moved", [False, True], ids=["local", "remote"])
def test_reading_without_the_database(make_pair: MakePair, moved: bool) -> None:
    """Without the database a cached place is read as ever; otherwise the error is temporary, never "not found"."""
    pair = make_pair(keep_local=False)
    (transfer if moved else put)(pair, "a.txt")
    for cached in (True, False):
        if not cached:
            cache.clear()
        with failing(OperationalError("the server is away"), times=None) as failed:
            if moved and cached:
                assert (read(pair, "a.txt"), failed) == (b"content", [])
                continue
            with pytest.raises(OperationalError):
                read(pair, "a.txt")
            with pytest.raises(OperationalError):
                pair.exists("a.txt")
            assert failed
    assert read(pair, "a.txt") == b"content"


@pytest.mark.parametrize(
    "error", ["deadlock detected", "could not serialize access", "database is locked"], ids=lambda text: text.split()[0]
)
@pytest.mark.parametrize("statement", ["UPDATE", "SELECT", "INSERT"])
def test_a_statement_that_fails_once(pair: Pair, error: str, statement: str) -> None:
    """A deadlock, a serialisation failure or a lock costs a worker one more statement and nothing else."""
    record = put(pair, "a.txt")
    with failing(OperationalError(error), where=statement) as failed:
        assert sweeping.process(record.pk) == "transferred"
    assert len(failed) == 1
    assert pair.remote.calls.count("save") == 1
    assert attempts()[-1:] == [("transferred", "", 7)]


def test_a_database_that_stays_away_from_a_worker(pair: Pair) -> None:
    """A worker gives up after some tries, within seconds, and the file is owed as before."""
    record = put(pair, "a.txt")
    began = time.monotonic()
    with failing(OperationalError("the server is away"), times=None), pytest.raises(DatabaseError):
        sweeping.process(record.pk)
    assert time.monotonic() - began < 5
    assert record_of(pair, "a.txt").state == State.QUEUED
    assert sweeping.process(record.pk) == "transferred"


@one_writer
def test_a_name_held_by_a_long_transaction(pair: Pair, threads: Threads) -> None:
    """A saver does not wait for another one's open transaction: it gets another name at once."""
    # Of its own: MariaDB locks a part of the index around a name whose row was deleted a moment ago.
    wanted = f"{uuid.uuid4().hex}.txt"
    saved, end = threading.Event(), threading.Event()

    def hold() -> str:
        with transaction.atomic():
            name = str(pair.save(wanted, ContentFile(b"first")))
            saved.set()
            assert end.wait(30)
            return name

    threads.start(hold)
    assert saved.wait(60)
    began = time.monotonic()
    try:
        name = pair.save(wanted, ContentFile(b"second"))
        passed = time.monotonic() - began
    finally:
        end.set()
    assert threads.join() == [wanted]
    assert passed < 2
    assert (name != wanted, read(pair, wanted), read(pair, name)) == (True, b"first", b"second")


@one_writer
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_reader_with_an_old_snapshot(make_pair: MakePair, threads: Threads, level: str) -> None:
    """A reader whose transaction still sees the file as local finds it on the remote when it has left the disk."""
    pair = make_pair(keep_local=False)
    record = put(pair, "a.txt")
    looked, moved = threading.Event(), threading.Event()

    def reader() -> bytes:
        with connection.cursor() as cursor:
            if connection.vendor == "mysql":
                cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        with transaction.atomic():
            with connection.cursor() as cursor:
                if connection.vendor == "postgresql":
                    cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
            assert TransferRecord.objects.values_list("state", flat=True).get() == State.QUEUED
            looked.set()
            assert moved.wait(30)
            assert TransferRecord.objects.values_list("state", flat=True).get() == State.QUEUED
            cache.clear()
            return read(pair, "a.txt")

    threads.start(reader)
    assert looked.wait(60)
    if connection.vendor == "mysql" and level == "SERIALIZABLE":
        # There every read of such a transaction holds a lock: the worker comes after it.
        moved.set()
        assert threads.join() == [b"content"]
        assert sweeping.process(record.pk) == "transferred"
        return
    assert sweeping.process(record.pk) == "transferred"
    assert not pair.local.exists("a.txt")
    moved.set()
    assert threads.join() == [b"content"]


class NoReplica:
    """A router whose replica is never there: whatever is read from it raises."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "replica" if model._meta.app_label == "queued_storage" else None

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return None


def test_a_replica_is_never_asked(make_pair: MakePair, settings: Any) -> None:
    """With a router that sends reads elsewhere a file lives its whole life on the database that is written to."""
    settings.DATABASE_ROUTERS = ["tests.test_faults_database.NoReplica"]
    live(make_pair(keep_local=False))


class LedgerElsewhere:
    """A router that keeps the ledger in a database of its own."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "ledger" if model._meta.app_label == "queued_storage" else None

    db_for_write = db_for_read


@pytest.fixture
def ledger_elsewhere(settings: Any, tmp_path: Path) -> Iterator[None]:
    """A ledger in a database that no model of the project shares."""
    entry = deepcopy(connection.settings_dict)
    entry |= {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "ledger.sqlite3"), "OPTIONS": {}}
    connections.settings["ledger"] = entry
    settings.DATABASE_ROUTERS = ["tests.test_faults_database.LedgerElsewhere"]
    separate = connections["ledger"]
    # Django's tests refuse to open a connection that was not declared beforehand.
    separate.ensure_connection = lambda: separate.connection is None and separate.connect()
    with separate.schema_editor() as editor:
        for model in apps.get_app_config("queued_storage").get_models():
            editor.create_model(model)
    yield
    separate.close()
    del connections["ledger"], connections.settings["ledger"]


def test_a_ledger_in_another_database(pair: Pair, ledger_elsewhere: None, outbox: Outbox, media: Media) -> None:
    """Where model and ledger commit apart neither half alone does harm: a file too much, never one too few."""
    document = Document.objects.create(file=ContentFile(b"both", name="both.txt"))
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        half = Document.objects.create(file=ContentFile(b"half", name="half.txt")).file.name
        raise ZeroDivisionError
    assert outbox.deliver() == 2
    assert (Document.objects.count(), read(pair, document.file.name), read(pair, half)) == (1, b"both", b"half")

    def refuse(execute: Any, statement: str, *arguments: Any) -> Any:
        raise OperationalError("the server of the ledger is away")

    before = sorted(media.local.rglob("*.txt"))
    with connections["ledger"].execute_wrapper(refuse), pytest.raises(DatabaseError):
        Document.objects.create(file=ContentFile(b"none", name="none.txt"))
    assert (Document.objects.count(), sorted(media.local.rglob("*.txt"))) == (1, before)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="PgBouncer speaks to PostgreSQL")
def test_no_state_of_a_session_is_used(make_pair: MakePair) -> None:
    """With nothing of a session left before each statement, as behind PgBouncer, a file lives its whole life."""
    statements: list[str] = []

    def forget(execute: Callable[..., Any], statement: str, *arguments: Any) -> Any:
        if not connection.in_atomic_block:
            with connection.connection.cursor() as raw:
                raw.execute("DISCARD ALL")
        statements.append(statement)
        return execute(statement, *arguments)

    with connection.execute_wrapper(forget):
        live(make_pair(keep_local=False))
    assert len(statements) > 10
    words = ("SET ", "PREPARE", "LISTEN", "DECLARE", "TEMP", "ADVISORY")
    assert [text for text in statements if text.upper().startswith(words[:3]) or "ADVISORY" in text.upper()] == []


@one_writer
def test_a_message_before_the_row_is_visible(pair: Pair, threads: Threads) -> None:
    """A worker that looks before the row is committed finds nothing to do, and the sweep comes back to it."""
    saved, looked = threading.Event(), threading.Event()
    known: list[int] = []

    def save() -> None:
        with transaction.atomic():
            known.append(put(pair, "a.txt").pk)
            saved.set()
            assert looked.wait(30)

    threads.start(save)
    assert saved.wait(60)
    if connection.vendor == "mysql":
        # There an UPDATE waits for the transaction that has inserted the row, and then claims it.
        threads.start(lambda: sweeping.process(known[0]))
        looked.set()
        assert threads.join()[1] == "transferred"
        return
    assert sweeping.process(known[0]) is None
    looked.set()
    threads.join()
    assert record_of(pair, "a.txt").state == State.QUEUED
    finish()
    assert record_of(pair, "a.txt").state == State.TRANSFERRED


def test_a_database_restored_from_yesterday(make_pair: MakePair) -> None:
    """With yesterday's rows and today's files on both sides, adopting brings every file of today back."""
    pair = make_pair(keep_local=False)
    transfer(pair, "moved before.txt", b"1")
    put(pair, "moved since.txt", b"2")
    yesterday = list(TransferRecord.objects.all())
    finish()
    transfer(pair, "saved and moved since.txt", b"3")
    put(pair, "saved since.txt", b"4")
    TransferRecord.objects.all().delete()
    cache.clear()
    TransferRecord.objects.bulk_create(yesterday)
    for side in ("local", "remote"):
        assert manage("adopt", "--from", side, "--storage", "default", "--older-than", "0").code == 0
    finish()
    names = ["moved before.txt", "moved since.txt", "saved and moved since.txt", "saved since.txt"]
    assert [read(pair, name) for name in names] == [b"1", b"2", b"3", b"4"]
    found = TransferRecord.objects.order_by("name").values_list("name", "state")
    assert list(found) == [(name, State.TRANSFERRED) for name in names]
