"""What operators do to many records at once, called as the admin does: on a queryset, answered with counts."""

from __future__ import annotations

import pytest

from queued_storage import ledger, operations, selecting
from queued_storage.results import Result
from tests.factories import RecordFactory
from tests.fixtures import Outbox, Pair, committing, finish, put, transfer
from tests.test_commands import states

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


def counts(result: Result) -> tuple[int, int, dict[str, int]]:
    """Return a result as plain values."""
    return result.changed, result.bytes, {str(state): count for state, count in result.unchanged.items()}


@committing
def test_transfer_now(pair: Pair, outbox: Outbox) -> None:
    """Held, failed and waiting files go now; the others are counted by their states."""
    for trait in ("delayed", "failed", "transferring", "transferred", "deleted"):
        RecordFactory(name=trait, size=10, **{trait: True})
    RecordFactory(name="queued", size=10, retries=4)
    wanted = sorted(ledger.records().filter(name__in=["delayed", "failed", "queued"]).values_list("pk", flat=True))
    result = operations.transfer(ledger.records())
    assert counts(result) == (3, 30, {"transferring": 1, "transferred": 1, "deleted": 1})
    assert sorted(outbox.ids()) == wanted
    assert sorted(ledger.due().values_list("pk", flat=True)) == wanted
    assert set(ledger.records().filter(pk__in=wanted).values_list("state", "retries")) == {("queued", 0)}


@committing
def test_remove(pair: Pair, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are gone for readers at once, caches included, and their copies follow."""
    monkeypatch.setattr(selecting, "CHUNK", 1)
    moved, queued = transfer(pair, "moved.txt"), put(pair, "queued.txt")
    gone = RecordFactory(name="of-a-storage-that-is-gone", storage="gone", size=1)
    assert pair.using_remote("moved.txt")
    outbox.take()
    assert counts(operations.remove(ledger.records().filter(name__endswith=".txt"), limit=1)) == (1, 7, {})
    assert counts(operations.remove(ledger.records())) == (2, 8, {"deleted": 1})
    assert not pair.exists("moved.txt")
    assert not pair.exists("queued.txt")
    assert outbox.ids() == [moved.pk, queued.pk]
    assert set(states().values()) == {"deleted"}
    ledger.records().filter(pk=gone.pk).delete()
    finish()
    assert pair.local.listdir("")[1] == []
    assert pair.remote.listdir("")[1] == []


def test_a_queryset_of_the_admin(pair: Pair) -> None:
    """Order, deferred columns and joins of the caller's queryset do not matter."""
    for number in range(3):
        RecordFactory(name=str(number))
    rows = ledger.records().defer("error", "digest").order_by("-created_at").distinct()
    assert counts(operations.hold(rows)) == (3, 57, {})
    assert counts(operations.release(rows, limit=2)) == (2, 38, {})
