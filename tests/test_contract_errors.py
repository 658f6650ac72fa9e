"""What goes wrong in a transfer, and what becomes of the record then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import DatabaseError, connection

from queued_storage import ledger, sweeping
from queued_storage.exceptions import ErrorKind, MismatchError, TransferError
from queued_storage.models import State, TransferRecord
from tests.conftest import Media
from tests.fixtures import (
    MakePair,
    Pair,
    attempts,
    committing,
    facts,
    finish,
    moved,
    put,
    read,
    record_of,
    saved,
)

pytest_plugins = ["tests.fixtures"]
pytestmark = committing


def raising(error: Exception) -> Callable[[str], None]:
    """Return a fault that raises ``error``."""

    def fault(name: str) -> None:
        raise error

    return fault


@pytest.mark.parametrize(
    "meddle",
    [lambda data: data[:-1], lambda data: data + b"!", lambda data: b"X" + data[1:], lambda data: b""],
    ids=["truncated", "longer", "altered", "empty"],
)
def test_other_bytes_on_the_remote(make_pair: MakePair, meddle: Callable[[bytes], bytes], told: Any) -> None:
    """A remote that stores other bytes is found out: never transferred, local served, failed after three."""
    pair = make_pair(remote="tests.storages.MeddlingStorage", task="queued_storage.tasks.TransferAndDelete")
    pair.remote.meddle = meddle
    record = put(pair, "a.txt")
    assert [sweeping.process(record.pk) for _ in range(4)] == ["retry", "retry", "failed", None]
    row = facts(record, b"content")
    assert (row["state"], row["error_kind"], row["retries"], row["due"]) == ("failed", "mismatch", 3, None)
    assert "other bytes" in row["error"]
    assert read(pair, "a.txt") == b"content"
    assert told.failed.told == [("a.txt", "mismatch")]
    assert [kind for _, kind, _ in attempts()] == ["mismatch"] * 3


def test_three_strikes_again_after_a_retry_by_hand(make_pair: MakePair) -> None:
    """A failed record that a person retries gets all its strikes anew."""
    pair = make_pair(remote="tests.storages.MeddlingStorage")
    pair.remote.meddle = lambda data: data[:-1]
    record = put(pair, "a.txt")
    assert [sweeping.process(record.pk) for _ in range(3)] == ["retry", "retry", "failed"]
    pair.transfer("a.txt")
    assert [sweeping.process(record.pk) for _ in range(3)] == ["retry", "retry", "failed"]


def test_strikes_must_come_in_a_row(make_pair: MakePair) -> None:
    """Another error between two mismatches starts the count anew."""
    pair = make_pair(remote="tests.storages.MeddlingStorage")
    record = put(pair, "a.txt")
    pair.remote.meddle = lambda data: data[:-1]
    outcomes = [sweeping.process(record.pk), sweeping.process(record.pk)]
    pair.remote.faults["save"] = raising(ConnectionError("away"))
    outcomes.append(sweeping.process(record.pk))
    pair.remote.faults.clear()
    outcomes += [sweeping.process(record.pk), sweeping.process(record.pk), sweeping.process(record.pk)]
    assert outcomes == ["retry"] * 5 + ["failed"]


def test_a_local_file_that_changed(pair: Pair, media: Media) -> None:
    """A local file that somebody altered in place never arrives as good; the reason stands in the record."""
    record = put(pair, "a.txt")
    (media.local / "a.txt").write_bytes(b"CONTENT")
    assert [sweeping.process(record.pk) for _ in range(3)] == ["retry", "retry", "failed"]
    assert facts(record)["error_kind"] == "mismatch"


@pytest.mark.parametrize("content", [b"conte", b"content and more"])
def test_a_local_file_of_another_size(pair: Pair, media: Media, content: bytes) -> None:
    """A local file that shrank or grew is not sent to its end, and never counts as transferred."""
    record = put(pair, "a.txt")
    (media.local / "a.txt").write_bytes(content)
    assert [sweeping.process(record.pk) for _ in range(3)] == ["retry", "retry", "failed"]
    assert "it was changed" in facts(record)["error"]
    assert content not in [path.read_bytes() for path in media.remote.iterdir()]


def test_a_missing_local_file(pair: Pair, told: Any) -> None:
    """A local file that is gone fails at once, and comes back with a retry by hand once it is put back."""
    record = put(pair, "a.txt")
    pair.local.delete("a.txt")
    assert sweeping.process(record.pk) == "failed"
    row = facts(record, b"content")
    assert row == saved(
        "a.txt", b"content", state="failed", due=None, retries=1, error_kind="missing", error=row["error"]
    )
    assert row["error"].startswith("SourceMissingError: no local file a.txt")
    assert told.failed.told == [("a.txt", "missing")]
    pair.local.save("a.txt", ContentFile(b"content"))
    pair.transfer("a.txt")
    assert sweeping.process(record.pk) == "transferred"


def test_a_missing_local_file_that_arrived(pair: Pair, media: Media) -> None:
    """A local file that is gone does no harm where its bytes are on the remote already."""
    record = put(pair, "a.txt")
    (media.remote / "a.txt").write_bytes(b"content")
    pair.local.delete("a.txt")
    assert sweeping.process(record.pk) == "transferred"
    assert read(pair, "a.txt") == b"content"


@pytest.mark.parametrize(
    ("error", "kind", "state", "retries"),
    [
        (ConnectionError("reset"), ErrorKind.PASSING, State.QUEUED, 1),
        (TimeoutError("slow"), ErrorKind.PASSING, State.QUEUED, 1),
        (PermissionError("no"), ErrorKind.DENIED, State.QUEUED, 1),
        (OSError(27, "File too large"), ErrorKind.REFUSED, State.FAILED, 1),
        (RuntimeError("who knows"), ErrorKind.PASSING, State.QUEUED, 1),
        (TransferError("slow down", ErrorKind.THROTTLED), ErrorKind.THROTTLED, State.QUEUED, 0),
        (TransferError("never", ErrorKind.REFUSED), ErrorKind.REFUSED, State.FAILED, 1),
        (MismatchError("differs"), ErrorKind.MISMATCH, State.QUEUED, 1),
    ],
    ids=lambda value: str(getattr(value, "value", value))[:20],
)
def test_errors_of_the_remote(pair: Pair, error: Exception, kind: ErrorKind, state: State, retries: int) -> None:
    """Each kind of error has its way on: tried again and counted or not, or failed at once."""
    record = put(pair, "a.txt")
    pair.remote.faults["save"] = raising(error)
    sweeping.process(record.pk)
    row = facts(record, b"content")
    text = f"{type(error).__name__}: {error}"
    expected = {"state": state, "retries": retries, "error_kind": kind, "error": text, "due": row["due"]}
    assert row == saved("a.txt", b"content", **expected)
    assert (row["due"] is None) == (state == State.FAILED)
    assert attempts() == [("failed" if state == State.FAILED else "retry", kind, 0)]


def test_an_error_that_cannot_be_printed(pair: Pair) -> None:
    """An exception whose text cannot be made is recorded like any other."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError

    record = put(pair, "a.txt")
    pair.remote.faults["save"] = raising(MuteError())
    assert sweeping.process(record.pk) == "retry"
    assert "MuteError" in facts(record)["error"]


