"""Faults that last: a remote that is down for hours, objects that show late, clocks that are wrong."""

from __future__ import annotations

import time
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.utils import timezone as django_timezone

from queued_storage import health, ledger, sweeping, tasks
from queued_storage.models import State, TransferAttempt, TransferRecord
from queued_storage.testing import store
from tests.fixtures import (
    MakePair,
    Outbox,
    Pair,
    attempts,
    committing,
    facts,
    finish,
    make_due,
    moved,
    put,
    read,
    saved,
)

pytest_plugins = ["tests.fixtures"]
pytestmark = committing

BACKLOG = 300


def unreachable(name: str) -> None:
    """Be down."""
    raise ConnectionError("the remote cannot be reached")


def test_an_outage_of_hours_with_a_backlog(pair: Pair, outbox: Outbox) -> None:
    """While the remote is down one file probes it, whatever the backlog; afterwards everything arrives, each once."""
    pair.remote.faults["*"] = unreachable
    records = [put(pair, f"{number}.txt") for number in range(BACKLOG)]
    for record in records[:3]:
        sweeping.process(record.pk)
    assert health.down() == ["default"]
    outbox.take()
    for _ in range(12):
        make_due(*records)
        health.storages().update(probe_at=ledger.DatabaseNow())
        sweeping.sweep(tasks.send)
        messages = outbox.take()
        assert sum(len(message.kwargs["records"]) for message in messages) <= 1
        for message in messages:
            message.deliver()
    tried = TransferAttempt.objects.count()
    assert tried <= 3 + 12
    assert pair.remote.calls.count("save") == 0
    pair.remote.faults.clear()
    for _ in range(3):
        make_due(*records)
        health.storages().update(probe_at=ledger.DatabaseNow())
        sweeping.sweep(tasks.send)
        outbox.deliver()
    assert set(TransferRecord.objects.values_list("state", flat=True)) == {State.TRANSFERRED}
    assert pair.remote.calls.count("save") == BACKLOG
    assert TransferAttempt.objects.count() == tried + BACKLOG


def test_an_object_that_shows_late(make_pair: MakePair) -> None:
    """An object that the remote does not show after its upload is not taken for absent: one object, found later."""
    name = uuid.uuid4().hex
    pair = make_pair(
        remote="queued_storage.testing.FaultyRemoteStorage", remote_options={"name": name}, keep_local=False
    )
    record = put(pair, "a.txt")
    with store(name).hide(times=3):
        outcomes = [sweeping.process(record.pk)]
        while outcomes[-1] != "transferred":
            assert (read(pair, "a.txt"), pair.local.exists("a.txt")) == (b"content", True)
            make_due(record)
            outcomes.append(sweeping.process(record.pk))
            assert len(outcomes) < 10
    assert outcomes[0] == "retry"
    assert read(pair, "a.txt") == b"content"
    assert len(dict(store(name).objects)) == 1


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_worker_whose_clock_is_wrong(pair: Pair, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """A clock that is an hour off takes no lease from the living, and writes no wrong time into the ledger."""
    taken, mine = put(pair, "taken.txt"), put(pair, "mine.txt")
    assert ledger.claim(taken.pk, uuid.uuid4(), "another:1").exists()
    before, real = facts(taken), time.time
    now = django_timezone.now
    monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
    monkeypatch.setattr(django_timezone, "now", lambda: now() + timedelta(hours=hours))
    sweeping.sweep(sweeping.process_all)
    assert facts(taken) == before
    assert sweeping.process(mine.pk) == "transferred"
    late = put(pair, "late.txt")
    assert facts(late, b"content") == saved("late.txt", b"content")
    times: Any = ledger.records().values_list("created_at", "updated_at", "transferred_at").get(pk=mine.pk)
    there = datetime.fromtimestamp(real(), timezone.utc)
    assert all(abs(there - moment) < timedelta(minutes=5) for moment in times)
    monkeypatch.undo()
    assert facts(mine, b"content") == moved("mine.txt", b"content")
    finish()
    assert attempts(taken) == [("lost", "lost", 0), ("transferred", "", 7)]
