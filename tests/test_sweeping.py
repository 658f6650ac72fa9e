"""The sweep: every duty, each row for one sweep alone, and all work finished without a broker."""

from __future__ import annotations

import random
import sqlite3
import sys
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import connection
from django.utils import timezone

from queued_storage import ledger, sweeping, tasks
from queued_storage.models import State, TransferAttempt, TransferRecord
from tests.conftest import Media
from tests.factories import AttemptFactory, RecordFactory, make_records
from tests.fixtures import (
    MakePair,
    Outbox,
    Pair,
    Threads,
    attempts,
    committing,
    facts,
    finish,
    make_due,
    moved,
    put,
    read,
    record_of,
    saved,
    transfer,
)
from tests.storages import _unreachable

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


class Collector:
    """Somebody who takes rows from the sweep and does nothing with them."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def __call__(self, records: list[TransferRecord]) -> None:
        self.taken += [record.pk for record in records]


def test_nothing_due() -> None:
    """Where nothing is due nothing is done."""
    RecordFactory()
    RecordFactory(transferred=True)
    RecordFactory(failed=True)
    RecordFactory(delayed=True)
    send = Collector()
    assert (sweeping.sweep(send), send.taken) == ({}, [])


def test_a_lost_message(pair: Pair) -> None:
    """A file whose message was lost is sent again when its time has come, and then later each time."""
    record, send, waits = put(pair, "a.txt"), Collector(), []
    for minutes in (1, 2, 4, 8, 30, 600):
        age = timezone.now() - timedelta(minutes=minutes)
        ledger.records().update(created_at=age, due_at=ledger.DatabaseNow())
        assert sweeping.sweep(send) == {"sent": 1}
        waits.append(round((ledger.get(record.pk).due_at - timezone.now()) / MINUTE))
        assert sweeping.sweep(send) == {}
    assert send.taken == [record.pk] * 6
    assert waits == [1, 2, 4, 8, 16, 60]
    assert facts(record)["state"] == "queued"


def test_a_dead_worker(pair: Pair) -> None:
    """A record whose lease has ended is given back with its reason, and its worker is named."""
    record = RecordFactory(transferring=True, due=-MINUTE, worker="host:9")
    assert sweeping.sweep(Collector()) == {"rescued": 1}
    row = facts(record)
    assert (row["state"], row["leased"], row["error_kind"]) == ("queued", False, "lost")
    assert row["error"] == "host:9 did not renew its lease: killed, or stuck"
    assert attempts(record) == [("lost", "lost", 0)]


def test_a_delay_that_ended(make_pair: MakePair) -> None:
    """A file held with a timedelta is queued by the sweep when the time has come, and moves."""
    pair = make_pair(delayed=timedelta(hours=2))
    record = put(pair, "a.txt")
    assert facts(record, b"content") == saved("a.txt", b"content", state="delayed", due=timedelta(hours=2))
    assert sweeping.sweep(sweeping.process_all) == {}
    make_due(record)
    assert sweeping.sweep(sweeping.process_all) == {"released": 1, "sent": 1}
    assert facts(record, b"content") == moved("a.txt", b"content")


def test_files_held_without_an_end(make_pair: MakePair, settings: Any) -> None:
    """Files held with ``delayed=True`` are only released if a setting says after what time."""
    pair = make_pair(delayed=True)
    record = put(pair, "a.txt")
    make_due(record, by=timedelta(days=400))
    assert sweeping.sweep(sweeping.process_all) == {}
    settings.QUEUED_STORAGE_RELEASE_AFTER = timedelta(days=401)
    assert sweeping.sweep(sweeping.process_all) == {}
    settings.QUEUED_STORAGE_RELEASE_AFTER = timedelta(days=399)
    assert sweeping.sweep(sweeping.process_all)["released"] == 1
    finish()
    assert facts(record, b"content") == moved("a.txt", b"content")


def test_an_eviction(make_pair: MakePair, media: Media) -> None:
    """With ``keep_local`` as a timedelta the local copy goes that long after the transfer, once the remote is seen."""
    pair = make_pair(keep_local=timedelta(days=1))
    record = transfer(pair, "a.txt")
    assert facts(record, b"content") == moved("a.txt", b"content", due=timedelta(days=1))
    make_due(record, by=timedelta(hours=23))
    sweeping.sweep(sweeping.process_all)
    assert (media.local / "a.txt").exists()
    make_due(record, by=timedelta(hours=2))
    pair.remote.forget()
    sweeping.sweep(sweeping.process_all)
    assert not (media.local / "a.txt").exists()
    assert pair.remote.calls == ["exists", "size", "open"]
    assert facts(record, b"content") == moved("a.txt", b"content", local_copy=False)
    assert read(pair, "a.txt") == b"content"


@pytest.mark.parametrize("meddle", ["missing", "altered", "shorter"])
def test_an_eviction_of_the_only_good_copy(make_pair: MakePair, media: Media, meddle: str) -> None:
    """Where the remote no longer has the right bytes the local copy stays, and the reason stands in the record."""
    pair = make_pair(keep_local=timedelta(hours=1))
    record = transfer(pair, "a.txt")
    (media.remote / "a.txt").unlink()
    if meddle != "missing":
        (media.remote / "a.txt").write_bytes(b"CONTENT" if meddle == "altered" else b"con")
    make_due(record, by=timedelta(hours=2))
    sweeping.sweep(sweeping.process_all)
    row = facts(record, b"content")
    assert (row["state"], row["local_copy"], row["error_kind"], row["due"]) == ("transferred", True, "mismatch", None)
    assert (media.local / "a.txt").read_bytes() == b"content"


def test_an_eviction_with_the_remote_away(make_pair: MakePair, media: Media) -> None:
    """While the remote is away nothing is evicted; it is tried again later."""
    pair = make_pair(keep_local=timedelta(hours=1))
    record = transfer(pair, "a.txt")
    make_due(record, by=timedelta(hours=2))
    pair.remote.faults["*"] = _unreachable
    sweeping.sweep(sweeping.process_all)
    row = facts(record, b"content")
    assert (row["local_copy"], row["error_kind"], row["due"] >= MINUTE * 0.8) == (True, "passing", True)
    pair.remote.faults.clear()
    finish()
    assert (facts(record)["local_copy"], (media.local / "a.txt").exists()) == (False, False)


def test_an_eviction_that_is_called_off(make_pair: MakePair) -> None:
    """A storage that now keeps its local copies has none of them removed, and the sweep forgets the timer."""
    record = transfer(make_pair(keep_local=timedelta(hours=1)), "a.txt")
    pair = make_pair(keep_local=True)
    make_due(record, by=timedelta(hours=2))
    sweeping.sweep(sweeping.process_all)
    assert facts(record, b"content") == moved("a.txt", b"content")
    assert pair.local.exists("a.txt")


def test_old_attempts_are_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The history is kept for as long as the setting says; what is older goes at once, however much it is."""
    monkeypatch.setattr(sweeping, "PRUNED", 2)
    AttemptFactory.create_batch(5, finished_at=timezone.now() - timedelta(days=31))
    young = AttemptFactory(finished_at=timezone.now() - timedelta(days=29))
    assert sweeping.sweep(Collector()) == {"pruned": 5}
    assert list(TransferAttempt.objects.all()) == [young]


