"""Deleting: gone for readers at once, whatever the file was doing; the copies follow, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.core.cache import cache
from django.db import transaction

from queued_storage import ledger, signals, sweeping
from queued_storage.models import State, TransferRecord
from tests.conftest import Media
from tests.fixtures import (
    MakePair,
    Outbox,
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
    transfer,
)
from tests.storages import Gate, _unreachable

pytest_plugins = ["tests.fixtures"]
pytestmark = committing
DELETED = {"state": "deleted", "location": "local", "deleted": True}


def left(media: Media) -> list[Path]:
    """Return the files in both folders."""
    return [path for folder in (media.local, media.remote) for path in folder.rglob("*") if path.is_file()]


def gone(pair: Pair, name: str) -> bool:
    """Tell whether every reader says that there is no such file."""
    with pytest.raises(FileNotFoundError):
        read(pair, name)
    with pytest.raises(FileNotFoundError):
        pair.size(name)
    with pytest.raises(FileNotFoundError):
        pair.path(name)
    return not pair.exists(name) and name not in pair.listdir("")[1]


def test_delete_while_queued(pair: Pair, media: Media, outbox: Outbox) -> None:
    """A waiting file is gone at once, never transferred, and its bytes go with the next message."""
    record = put(pair, "a.txt")
    pair.delete("a.txt")
    assert gone(pair, "a.txt")
    assert facts(record, b"content") == saved("a.txt", b"content", **DELETED)
    outbox.deliver()
    assert left(media) == []
    assert "save" not in pair.remote.calls
    assert ledger.records().get().local_copy is False


def test_delete_while_delayed(make_pair: MakePair, media: Media, outbox: Outbox) -> None:
    """A held file can be deleted."""
    pair = make_pair(delayed=True)
    put(pair, "a.txt")
    pair.delete("a.txt")
    outbox.deliver()
    assert gone(pair, "a.txt")
    assert left(media) == []


def test_delete_after_the_transfer(pair: Pair, media: Media, outbox: Outbox) -> None:
    """Both copies of a transferred file go, the remote one first."""
    record = transfer(pair, "a.txt")
    outbox.take()
    pair.delete("a.txt")
    assert gone(pair, "a.txt")
    expected = moved("a.txt", b"content", retries=0, due=timedelta(seconds=60), **DELETED)
    assert facts(record, b"content") == expected
    seen: list[bool] = []
    pair.remote.faults["delete"] = lambda name: seen.append((media.local / name).exists())
    outbox.deliver()
    assert (left(media), seen) == ([], [True])


def test_delete_after_eviction(make_pair: MakePair, media: Media, outbox: Outbox) -> None:
    """A file that is only on the remote goes there."""
    pair = make_pair(keep_local=False)
    transfer(pair, "a.txt")
    pair.delete("a.txt")
    outbox.deliver()
    assert gone(pair, "a.txt")
    assert left(media) == []


def test_delete_of_a_failed_file(pair: Pair, media: Media, outbox: Outbox) -> None:
    """A file that failed for good can be deleted."""
    record = put(pair, "a.txt")
    pair.local.delete("a.txt")
    assert sweeping.process(record.pk) == "failed"
    pair.delete("a.txt")
    outbox.deliver()
    assert (gone(pair, "a.txt"), left(media), record_of(pair, "a.txt").state) == (True, [], "deleted")


def test_delete_during_the_transfer(pair: Pair, media: Media, threads: Threads, outbox: Outbox) -> None:
    """While a worker sends, the file is gone at once; what arrives is removed after the worker's lease has ended."""
    record, gate = put(pair, "a.txt"), Gate()
    pair.remote.faults["save"] = gate
    threads.start(sweeping.process, record.pk)
    gate.wait()
    lease_ends = ledger.records().get().due_at
    outbox.take()
    pair.delete("a.txt")
    assert gone(pair, "a.txt")
    row = ledger.records().get()
    assert (row.state, row.due_at, row.lease, outbox.take()) == (State.DELETED, lease_ends, None, [])
    sweeping.process(record.pk)
    assert len(left(media)) == 1
    gate.open()
    assert threads.join() == ["lost"]
    assert len(left(media)) == 2
    assert gone(pair, "a.txt")
    finish()
    assert left(media) == []
    assert gone(pair, "a.txt")


def test_a_zombie_sends_after_the_removal(pair: Pair, media: Media, threads: Threads) -> None:
    """What a worker that was thought dead sends after the removal is no file, and goes before the record is pruned."""
    record, gate = put(pair, "a.txt"), Gate()
    pair.remote.faults["save"] = gate
    threads.start(sweeping.process, record.pk)
    gate.wait()
    pair.delete("a.txt")
    finish()
    assert left(media) == []
    pair.remote.faults.clear()
    gate.open()
    threads.join()
    assert len(left(media)) == 1
    assert gone(pair, "a.txt")
    make_due(record, by=timedelta(days=8))
    sweeping.sweep(sweeping.process_all)
    assert (left(media), TransferRecord.objects.count()) == ([], 0)


