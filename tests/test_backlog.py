"""Back-pressure: what a storage may owe to its remote, who is told, and what a save does beyond."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.db import transaction

from queued_storage import backlog, health, ledger, signals, sweeping
from queued_storage.backlog import Figure
from queued_storage.exceptions import BacklogFullError
from queued_storage.models import Heartbeat, State, TransferRecord
from tests.conftest import Media
from tests.fixtures import (
    MakePair,
    Outbox,
    Pair,
    Threads,
    attempts,
    committing,
    facts,
    finish,
    moved,
    put,
    read,
    record_of,
    transfer,
)
from tests.test_commands import manage

pytest_plugins = ["tests.fixtures"]
pytestmark = committing
AssertQueries = Any
# Longer than a test: a figure, once looked at, stands.
LONG = timedelta(hours=1)


@pytest.fixture
def changes() -> Iterator[list[tuple[bool, str, int]]]:
    """What ``backlog_changed`` says: whether the storage is full, its alias, and how many files it owes."""
    told: list[tuple[bool, str, int]] = []

    def receive(sender: Any, full: bool, storage: str, files: int, **facts: Any) -> None:
        told.append((full, storage, files))

    signals.backlog_changed.connect(receive)
    yield told
    signals.backlog_changed.disconnect(receive)


@pytest.fixture
def looking(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each save finds out what is owed, however slow that is; what other processes found out counts for nothing."""
    monkeypatch.setattr(backlog, "SHARE", 0)
    settings.QUEUED_STORAGE_OWED_AGE = 0.000001
    settings.QUEUED_STORAGE_CACHE = None


def forget(pair: Pair) -> None:
    """Go on as a process that has not looked yet, or not lately."""
    pair.__dict__.pop("_backlog", None)


def fill(pair: Pair, count: int) -> None:
    """Save files until ``count`` are owed."""
    for number in range(count):
        put(pair, f"{number}.txt", b"0123456789")