def test_a_folder_that_cannot_be_tidied(pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Leftovers of local writes that belong to another user keep nothing else waiting, and it is said so."""

    def refuse(age: timedelta) -> int:
        raise PermissionError("staging")

    monkeypatch.setattr(pair.local, "collect_staging", refuse)
    AttemptFactory(finished_at=timezone.now() - timedelta(days=31))
    assert sweeping.sweep(Collector()) == {"pruned": 1}
    assert "Leftovers of local writes stay" in caplog.text


def test_leftovers_of_killed_saves(pair: Pair, media: Media, settings: Any) -> None:
    """What a killed save left in staging goes when it is old, and not before."""
    pair.save("a.txt", ContentFile(b"content"))
    staging = media.local / ".queued_storage" / "staging"
    (staging / ("0" * 32)).write_bytes(b"half")
    assert sweeping.sweep(Collector()) == {}
    settings.QUEUED_STORAGE_STAGING_AGE = 0.000001
    assert sweeping.sweep(Collector()) == {"pruned": 1}
    assert list(staging.iterdir()) == []


def test_batches(settings: Any) -> None:
    """A backlog of any size is sent in batches of bounded size, the longest due first."""
    settings.QUEUED_STORAGE_SWEEP_BATCH = 10
    records = [RecordFactory(due=-MINUTE * (60 - number)) for number in range(35)]
    sizes: list[int] = []
    taken: list[int] = []

    def send(batch: list[TransferRecord]) -> None:
        sizes.append(len(batch))
        taken.extend(record.pk for record in batch)

    assert sweeping.sweep(send) == {"sent": 35}
    assert (max(sizes), taken) == (10, [record.pk for record in records])


def test_everything_at_once(settings: Any, pair: Pair) -> None:
    """Many rows of every kind, more than a batch, are all moved on by one sweep."""
    settings.QUEUED_STORAGE_SWEEP_BATCH = 4
    kinds = {"transferring": {"transferring": True}, "queued": {}, "delayed": {"delayed": True}}
    for number in range(10):
        for kind, trait in kinds.items():
            RecordFactory(name=f"{kind}-{number}.txt", **trait, due_at=timezone.now() - MINUTE)
    send = Collector()
    assert sweeping.sweep(send) == {"rescued": 10, "released": 10, "sent": 20}
    assert Counter(send.taken).most_common(1)[0][1] == 1
    assert ledger.due().count() == 0


def test_a_sender_that_fails(pair: Pair) -> None:
    """Where sending fails the rows stay owed: the next sweep after the resend delay has them again."""
    record, send = put(pair, "a.txt"), Collector()
    make_due(record)

    def fail(records: list[TransferRecord]) -> None:
        raise ConnectionError("the broker is away")

    with pytest.raises(ConnectionError):
        sweeping.sweep(fail)
    make_due(record)
    assert sweeping.sweep(send) == {"sent": 1}
    assert send.taken == [record.pk]


def test_a_broken_storage_of_somebody_else(make_pair: MakePair, tmp_path: Path) -> None:
    """A storage that cannot be built keeps the sweep from none of the others, and is told in its own records."""
    make_pair("broken", local="no.such.Storage")
    pair = make_pair()
    stranger = RecordFactory(storage="broken", due=-MINUTE)
    record = put(pair, "a.txt")
    make_due(record)
    assert sweeping.sweep(sweeping.process_all)["sent"] == 2
    assert facts(record, b"content") == moved("a.txt", b"content")
    row = facts(stranger)
    assert (row["state"], row["error_kind"]) == ("queued", "settings")


def test_a_broken_eviction_of_somebody_else(make_pair: MakePair) -> None:
    """An eviction whose storage has a task that cannot be found keeps the sweep from none of the others."""
    pair = make_pair()
    make_pair("bad", task="no.such.Task")
    RecordFactory(storage="bad", transferred=True, due_at=timezone.now() - MINUTE)
    record = put(pair, "a.txt")
    ledger.records().filter(pk=record.pk).update(due_at=timezone.now())
    sweeping.sweep(sweeping.process_all)
    assert facts(record, b"content") == moved("a.txt", b"content")


def test_the_broker_is_gone_for_good(pair: Pair, media: Media) -> None:
    """The sweep alone, with no message ever arriving, finishes a random heap of work."""
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    alive: dict[str, bytes] = {}
    for number in range(60):
        name, body = f"{number}.bin", dice.randbytes(dice.randrange(2000))
        alive[pair.save(name, ContentFile(body))] = body
        if dice.random() < 0.3:
            name = dice.choice(sorted(alive))
            pair.delete(name)
            del alive[name]
    for record in ledger.records():
        if dice.random() < 0.2:
            ledger.claim(record.pk, record.key, "dead:1")
    finish()
    assert {record.name for record in ledger.records().filter(state=State.TRANSFERRED)} == set(alive), f"seed {seed}"
    assert {path.name: path.read_bytes() for path in media.remote.iterdir()} == alive, f"seed {seed}"
    assert {path.name for path in media.local.glob("*.bin")} == set(alive), f"seed {seed}"
    states = ledger.records().exclude(state__in=[State.TRANSFERRED, State.DELETED])
    assert states.count() == 0, f"seed {seed}"


def test_the_task_of_celery_beat(pair: Pair, outbox: Outbox) -> None:
    """The task for Celery beat sweeps, and sends by the broker."""
    from queued_storage.conf import BEAT_SCHEDULE
    from tests.celeryapp import app

    record = put(pair, "a.txt")
    make_due(record)
    (entry,) = BEAT_SCHEDULE.values()
    assert app.tasks[entry["task"]].apply().result == {"sent": 1}
    (message,) = outbox.take()
    assert message.kwargs == {"records": [[record.pk, 0]]}
    assert tasks.sweep.name == entry["task"]


@committing
def test_eight_sweeps_at_once(threads: Threads) -> None:
    """Eight sweeps at the same moment send each of 2,000 due rows once."""
    count = 2000
    make_records(count, due=-MINUTE, age=timedelta(days=1))
    collectors, second = [Collector() for _ in range(8)], threading.Event()

    def sweep(number: int) -> int:
        def send(records: list[TransferRecord]) -> None:
            collectors[number](records)
            # The first one waits until a second one has rows as well: they do it side by side, not one after another.
            # InnoDB may lock rows that it reads and does not return; those are left to the first one.
            if sum(bool(collector.taken) for collector in collectors) > 1:
                second.set()
            if connection.vendor == "postgresql":
                assert second.wait(60), "one sweep had all the rows"

        return sweeping.sweep(send, limit=100).get("sent", 0)

    assert sum(threads.together(8, sweep)) == count
    taken = Counter(pk for collector in collectors for pk in collector.taken)
    assert (len(taken), set(taken.values())) == (count, {1})


@committing
@pytest.mark.skipif(connection.vendor != "sqlite", reason="a mode of SQLite's transactions")
def test_eight_sweeps_where_transactions_begin_late(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Django's own mode of transactions no sweep reads rows, and finds later that it may not write them."""
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "transaction_mode", "DEFERRED")
    make_records(400, due=-MINUTE, age=timedelta(days=1))
    collectors = [Collector() for _ in range(8)]
    sent = threads.together(8, lambda number: sweeping.sweep(collectors[number], limit=20).get("sent", 0))
    taken = Counter(pk for collector in collectors for pk in collector.taken)
    assert (sum(sent), len(taken), set(taken.values())) == (400, 400, {1})


