"""``keep_local`` as a size: the sweep has the oldest copies evicted until no more lies there."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from queued_storage import evicting, ledger, retention, sweeping
from queued_storage.exceptions import StorageConfigurationError
from queued_storage.models import Heartbeat
from tests.fixtures import MakePair, Outbox, Pair, finish, put, read, record_of, transfer

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


def later() -> None:
    """Let the time pass until the bytes are added up again."""
    Heartbeat.objects.update(seen_at=timezone.now() - retention.EVERY - timedelta(seconds=1))


def local_files(pair: Pair) -> list[str]:
    """Return what lies on the local side."""
    return sorted(pair.local.listdir("")[1])


def test_the_oldest_go(make_pair: MakePair, outbox: Outbox) -> None:
    """Copies go until the limit is kept, those saved first first; owed files count and never go."""
    pair = make_pair(keep_local="250")
    put(pair, "owed.txt", b"x" * 100)
    ledger.hold(record_of(pair, "owed.txt").pk)
    for name in ("a.txt", "b.txt", "c.txt"):
        transfer(pair, name, b"x" * 100)
    assert local_files(pair) == ["a.txt", "b.txt", "c.txt", "owed.txt"]
    assert sweeping.sweep(sweeping.process_all) == {"spilled": 2, "sent": 2}
    assert local_files(pair) == ["c.txt", "owed.txt"]
    assert evicting.local_bytes("default") == 200
    assert read(pair, "a.txt") == b"x" * 100
    later()
    assert sweeping.sweep(sweeping.process_all) == {}


def test_the_bytes_are_not_added_up_every_minute(make_pair: MakePair, outbox: Outbox) -> None:
    """Once in ten minutes is enough, and what is chosen but not gone yet is not chosen again."""
    pair = make_pair(keep_local="0")
    for name in ("a.txt", "b.txt"):
        transfer(pair, name)
    assert retention.spill() == 2
    transfer(pair, "c.txt")
    assert retention.spill() == 0
    later()
    assert retention.spill() == 1
    later()
    assert retention.spill() == 0
    finish()
    assert local_files(pair) == []


def test_what_is_going_counts_as_gone(make_pair: MakePair, outbox: Outbox) -> None:
    """Copies that wait for their eviction are not made up for by younger ones."""
    pair = make_pair(keep_local="10")
    for name in ("a.txt", "b.txt"):
        transfer(pair, name)
    assert retention.spill() == 1
    later()
    assert retention.spill() == 0
    finish()
    assert local_files(pair) == ["b.txt"]


def test_never_an_unverified_file(make_pair: MakePair) -> None:
    """What the remote lost keeps its copy, however many bytes there are."""
    pair = make_pair(keep_local="0")
    transfer(pair, "a.txt")
    Path(pair.remote.path("a.txt")).unlink()
    sweeping.sweep(sweeping.process_all)
    assert local_files(pair) == ["a.txt"]
    record = record_of(pair, "a.txt")
    assert (record.local_copy, record.error_kind) == (True, "mismatch")


def test_other_storages_are_left_alone(make_pair: MakePair) -> None:
    """Without a number of bytes nothing is chosen, nor added up."""
    pair = make_pair()
    transfer(pair, "a.txt")
    assert retention.spill() == 0
    assert not Heartbeat.objects.exists()
    assert (pair.keep_bytes, pair.evict_after) == (None, None)


@pytest.mark.parametrize(
    ("keep", "size", "after"),
    [
        (True, None, None),
        (False, None, timedelta(0)),
        (timedelta(hours=1), None, timedelta(hours=1)),
        ("50G", 50 * 1024**3, None),
        ("0", 0, None),
        ("20KiB", 20 * 1024, None),
    ],
)
def test_what_keep_local_says(make_pair: MakePair, keep: Any, size: int | None, after: timedelta | None) -> None:
    """For ever, not at all, for a time, or up to a size."""
    pair = make_pair(keep_local=keep)
    assert (pair.keep_bytes, pair.evict_after) == (size, after)


@pytest.mark.parametrize("keep", [-1, 3600, "", "50X", 1.5])
def test_what_keep_local_cannot_say(make_pair: MakePair, keep: Any) -> None:
    """Anything else is refused with what to write."""
    with pytest.raises(StorageConfigurationError, match='a timedelta or a size such as "20G", not'):
        make_pair(keep_local=keep)
