"""``queued_storage_evict``: room on the local disk, never at the price of an unverified file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import InMemoryStorage

from queued_storage import evicting, ledger
from queued_storage.results import tally
from tests.fixtures import MakePair, Pair, facts, make_due, moved, put, read, record_of, transfer
from tests.servers.roots import fresh
from tests.storages import PrivateStorage
from tests.test_commands import Ran, manage, rows

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


class Memory(InMemoryStorage):
    """A local storage that is no file system."""


def report(evicted: int = 0, size: int = 0, absent: int = 0, kept: int = 0, unknown: int = 0) -> str:
    """Return what ``evict`` prints."""
    return f"evicted: {evicted}\nbytes:   {size}\nabsent:  {absent}\nkept:    {kept}\nunknown: {unknown}\n"


def local_files(pair: Pair) -> list[str]:
    """Return what lies on the local side."""
    return sorted(pair.local.listdir("")[1])


def test_evict_by_age(pair: Pair) -> None:
    """Old files that are on the remote lose their local copies; young and owed ones keep them."""
    old, _, owed = transfer(pair, "old.txt"), transfer(pair, "young.txt"), put(pair, "owed.txt")
    make_due(old, owed, by=timedelta(days=3))
    before = rows()
    assert manage("evict", "--older-than", "2d", "--dry-run") == Ran(
        0, "default: old.txt: 7 bytes\n", "Would evict 1 files, 7 bytes, of those that the remote still holds.\n"
    )
    assert manage("evict", "--all", "--dry-run", "--json").json == {"would_evict": {"files": 2, "bytes": 14}}
    assert rows() == before
    assert manage("evict", "--older-than", "2d") == Ran(0, report(evicted=1, size=7), "")
    assert local_files(pair) == ["owed.txt", "young.txt"]
    assert facts(record_of(pair, "old.txt"), b"content") == moved("old.txt", b"content", local_copy=False)
    assert read(pair, "old.txt") == b"content"
    assert manage("evict", "--older-than", "2d", "--json").json == {
        "evicted": 0,
        "bytes": 0,
        "absent": 0,
        "kept": 0,
        "unknown": 0,
    }


def test_evict_by_size(make_pair: MakePair) -> None:
    """The oldest go until no more than the limit lies there, owed files counted in; each storage has the limit."""
    pair, other = make_pair(), make_pair("other", remote_options={"location": str(fresh("other"))})
    for name in ("a.txt", "b.txt", "c.txt"):
        transfer(pair, name, b"x" * 100)
    put(pair, "owed.txt", b"x" * 50)
    transfer(other, "d.txt", b"x" * 100)
    assert manage("evict", "--max-size", "350") == Ran(0, report(), "")
    dry = manage("evict", "--max-size", "249", "--dry-run")
    assert dry.out == "default: a.txt: 100 bytes\ndefault: b.txt: 100 bytes\n"
    assert manage("evict", "--max-size", "249") == Ran(0, report(evicted=2, size=200), "")
    assert evicting.local_bytes("default") == 150
    assert evicting.local_bytes("other") == 100
    assert manage("evict", "--max-size", "10", "--storage", "default") == Ran(
        1, report(evicted=1, size=100), "40 bytes too few were freed: no other verified copy lies there.\n"
    )
    assert evicting.local_bytes("other") == 100


def test_evict_by_free_space(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go until enough is free on the disk; where enough is free none goes."""
    for name in ("a.txt", "b.txt", "c.txt"):
        transfer(pair, name, b"x" * 100)
    assert (evicting.free_bytes(pair) or 0) > 0
    assert manage("evict", "--min-free", "1") == Ran(0, report(), "")
    monkeypatch.setattr(evicting, "free_bytes", lambda storage: 1000)
    assert manage("evict", "--min-free", "1150") == Ran(0, report(evicted=2, size=200), "")
    assert local_files(pair) == ["c.txt"]
    assert manage("evict", "--min-free", "2000", "--limit", "0").out == report()


def test_free_space_of_something_else(make_pair: MakePair) -> None:
    """A local storage that is no file system has no free space; that is said before anything is removed."""
    pair = make_pair(local="tests.test_evict.Memory", local_options={"location": None, "base_url": None})
    transfer(pair, "a.txt")
    ran = manage("evict", "--min-free", "1G")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "default keeps its local files in no file system: leave out --min-free."