@pytest.mark.skipif(connection.vendor != "sqlite", reason="a limit of SQLite's")
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python cannot set SQLite's limits before 3.11")
def test_many_due_rows_where_sqlite_takes_few_values() -> None:
    """A thousand due rows are taken also by an SQLite that was built with its former limit."""
    make_records(1000, due=-MINUTE, age=timedelta(days=1))
    connection.ensure_connection()
    former = connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    try:
        assert len(ledger.take_due(1000)) == 1000
    finally:
        connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, former)
    assert ledger.take_due(1000) == []


@committing
def test_eight_rescuers_at_once(threads: Threads) -> None:
    """Eight sweeps at the same moment rescue each dead worker's record once."""
    for _ in range(24):
        RecordFactory(transferring=True, due=-MINUTE)
    results = threads.together(8, lambda number: sweeping.rescue(100))
    assert sum(results) == 24
    assert attempts() == [("lost", "lost", 0)] * 24
    assert set(ledger.records().values_list("state", "retries")) == {("queued", 1)}


@committing
def test_sweeps_and_workers_at_once(pair: Pair, threads: Threads, settings: Any) -> None:
    """Sweeps that do the work themselves, side by side, move each file once."""
    records = [put(pair, f"{number}.txt") for number in range(40)]
    make_due(*records)
    threads.together(4, lambda number: sweeping.sweep(sweeping.process_all, limit=5))
    assert set(ledger.records().values_list("state", "retries")) == {("transferred", 1)}
    assert pair.remote.calls.count("save") == 40
    assert record_of(pair, "0.txt").location == "remote"
