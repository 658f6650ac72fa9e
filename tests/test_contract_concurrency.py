"""Many at once: savers, deleters, workers and readers of the same name, on real connections."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import connection, connections, transaction

from queued_storage import ledger, sweeping
from queued_storage.models import State, TransferRecord
from tests.conftest import Media
from tests.fixtures import MakePair, Pair, Threads, attempts, committing, finish, put, read, record_of, transfer
from tests.storages import Gate

pytest_plugins = ["tests.fixtures"]
pytestmark = committing
LOCALS = ["queued_storage.local.LocalStorage", "django.core.files.storage.FileSystemStorage"]


@pytest.mark.parametrize("local", LOCALS)
def test_eight_savers_of_one_name(make_pair: MakePair, threads: Threads, local: str) -> None:
    """Eight savers of one name get eight names, and each name holds its own bytes, before and after the transfer."""
    pair = make_pair(local=local)
    contents = [b"%d" % number * 3000 for number in range(8)]
    names = threads.together(8, lambda number: pair.save("docs/a.txt", ContentFile(contents[number])))
    assert len(set(names)) == 8
    assert "docs/a.txt" in names
    assert [read(pair, name) for name in names] == contents
    finish()
    assert [read(pair, name) for name in names] == contents
    assert len(pair.remote.listdir("docs")[1]) == 8


def test_eight_savers_of_a_name_that_left_the_disk(make_pair: MakePair, threads: Threads) -> None:
    """Eight savers of a name whose first file is only on the remote take nothing from it, nor from each other."""
    pair = make_pair(keep_local=False)
    transfer(pair, "a.txt", b"first")
    contents = [b"%d" % number * 3000 for number in range(8)]
    names = threads.together(8, lambda number: pair.save("a.txt", ContentFile(contents[number])))
    assert len({*names, "a.txt"}) == 9
    finish()
    assert [read(pair, name) for name in names] == contents
    assert read(pair, "a.txt") == b"first"


def test_eight_savers_in_transactions(pair: Pair, threads: Threads) -> None:
    """In transactions of their own savers get names as well; those that roll back leave none."""

    def save(number: int) -> str | None:
        try:
            with transaction.atomic():
                name = str(pair.save("a.txt", ContentFile(b"%d" % number)))
                if number % 2:
                    raise ZeroDivisionError
                return name
        except ZeroDivisionError:
            return None

    names = threads.together(8, save)
    kept = [name for name in names if name]
    assert len(set(kept)) == 4
    assert set(ledger.records().values_list("name", flat=True)) == set(kept)
    assert [read(pair, name) for name in kept] == [b"0", b"2", b"4", b"6"]


def test_eight_deleters(pair: Pair, threads: Threads) -> None:
    """Eight deleters of one file make one deletion."""
    record = transfer(pair, "a.txt")
    threads.together(8, lambda number: pair.delete("a.txt"))
    assert not pair.exists("a.txt")
    first = ledger.get(record.pk)
    assert first is not None
    assert first.state == State.DELETED
    threads = Threads()
    threads.together(8, lambda number: sweeping.process(record.pk))
    after = ledger.get(record.pk)
    assert after is not None
    assert (after.local_copy, pair.remote.exists("a.txt"), pair.local.exists("a.txt")) == (False, False, False)


def test_savers_and_deleters(pair: Pair, media: Media, threads: Threads) -> None:
    """While names are saved, moved and deleted side by side, what was not deleted is whole, and no more is left."""

    def live(number: int) -> dict[str, bytes]:
        mine: dict[str, bytes] = {}
        for step in range(6):
            body = b"%d-%d" % (number, step) * 100
            name = pair.save("a.txt", ContentFile(body))
            mine[name] = body
            sweeping.process(record_of(pair, name).pk)
            if step % 2:
                gone = min(mine)
                pair.delete(gone)
                sweeping.process(record_of(pair, gone).pk)
                del mine[gone]
        return mine

    kept = {name: body for mine in threads.together(4, live) for name, body in mine.items()}
    assert len(kept) == 12
    finish()
    assert {name: read(pair, name) for name in kept} == kept
    assert {path.name for path in media.remote.iterdir()} == set(kept)
    assert {path.name for path in media.local.glob("*.txt")} == set(kept)


def test_readers_while_a_file_moves(make_pair: MakePair, threads: Threads) -> None:
    """While files move and leave the disk, every reader gets their bytes at every moment."""
    pair = make_pair(keep_local=False)
    contents = {f"{number}.txt": b"%d" % number * 5000 for number in range(12)}
    records = [put(pair, name, body) for name, body in contents.items()]
    done = threading.Event()

    def look() -> int:
        count = 0
        while not done.is_set():
            for name, body in contents.items():
                assert read(pair, name) == body
                assert (pair.exists(name), pair.size(name)) == (True, len(body))
                count += 1
        return count

    def move() -> int:
        try:
            for record in records:
                assert sweeping.process(record.pk) == "transferred"
        finally:
            done.set()
        return 1

    for _ in range(3):
        threads.start(look)
    threads.start(move)
    assert all(threads.join())
    assert pair.local.listdir("")[1] == []


def test_workers_and_deleter(pair: Pair, media: Media, threads: Threads) -> None:
    """A file that is deleted while eight workers want it is gone in the end, on both sides."""
    record, gate = put(pair, "a.txt"), Gate()
    pair.remote.faults["save"] = gate
    for _ in range(8):
        threads.start(sweeping.process, record.pk)
    gate.wait()
    pair.delete("a.txt")
    gate.open()
    assert Counter(threads.join()) == {"lost": 1, None: 7}
    finish()
    assert [path for folder in (media.local, media.remote) for path in folder.glob("*.txt")] == []
    assert attempts() == []


@pytest.fixture
def repeatable_read() -> Any:
    """Let each thread of this test read from a snapshot of its own transaction's beginning."""
    if connection.vendor != "mysql":
        pytest.skip("PostgreSQL raises a serialization error here, and SQLite has one writer")
    options = connections.settings["default"]["OPTIONS"]
    options["isolation_level"] = "repeatable read"
    yield
    del options["isolation_level"]


@pytest.mark.parametrize("options", [{}, {"overwrite": True}])
def test_a_saver_with_an_old_snapshot(
    make_pair: MakePair, threads: Threads, repeatable_read: None, options: dict[str, Any]
) -> None:
    """A saver whose transaction cannot see that the name was taken meanwhile still ends with its file saved."""
    pair = make_pair(local="tests.storages.PrivateStorage", **options)
    ready, go = threading.Event(), threading.Event()

    def save() -> str:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT @@tx_isolation")
                assert cursor.fetchone() == ("REPEATABLE-READ",)
            assert TransferRecord.objects.count() == 0
            ready.set()
            assert go.wait(60)
            return str(pair.save("a.txt", ContentFile(b"second")))

    threads.start(save)
    assert ready.wait(60)
    put(pair, "a.txt", b"first")
    pair.local.hide("a.txt")
    go.set()
    (name,) = threads.join(30)
    assert (name == "a.txt") is bool(options)
    assert read(pair, name) == b"second"