def test_never_an_unverified_file(pair: Pair) -> None:
    """The remote is asked again: what it lost or altered keeps its local copy, and a changed local file stays."""
    for name in ("gone.txt", "altered.txt", "changed.txt", "good.txt", "absent.txt"):
        transfer(pair, name)
    Path(pair.remote.path("gone.txt")).unlink()
    Path(pair.remote.path("altered.txt")).write_bytes(b"CONTENT")
    Path(pair.local.path("changed.txt")).write_bytes(b"changed")
    Path(pair.local.path("absent.txt")).unlink()
    ran = manage("evict", "--all")
    assert ran == Ran(
        1,
        report(evicted=1, size=7, absent=1, kept=3),
        "default: gone.txt: kept: nothing at gone.txt after the upload: see who removes it\n"
        "default: altered.txt: kept: the remote holds other bytes at altered.txt than were saved; both copies were "
        "kept\n"
        "default: changed.txt: kept: the local copy has other bytes than were saved\n",
    )
    assert local_files(pair) == ["altered.txt", "changed.txt", "gone.txt"]
    assert facts(record_of(pair, "gone.txt"), b"content") == moved(
        "gone.txt",
        b"content",
        error_kind="mismatch",
        error="nothing at gone.txt after the upload: see who removes it",
    )
    assert record_of(pair, "absent.txt").local_copy is False


def test_a_remote_that_is_down_costs_no_copy(pair: Pair) -> None:
    """No answer is no permission."""
    transfer(pair, "a.txt")
    before = rows()

    def unreachable(name: str) -> None:
        raise ConnectionError("no route")

    pair.remote.faults["*"] = unreachable
    assert manage("evict", "--all") == Ran(1, report(unknown=1), "default: a.txt: unknown: ConnectionError: no route\n")
    assert rows() == before
    assert local_files(pair) == ["a.txt"]


def test_a_copy_on_another_host(make_pair: MakePair, settings: Any) -> None:
    """Only the host that has a copy can evict it."""
    settings.QUEUED_STORAGE_NODE = "one"
    pair = make_pair()
    transfer(pair, "a.txt")
    settings.QUEUED_STORAGE_NODE = "two"
    ran = manage("evict", "--prefix", "a")
    assert (ran.code, ran.out) == (1, report(kept=1))
    assert ran.err == "default: a.txt: kept: the local copy lies on the disk of one; evict it there\n"
    assert local_files(pair) == ["a.txt"]


def test_a_disk_that_removes_nothing(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that cannot be removed stays in the ledger, and the next sweep looks at it again."""
    pair = make_pair(local="tests.storages.PrivateStorage")
    record = transfer(pair, "a.txt")

    def stubborn(self: Any, name: str) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(PrivateStorage, "delete", stubborn)
    assert manage("evict", "--all") == Ran(1, report(kept=1), "default: a.txt: kept: it could not be removed\n")
    assert ledger.get(record.pk).local_copy is True  # type: ignore[union-attr]


def test_evict_is_interrupted(pair: Pair) -> None:
    """Ctrl-C ends in 130, and a second run goes on."""
    for name in ("a.txt", "b.txt"):
        transfer(pair, name)

    def interrupt(name: str) -> None:
        if name == "b.txt":
            raise KeyboardInterrupt

    pair.remote.faults["exists"] = interrupt
    assert manage("evict", "--all") == Ran(130, report(evicted=1, size=7), "")
    pair.remote.faults.clear()
    assert manage("evict", "--all") == Ran(0, report(evicted=1, size=7), "")


def test_what_is_not_evictable_is_told_to_callers(pair: Pair) -> None:
    """The function says of each record that it leaves alone why."""
    transfer(pair, "a.txt")
    put(pair, "b.txt")
    first = tally(evicting.evict(ledger.records()))
    assert (first.changed, first.bytes, dict(first.unchanged)) == (1, 7, {"queued": 1})
    assert dict(tally(evicting.evict(ledger.records())).unchanged) == {"absent": 1, "queued": 1}
