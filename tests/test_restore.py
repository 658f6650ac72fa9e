"""``queued_storage_restore``: remote files come back, verified, and nothing is written over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from queued_storage import ledger, restoring, sweeping
from queued_storage.results import tally
from tests.fixtures import Pair, facts, finish, moved, put, record_of, transfer
from tests.test_commands import Ran, manage, rows
from tests.test_verify import evicted

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


def report(
    restored: int = 0, size: int = 0, present: int = 0, altered: int = 0, taken: int = 0, unknown: int = 0
) -> str:
    """Return what ``restore`` prints."""
    return (
        f"restored: {restored}\nbytes:    {size}\npresent:  {present}\naltered:  {altered}\ntaken:    {taken}\n"
        f"unknown:  {unknown}\n"
    )


def test_restore(pair: Pair) -> None:
    """Every evicted file is local again with its bytes, and no sweep takes it away."""
    for name in ("a.txt", "b/c.txt"):
        evicted(pair, name, name.encode())
    transfer(pair, "kept.txt")
    before = rows()
    assert manage("restore", "--dry-run") == Ran(
        0, "default: a.txt: 5 bytes\ndefault: b/c.txt: 7 bytes\n", "Would restore 2 files.\n"
    )
    assert manage("restore", "--dry-run", "--json", "--limit", "1").json == {"would_restore": 1}
    assert rows() == before
    assert manage("restore", "--rate", "1000") == Ran(0, report(restored=2, size=12), "")
    assert Path(pair.local.path("b/c.txt")).read_bytes() == b"b/c.txt"
    assert facts(record_of(pair, "a.txt"), b"a.txt") == moved("a.txt", b"a.txt")
    finish()
    assert pair.local.exists("a.txt")
    assert manage("restore", "--json").json == {
        "restored": 0,
        "bytes": 0,
        "present": 0,
        "altered": 0,
        "taken": 0,
        "unknown": 0,
    }


def test_other_bytes_are_not_restored(pair: Pair) -> None:
    """What the remote altered or lost is not brought back as if it were the file."""
    evicted(pair, "altered.txt")
    evicted(pair, "gone.txt")
    Path(pair.remote.path("altered.txt")).write_bytes(b"CONTENT")
    Path(pair.remote.path("gone.txt")).unlink()
    ran = manage("restore")
    assert (ran.code, ran.out) == (1, report(altered=1, unknown=1))
    lines = ran.err.splitlines()
    assert lines[0] == (
        "default: altered.txt: altered: the remote gave other bytes than were saved; nothing was restored"
    )
    assert lines[1].startswith("default: gone.txt: unknown: FileNotFoundError")
    assert pair.local.listdir("")[1] == []
    assert not ledger.records().filter(local_copy=True).exists()


def test_nothing_is_written_over(pair: Pair) -> None:
    """A file that somebody put into the place stays; the right bytes there are taken for the copy."""
    evicted(pair, "foreign.txt")
    evicted(pair, "half.txt")
    Path(pair.local.path("foreign.txt")).write_bytes(b"foreign")
    Path(pair.local.path("half.txt")).write_bytes(b"content")
    pair.remote.forget()
    assert manage("restore") == Ran(
        1,
        report(restored=1, size=7, taken=1),
        "default: foreign.txt: taken: another file lies at foreign.txt: move it away, then restore again\n",
    )
    assert pair.remote.calls == []
    assert Path(pair.local.path("foreign.txt")).read_bytes() == b"foreign"
    assert record_of(pair, "half.txt").local_copy is True


def test_a_file_deleted_meanwhile_leaves_nothing(pair: Pair) -> None:
    """A delete while the bytes come back wins, and no copy stays behind."""
    evicted(pair, "a.txt")
    pair.remote.faults["open"] = lambda name: pair.delete("a.txt")
    assert manage("restore").out == report()
    assert pair.local.listdir("")[1] == []
    finish()
    assert not pair.remote.exists("a.txt")


def test_restore_on_another_host(pair: Pair, settings: Any) -> None:
    """Where hosts have disks of their own the copy belongs to the one that fetched it."""
    settings.QUEUED_STORAGE_NODE = "one"
    evicted(pair, "a.txt")
    settings.QUEUED_STORAGE_NODE = "two"
    assert manage("restore") == Ran(0, report(restored=1, size=7), "")
    assert record_of(pair, "a.txt").node == "two"
    assert manage("evict", "--all").code == 0


def test_restore_is_interrupted(pair: Pair) -> None:
    """Ctrl-C ends in 130 and leaves no half of a file; a second run goes on."""
    for name in ("a.txt", "b.txt"):
        evicted(pair, name)

    def interrupt(name: str) -> None:
        if name == "b.txt":
            raise KeyboardInterrupt

    pair.remote.faults["open"] = interrupt
    assert manage("restore") == Ran(130, report(restored=1, size=7), "")
    pair.remote.faults.clear()
    assert pair.local.listdir("")[1] == ["a.txt"]
    assert manage("restore") == Ran(0, report(restored=1, size=7), "")


def test_what_is_not_restored_is_told_to_callers(pair: Pair) -> None:
    """The function says of each record that it leaves alone why."""
    put(pair, "a.txt")
    transfer(pair, "b.txt")
    evicted(pair, "c.txt")
    result = tally(restoring.restore(ledger.records()))
    assert (result.changed, result.bytes, dict(result.unchanged)) == (1, 7, {"queued": 1, "present": 1})


def test_a_restored_file_is_evicted_and_removed_like_any_other(pair: Pair) -> None:
    """The way there and back can be gone again."""
    record = evicted(pair, "a.txt")
    assert manage("restore").code == 0
    assert manage("evict", "--all").code == 0
    assert manage("restore").code == 0
    pair.delete("a.txt")
    finish()
    assert not pair.local.exists("a.txt")
    assert sweeping.process(record.pk) is None