def test_delete_twice(pair: Pair, outbox: Outbox) -> None:
    """Deleting again does nothing and says nothing, as in Django's storages."""
    record = transfer(pair, "a.txt")
    pair.delete("a.txt")
    outbox.take()
    before = facts(record)
    pair.delete("a.txt")
    assert (facts(record), outbox.take()) == (before, [])


def test_delete_of_nothing(pair: Pair) -> None:
    """Deleting an unknown name does nothing."""
    pair.delete("nothing.txt")
    assert TransferRecord.objects.count() == 0


@pytest.mark.parametrize("side", ["local", "remote"])
def test_delete_of_a_file_without_a_record(pair: Pair, media: Media, side: str) -> None:
    """A file that others put there is deleted where it is, and not remembered."""
    (getattr(media, side) / "a.txt").write_bytes(b"foreign")
    assert pair.exists("a.txt")
    pair.delete("a.txt")
    assert (pair.exists("a.txt"), left(media)) == (False, [])


def test_delete_is_rolled_back(pair: Pair, media: Media, outbox: Outbox) -> None:
    """After a rollback the file is there, on both sides, and every answer says so."""
    record = transfer(pair, "a.txt")
    before = facts(record, b"content")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        pair.delete("a.txt")
        assert gone(pair, "a.txt")
        raise ZeroDivisionError
    assert (pair.exists("a.txt"), read(pair, "a.txt"), facts(record, b"content")) == (True, b"content", before)
    outbox.deliver()
    finish()
    assert (read(pair, "a.txt"), len(left(media))) == (b"content", 2)


def test_delete_is_known_to_other_processes(pair: Pair) -> None:
    """A delete leaves "gone" in the cache, which a slow reader's late answer cannot replace."""
    record = transfer(pair, "a.txt")
    cache.clear()
    assert pair.exists("a.txt")
    late = cache.get(pair.get_cache_key("a.txt"))
    assert late is not None
    pair.delete("a.txt")
    assert cache.add(pair.get_cache_key("a.txt"), late) is False
    assert not pair.exists("a.txt")
    assert record_of(pair, "a.txt").pk == record.pk


@pytest.mark.parametrize("transferred", [False, True])
def test_removal_with_the_remote_away(pair: Pair, media: Media, transferred: bool) -> None:
    """While the remote is away the removal is put off, with the reason in the record, and then finishes."""
    record = transfer(pair, "a.txt") if transferred else put(pair, "a.txt")
    pair.delete("a.txt")
    pair.remote.faults["*"] = _unreachable
    sweeping.process(record.pk)
    row = ledger.records().get()
    assert (row.state, row.error_kind, row.retries) == (State.DELETED, "passing", 1)
    assert row.error == "ConnectionError: the remote cannot be reached"
    assert (media.local / "a.txt").exists()
    make_due(record, by=timedelta(days=30))
    sweeping.sweep(sweeping.process_all)
    assert ledger.records().get().state == State.DELETED
    pair.remote.faults.clear()
    finish()
    assert left(media) == []


def test_the_signal_comes_once(pair: Pair) -> None:
    """``file_deleted`` is sent when the copies are gone, and not again at the prune."""
    record = transfer(pair, "a.txt")
    told: list[str] = []

    def receive(sender: object, name: str, **more: object) -> None:
        told.append(name)

    signals.file_deleted.connect(receive)
    try:
        pair.delete("a.txt")
        assert told == []
        finish()
        finish()
        make_due(record, by=timedelta(days=8))
        sweeping.sweep(sweeping.process_all)
    finally:
        signals.file_deleted.disconnect(receive)
    assert told == ["a.txt"]


def test_a_changed_remote_file_is_not_ours(pair: Pair, media: Media) -> None:
    """A file that failed before it was verified leaves alone what lies under its name on the remote."""
    record = put(pair, "a.txt")
    (media.remote / "a.txt").write_bytes(b"foreign")
    pair.delete("a.txt")
    sweeping.process(record.pk)
    assert [path.read_bytes() for path in left(media)] == [b"foreign"]


def test_times_of_a_deleted_file(pair: Pair) -> None:
    """A deleted file has no times: every method raises ``FileNotFoundError``."""
    put(pair, "a.txt")
    pair.delete("a.txt")
    for method in (pair.get_accessed_time, pair.get_created_time, pair.get_modified_time):
        with pytest.raises(FileNotFoundError):
            method("a.txt")


def test_transfer_of_a_deleted_file(pair: Pair) -> None:
    """A deleted file cannot be transferred, though its bytes may still be there."""
    put(pair, "a.txt")
    pair.delete("a.txt")
    with pytest.raises(FileNotFoundError):
        pair.transfer("a.txt")
