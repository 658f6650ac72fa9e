"""What the sweep leaves behind for those who watch: its heartbeat, and the signal of a late file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from queued_storage import heartbeat, signals, sweeping, tasks
from queued_storage.models import Heartbeat
from tests.factories import RecordFactory
from tests.fixtures import Outbox, Receiver, Threads, committing

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def late() -> Iterator[Receiver]:
    """What is said of late files."""
    receiver = Receiver()
    signals.transfer_late.connect(receiver)
    yield receiver
    signals.transfer_late.disconnect(receiver)


def sweep_after(minutes: int) -> dict[str, int]:
    """Sweep as if the last sweep had been so long ago."""
    Heartbeat.objects.update(seen_at=timezone.now() - timedelta(minutes=minutes))
    return sweeping.sweep(lambda records: None)


def test_a_sweep_is_noted(outbox: Outbox) -> None:
    """Each sweep leaves its moment."""
    assert heartbeat.last(heartbeat.SWEEP) is None
    tasks.sweep()
    first = heartbeat.last(heartbeat.SWEEP)
    tasks.sweep()
    second = heartbeat.last(heartbeat.SWEEP)
    assert first is not None
    assert second is not None
    assert first <= second
    assert abs(timezone.now() - second) < timedelta(minutes=1)
    assert Heartbeat.objects.count() == 1


@committing
def test_of_many_at_once_one_begins(threads: Threads) -> None:
    """Each moment is handed out once."""
    heartbeat.begin("duty")
    before = heartbeat.last("duty")
    begun = [pair[0] for pair in threads.together(4, lambda number: heartbeat.begin("duty")) if pair is not None]
    assert begun.count(before) == 1
    assert len(set(begun)) == len(begun)


def test_a_late_file_is_told_once(late: Receiver, settings: Any) -> None:
    """A file is late when it grows older than the setting; held, failed and transferred ones never are."""
    settings.QUEUED_STORAGE_LATE_AFTER = timedelta(minutes=30)
    RecordFactory(name="old", age=timedelta(minutes=31))
    RecordFactory(name="held", age=timedelta(minutes=31), delayed=True)
    RecordFactory(name="failed", age=timedelta(minutes=31), failed=True)
    RecordFactory(name="moved", age=timedelta(minutes=31), transferred=True)
    RecordFactory(name="young", age=timedelta(minutes=20))
    assert sweeping.sweep(lambda records: None)["late"] == 1
    assert late.told == [("old", "")]
    assert "late" not in sweep_after(0)
    RecordFactory(name="older", age=timedelta(hours=9))
    assert "late" not in sweep_after(1)
    RecordFactory(name="ripe", age=timedelta(minutes=30, seconds=40), transferring=True)
    assert sweep_after(1)["late"] == 1
    assert late.told == [("old", ""), ("ripe", "")]


def test_late_is_off(late: Receiver, settings: Any) -> None:
    """None switches it off."""
    settings.QUEUED_STORAGE_LATE_AFTER = None
    RecordFactory(age=timedelta(days=31))
    assert "late" not in sweeping.sweep(lambda records: None)
    assert late.told == []