def folder(path: Path) -> list[str]:
    """Return the files below a folder, staged ones too."""
    return sorted(file.name for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("limit", [{"max_owed_files": 2}, {"max_owed_bytes": 20}, {"max_owed_bytes": "20B"}])
def test_a_save_is_refused(make_pair: MakePair, media: Media, outbox: Outbox, limit: dict[str, Any]) -> None:
    """At a limit of files or bytes a save raises before it writes anything, and goes on when less is owed."""
    pair = make_pair(when_full="refuse", **limit)
    fill(pair, 2)
    outbox.take()
    forget(pair), cache.clear()
    with pytest.raises(BacklogFullError) as raised:
        pair.save("refused.txt", ContentFile(b"content"))
    assert str(raised.value) == (
        "The storage default owes its remote 2 files, 20 bytes, as much as it may, and the save is refused: save again "
        "later, start more workers, or raise max_owed_files or max_owed_bytes."
    )
    assert isinstance(raised.value, OSError)
    assert folder(media.local) == ["0.txt", "1.txt"]
    assert (ledger.records().count(), outbox.take(), pair.exists("refused.txt")) == (2, [], False)
    sweeping.process(record_of(pair, "0.txt").pk)
    forget(pair), cache.clear()
    assert pair.save("refused.txt", ContentFile(b"content")) == "refused.txt"


def test_a_file_open_for_writing_is_refused(make_pair: MakePair, media: Media) -> None:
    """What was written to a file that cannot be closed is nowhere."""
    pair = make_pair(when_full="refuse", max_owed_files=1)
    fill(pair, 1)
    with pytest.raises(BacklogFullError), pair.open("refused.txt", "w") as file:
        file.write("content")
    assert (folder(media.local), pair.exists("refused.txt")) == (["0.txt"], False)


def test_what_is_not_owed_does_not_count(make_pair: MakePair, looking: None) -> None:
    """Held, transferred, failed and deleted files count for nothing, nor do those of other storages."""
    other, held = make_pair("other"), make_pair("held", delayed=True)
    fill(other, 3), fill(held, 3)
    pair = make_pair(when_full="refuse", max_owed_files=1)
    transfer(pair, "moved.txt")
    put(pair, "failed.txt")
    TransferRecord.objects.filter(name="failed.txt").update(state=State.FAILED, due_at=None)
    put(pair, "deleted.txt")
    pair.delete("deleted.txt")
    assert pair.save("a.txt", ContentFile(b"content")) == "a.txt"
    with pytest.raises(BacklogFullError):
        pair.save("b.txt", ContentFile(b"content"))


@pytest.mark.parametrize("when_full", ["signal", "refuse", "write_through"])
def test_the_signal_comes_once(make_pair: MakePair, looking: None, changes: list[Any], when_full: str) -> None:
    """Of many saves, processes and sweeps one tells that a limit is reached, and one that less is owed again."""
    pair = make_pair(max_owed_files=10, when_full=when_full)
    fill(pair, 10)
    for number in range(10, 15):
        if when_full == "refuse":
            with pytest.raises(BacklogFullError):
                pair.save("refused.txt", ContentFile(b"content"))
        else:
            put(pair, f"{number}.txt")
        if number == 12:
            forget(pair)
        backlog.watch()
    assert changes == [(True, "default", 10)]
    # One file under the limit is no relief: the next save would tell again.
    for record in TransferRecord.objects.filter(state=State.QUEUED).order_by("pk")[9:]:
        sweeping.process(record.pk)
    backlog.watch()
    assert len(changes) == 1
    sweeping.process(record_of(pair, "0.txt").pk)
    backlog.watch(), backlog.watch()
    assert changes == [(True, "default", 10), (False, "default", 8)]
    finish()
    fill(pair, 11 if when_full == "signal" else 10)
    backlog.watch()
    assert [full for full, _, _ in changes] == [True, False, True]


def test_a_save_tells_of_relief(make_pair: MakePair, looking: None, changes: list[Any]) -> None:
    """Without a sweep the next save tells that the storage is well again."""
    pair = make_pair(max_owed_files=2)
    fill(pair, 3)
    for record in TransferRecord.objects.order_by("pk"):
        sweeping.process(record.pk)
    put(pair, "a.txt")
    put(pair, "b.txt")
    assert changes == [(True, "default", 2), (False, "default", 0)]


def test_a_transaction_that_is_rolled_back_tells_nothing(
    make_pair: MakePair, looking: None, changes: list[Any]
) -> None:
    """Nobody waits for a flag in a caller's transaction; where that is rolled back, the sweep tells."""
    pair = make_pair(max_owed_files=1, when_full="refuse")
    fill(pair, 1)
    with pytest.raises(BacklogFullError), transaction.atomic():
        pair.save("refused.txt", ContentFile(b"content"))
    assert (changes, Heartbeat.objects.count()) == ([], 0)
    backlog.watch()
    assert changes == [(True, "default", 1)]


def test_the_sweep_watches(make_pair: MakePair, changes: list[Any]) -> None:
    """The sweep tells of a storage that has come to its limit without a save, as by adoption."""
    make_pair(max_owed_files=1)
    make_pair("unlimited")
    pair = make_pair("other")
    put(pair, "a.txt")
    ledger.records().update(storage="default")
    sweeping.sweep(lambda records: None)
    assert changes == [(True, "default", 1)]


@pytest.mark.parametrize("limit", [1, 2])
def test_the_doctor_tells(make_pair: MakePair, limit: int) -> None:
    """The doctor calls a storage bad that is at its limit, and says nothing of one that is not."""
    fill(make_pair(max_owed_files=limit), 1)
    findings = {each["check"]: each for each in manage("doctor", "--json", "--no-canary").json["findings"]}
    text = "it owes 1 files, 10 bytes, as much as it may"
    assert findings.get("limits of default", {}).get("text") == (text if limit == 1 else None)


def test_a_process_that_is_forked_while_it_looks(make_pair: MakePair, looking: None) -> None:
    """A child does not wait for an answer that only its parent can get."""
    pair = make_pair(max_owed_files=1, when_full="refuse")
    fill(pair, 1)
    known = backlog._of(pair)
    known.figure, known.pid = None, -1
    assert known._looking.acquire()
    with pytest.raises(BacklogFullError):
        pair.save("refused.txt", ContentFile(b"content"))


def test_writing_through(make_pair: MakePair, media: Media, outbox: Outbox, looking: None) -> None:
    """At the limit a save returns when the file is on the remote, by the same way as ever and without a message."""
    pair = make_pair(max_owed_files=1, when_full="write_through", keep_local=False)
    fill(pair, 1)
    outbox.take()
    name = pair.save("through.txt", ContentFile(b"content"))
    record = record_of(pair, name)
    assert facts(record, b"content") == moved(name, b"content", local_copy=False)
    assert attempts(record) == [("transferred", "", 7)]
    assert (folder(media.local), outbox.take()) == (["0.txt"], [])
    assert (pair.using_remote(name), read(pair, name)) == (True, b"content")


def test_writing_through_after_the_commit(make_pair: MakePair, looking: None) -> None:
    """No transaction is open while bytes move, and what is rolled back goes nowhere."""
    pair = make_pair(max_owed_files=1, when_full="write_through")
    fill(pair, 1)
    with transaction.atomic():
        pair.save("a.txt", ContentFile(b"content"))
        pair.save("b.txt", ContentFile(b"content"))
        assert pair.remote.calls == []
    assert sorted(pair.remote.listdir("")[1]) == ["a.txt", "b.txt"]
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        pair.save("c.txt", ContentFile(b"content"))
        raise ZeroDivisionError
    assert sorted(pair.remote.listdir("")[1]) == ["a.txt", "b.txt"]


def test_writing_through_fails(make_pair: MakePair, looking: None) -> None:
    """What cannot be written through is saved all the same, owed, and brought home by the sweep."""
    pair = make_pair(max_owed_files=1, when_full="write_through")
    fill(pair, 1)

    def fail(name: str) -> None:
        raise ConnectionResetError("broken off")

    pair.remote.faults["save"] = fail
    record = put(pair, "a.txt")
    row = facts(record, b"content")
    assert (row["state"], row["retries"], row["error_kind"]) == ("queued", 1, "passing")
    pair.remote.faults.clear()
    finish()
    assert facts(record, b"content")["state"] == "transferred"


@pytest.mark.parametrize("paused", [True, False])
def test_nothing_is_written_through_to_a_remote_that_is_down(
    make_pair: MakePair, media: Media, looking: None, paused: bool
) -> None:
    """Where the remote is down or paused, the save is refused: nothing but the limit keeps the disk from filling."""
    pair = make_pair(max_owed_files=1, when_full="write_through")
    fill(pair, 1)
    health.pause("default")
    if not paused:
        health.storages().update(paused_at=None, failures=3, down_since=ledger.DatabaseNow())
    with pytest.raises(BacklogFullError, match="as much as it may, and cannot be written through: save again later"):
        pair.save("a.txt", ContentFile(b"content"))
    assert folder(media.local) == ["0.txt"]


def test_held_files_are_not_written_through(make_pair: MakePair, looking: None) -> None:
    """A file that is held stays held, and owes nothing yet."""
    pair = make_pair(max_owed_files=1, when_full="write_through")
    fill(pair, 1)
    pair.delayed = True
    assert put(pair, "a.txt").state == State.DELAYED


def test_the_queries_of_a_save(make_pair: MakePair, settings: Any, django_assert_num_queries: AssertQueries) -> None:
    """A save costs one query more once in a while; in between none, be it taken or refused."""
    settings.QUEUED_STORAGE_OWED_AGE = LONG
    pair = make_pair(max_owed_files=4, max_owed_bytes="1G", when_full="refuse")
    content = [ContentFile(b"content") for _ in range(6)]
    with django_assert_num_queries(2) as captured:
        pair.save("0.txt", content[0])
    assert "LIMIT 4" in captured[0]["sql"]
    for number in range(1, 4):
        with django_assert_num_queries(1):
            pair.save(f"{number}.txt", content[number])
    # The first one at the limit notes that it was told; the next ones are refused for nothing.
    with pytest.raises(BacklogFullError):
        pair.save("4.txt", content[4])
    for _ in range(3):
        with pytest.raises(BacklogFullError), django_assert_num_queries(0):
            pair.save("5.txt", content[5])


def test_without_limits_nobody_is_asked(pair: Pair, django_assert_num_queries: AssertQueries) -> None:
    """A storage without limits costs neither a query nor a question to the cache."""
    with django_assert_num_queries(0):
        assert backlog.admit(pair) is False
        backlog.watch()
    assert "_backlog" not in pair.__dict__


def test_other_processes_share_the_figure(
    make_pair: MakePair, settings: Any, django_assert_num_queries: AssertQueries
) -> None:
    """A process that begins takes the figure of another one from the cache; what is no figure is passed over."""
    settings.QUEUED_STORAGE_OWED_AGE = LONG
    pair = make_pair(max_owed_files=4, when_full="refuse")
    fill(pair, 1)
    forget(pair)
    with django_assert_num_queries(1):
        put_once(pair, "shared.txt")
    key = backlog._cache_key(pair)
    for garbage in ("", "[]", "[1]", "null", b"\xff", 7, json.dumps([9, 9, "x", 0]), json.dumps([9, 9, 1e400, 0])):
        cache.set(key, garbage)
        forget(pair)
        assert backlog.admit(pair) is False
    for seen in (0.0, 9e12):
        # Of another time, or of a clock that is wrong.
        cache.set(key, Figure(9, 9, seen, 0.0).dump())
        forget(pair)
        assert backlog.admit(pair) is False


def put_once(pair: Pair, name: str) -> None:
    """Save a file."""
    pair.save(name, ContentFile(b"content"))


def test_a_slow_database_is_looked_at_less_often(make_pair: MakePair, settings: Any) -> None:
    """A look takes a fiftieth of a process's time at most; its own saves count meanwhile."""
    settings.QUEUED_STORAGE_OWED_AGE = 0.000001
    settings.QUEUED_STORAGE_CACHE = None
    pair = make_pair(max_owed_files=3, when_full="refuse")
    put_once(pair, "a.txt")
    figure = backlog._of(pair).figure
    figure.cost = 1000.0
    put_once(pair, "b.txt"), put_once(pair, "c.txt")
    assert (backlog._of(pair).figure, figure.files) == (figure, 3)
    with pytest.raises(BacklogFullError):
        put_once(pair, "d.txt")


def test_saves_of_many_threads(make_pair: MakePair, threads: Threads, media: Media) -> None:
    """Eight threads at a limit: what was accepted is all there, and the limit holds to within a file of each."""
    pair = make_pair(max_owed_files=10, when_full="refuse")
    put_once(pair, "first.txt")

    def save(number: int) -> int:
        accepted = 0
        for count in range(5):
            try:
                put_once(pair, f"{number}-{count}.txt")
                accepted += 1
            except BacklogFullError:
                pass
        return accepted

    accepted = 1 + sum(threads.together(8, save))
    assert 10 <= accepted <= 10 + 8
    assert len(folder(media.local)) == ledger.records().count() == accepted
