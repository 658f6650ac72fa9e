"""One attempt: claimed, looked at, sent, verified, completed; or given back with a reason."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection

from queued_storage import copying, ledger, settling, signals, sweeping
from queued_storage.exceptions import ErrorKind
from tests.conftest import Media
from tests.factories import BODY, RecordFactory
from tests.fixtures import (
    MakePair,
    Pair,
    Receiver,
    Threads,
    attempts,
    committing,
    facts,
    finish,
    make_due,
    moved,
    put,
    read,
    saved,
    transfer,
)
from tests.storages import Gate

pytest_plugins = ["tests.fixtures"]
pytestmark = committing


def test_a_transfer(pair: Pair, told: Any) -> None:
    """A transfer verifies the file, records and announces it, and keeps the local copy."""
    record = transfer(pair, "a.txt")
    assert facts(record, b"content") == moved("a.txt", b"content")
    assert attempts() == [("transferred", "", 7)]
    assert (read(pair.local, "a.txt"), read(pair.remote, "a.txt")) == (b"content", b"content")
    assert told.transferred.told == [("a.txt", "")]
    assert cache.get(pair.get_cache_key("a.txt")) is not None


@pytest.mark.parametrize("size", [0, 1, copying.CHUNK - 1, copying.CHUNK, copying.CHUNK + 1, 3 * copying.CHUNK])
def test_sizes(pair: Pair, size: int) -> None:
    """Files of every size around the chunk arrive whole."""
    body = bytes(range(256)) * (size // 256 + 1)
    record = transfer(pair, "a.bin", body[:size])
    assert read(pair.remote, "a.bin") == body[:size]
    assert record.size == size


def test_what_is_already_there(pair: Pair, media: Media) -> None:
    """An attempt that finds the right bytes on the remote adopts them and sends nothing."""
    (media.remote / "a.txt").write_bytes(b"content")
    record = transfer(pair, "a.txt")
    assert facts(record, b"content") == moved("a.txt", b"content")
    assert "save" not in pair.remote.calls


def test_the_answer_was_lost(pair: Pair) -> None:
    """Where the bytes arrived but the answer did not, the next attempt finds them; nothing is stored twice."""
    original = pair.remote._save

    def save(name: str, content: Any) -> str:
        original(name, content)
        raise ConnectionResetError("the answer was lost")

    pair.remote._save = save
    record = put(pair, "a.txt")
    assert sweeping.process(record.pk) == "retry"
    del pair.remote._save
    assert sweeping.process(record.pk) == "transferred"
    assert facts(record, b"content") == moved("a.txt", b"content", retries=2)
    assert pair.remote.listdir("") == ([], ["a.txt"])


def test_the_returned_name(make_pair: MakePair) -> None:
    """The name that the remote chose is recorded and used by every reader."""
    pair = make_pair(remote="tests.storages.RenamingStorage", keep_local=False)
    record = transfer(pair, "a.txt")
    assert facts(record, b"content") == moved("a.txt", b"content", remote_name="renamed/a.txt", local_copy=False)
    assert (read(pair, "a.txt"), pair.url("a.txt")) == (b"content", "https://remote.example/renamed/a.txt")
    pair.delete("a.txt")
    finish()
    assert pair.remote.listdir("renamed") == ([], [])


def test_the_process_is_told_to_stop(pair: Pair) -> None:
    """A worker that is told to stop gives the record back at once, uncounted."""
    record = put(pair, "a.txt")

    def stop(name: str) -> None:
        raise SystemExit(0)

    pair.remote.faults["save"] = stop
    with pytest.raises(SystemExit):
        sweeping.process(record.pk)
    row = facts(record, b"content")
    changes = {"due": timedelta(0), "error_kind": "passing", "error": "the worker was told to stop"}
    assert row == saved("a.txt", b"content", **changes)
    pair.remote.faults.clear()
    assert sweeping.process(record.pk, 0) == "transferred"


def test_another_host(pair: Pair, settings: Any) -> None:
    """A file on another host's disk is left to that host, uncounted."""
    settings.QUEUED_STORAGE_NODE = "web-1"
    record = put(pair, "a.txt")
    settings.QUEUED_STORAGE_NODE = "worker-1"
    assert sweeping.process(record.pk) == "retry"
    row = facts(record, b"content")
    assert (row["node"], row["retries"], row["error_kind"]) == ("web-1", 0, "elsewhere")
    settings.QUEUED_STORAGE_NODE = "web-1"
    assert sweeping.process(record.pk) == "transferred"


def test_one_record_by_eight_workers(pair: Pair, threads: Threads) -> None:
    """Eight workers with the same message at the same moment make one attempt."""
    record = put(pair, "a.txt")
    outcomes = threads.together(8, lambda number: sweeping.process(record.pk))
    assert sorted(outcomes, key=str) == [None] * 7 + ["transferred"]
    assert (pair.remote.calls.count("save"), attempts()) == (1, [("transferred", "", 7)])


def test_no_transaction_is_open_while_bytes_move(pair: Pair) -> None:
    """While the remote is talked to no transaction is open and no lock is held."""
    seen: list[bool] = []
    pair.remote.faults["*"] = lambda name: seen.append(connection.in_atomic_block)
    transfer(pair, "a.txt")
    assert seen
    assert not any(seen)


def test_a_receiver_that_fails(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """An error in somebody's receiver is logged and disturbs neither the transfer nor other receivers."""
    other = Receiver()

    def receive(sender: Any, **facts: Any) -> None:
        raise RuntimeError("in a receiver")

    signals.file_transferred.connect(receive)
    signals.file_transferred.connect(other)
    try:
        with caplog.at_level(logging.ERROR, "queued_storage"):
            record = transfer(pair, "a.txt")
    finally:
        signals.file_transferred.disconnect(receive)
        signals.file_transferred.disconnect(other)
    assert facts(record, b"content") == moved("a.txt", b"content")
    ours = [line.getMessage() for line in caplog.records if line.name == "queued_storage"]
    assert (other.told, ours) == ([("a.txt", "")], ["A signal receiver failed"])


def test_an_adopted_record_is_measured(pair: Pair, media: Media) -> None:
    """A record without size and digest takes them from the bytes that it sends."""
    (media.local / "a.txt").write_bytes(BODY)
    record = RecordFactory(name="a.txt", size=None, digest="")
    assert sweeping.process(record.pk) == "transferred"
    assert facts(record, BODY) == moved("a.txt", BODY)


def test_an_unknown_lease(pair: Pair) -> None:
    """Nothing can be completed, retried or failed under a lease that is not the record's."""
    record = RecordFactory(transferring=True)
    record.lease = uuid.uuid4()
    before = facts(record)
    assert settling.settle(record, ErrorKind.PASSING, "late") == "lost"
    assert settling.settle(record, ErrorKind.MISSING, "late") == "lost"
    assert (facts(record), attempts()) == (before, [])


def test_a_gate_that_is_never_reached() -> None:
    """A fault that was not hit makes its test fail."""
    with pytest.raises(AssertionError, match="nobody came"):
        Gate(bound=0.01).wait()


def test_due_after_make_due(pair: Pair) -> None:
    """The tests' clock works: what was due later is due after ``make_due``."""
    record = put(pair, "a.txt")
    assert not ledger.due().exists()
    make_due(record)
    assert list(ledger.due()) == [record]