def test_the_delays_of_retries(pair: Pair, settings: Any) -> None:
    """Retries wait twice as long each time, less a fifth at most, up to the cap, and never end."""
    settings.QUEUED_STORAGE_BACKOFF_CAP = 1000
    record, waits = put(pair, "a.txt"), []
    pair.remote.faults["save"] = raising(ConnectionError("away"))
    for _ in range(8):
        sweeping.process(record.pk)
        waits.append(facts(record)["due"].total_seconds())
    for wait, full in zip(waits, [60, 120, 240, 480, 960, 1000, 1000, 1000], strict=True):
        assert full * 0.8 - 0.01 <= wait <= full + 0.01


def test_throttling_is_not_counted(pair: Pair, told: Any) -> None:
    """A remote that asks for patience gets it, without counting, and never makes a record stalled."""
    record = put(pair, "a.txt")
    pair.remote.faults["save"] = raising(TransferError("slow down", ErrorKind.THROTTLED))
    for _ in range(8):
        assert sweeping.process(record.pk) == "retry"
    assert (facts(record)["retries"], facts(record)["due"], told.stalled.told) == (0, timedelta(seconds=60), [])


def test_stalled(pair: Pair, settings: Any, told: Any) -> None:
    """A record that used up its retries is stalled and told once, is still owed, and arrives when it can."""
    settings.QUEUED_STORAGE_RETRIES = 2
    record = put(pair, "a.txt")
    pair.remote.faults["save"] = raising(ConnectionError("away"))
    outcomes = [sweeping.process(record.pk) for _ in range(5)]
    assert outcomes == ["retry"] * 5
    assert told.stalled.told == [("a.txt", "passing")]
    assert list(ledger.stalled()) == [record]
    pair.remote.faults.clear()
    finish()
    assert facts(record, b"content") == moved("a.txt", b"content", retries=6)


def test_no_retries(pair: Pair, settings: Any, told: Any) -> None:
    """With no retries a record is stalled by its first error, and still arrives."""
    settings.QUEUED_STORAGE_RETRIES = 0
    record = put(pair, "a.txt")
    pair.remote.faults["save"] = raising(ConnectionError("away"))
    sweeping.process(record.pk)
    assert told.stalled.told == [("a.txt", "passing")]
    pair.remote.faults.clear()
    finish()
    assert record_of(pair, "a.txt").state == State.TRANSFERRED


def test_a_ledger_without_its_table(pair: Pair, media: Media) -> None:
    """Where the table is missing the database says so itself: its error comes through, and nothing is left."""
    table = TransferRecord._meta.db_table
    rename = "ALTER TABLE {} RENAME TO {}".format
    with connection.cursor() as cursor:
        cursor.execute(rename(table, "elsewhere"))
    try:
        with pytest.raises(DatabaseError, match=table):
            pair.save("a.txt", ContentFile(b"content"))
    finally:
        with connection.cursor() as cursor:
            cursor.execute(rename("elsewhere", table))
    assert list(media.local.glob("*.txt")) == []
