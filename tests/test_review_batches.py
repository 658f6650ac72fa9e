"""Batches: what ends early, comes twice, or stands behind a large file."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest

from queued_storage import batches, draining, lanes, ledger, signals, tasks
from queued_storage.models import TransferAttempt
from tests.fixtures import Pair, committing, put

pytest_plugins = ["tests.fixtures"]
pytestmark = committing


@pytest.fixture
def told() -> Any:
    """Collect the names that ``file_transferred`` tells."""
    names: list[str] = []

    def receive(name: str, **kwargs: Any) -> None:
        names.append(name)

    signals.file_transferred.connect(receive)
    yield names
    signals.file_transferred.disconnect(receive)


def test_closed_after_the_first_of_a_batch(pair: Pair, told: list[str]) -> None:
    """Whoever stops listening after one file of a batch has everybody told of all that were completed with it."""
    for number in range(4):
        put(pair, f"{number}.txt")
    run = draining.drain()
    next(run)
    run.close()
    transferred = ledger.records().filter(state="transferred").values_list("name", flat=True)
    assert sorted(told) == sorted(transferred)
    assert len(told) == 4


def test_a_record_twice_in_a_message(pair: Pair, told: list[str]) -> None:
    """It is sent, recorded and told once."""
    pks = [put(pair, f"{number}.txt").pk for number in range(2)]
    tasks.process_each([[pk, 0] for pk in (*pks, *pks)])
    assert sorted(told) == ["0.txt", "1.txt"]
    assert TransferAttempt.objects.count() == 2


def test_behind_a_large_file(pair: Pair) -> None:
    """What has arrived is recorded, and nothing waits under a lease, while one lane sends a file that may take long."""
    for number in range(5):
        put(pair, f"{number}.txt")
    ledger.records().filter(name="2.txt").update(retries=1)
    seen: dict[str, str] = {}

    def look(name: str) -> None:
        if name == "2.txt":
            seen.update(ledger.records().values_list("name", "state"))

    pair.remote.faults["save"] = look
    assert {str(outcome) for _, outcome in draining.drain()} == {"transferred"}
    assert seen == {f"{number}.txt": "transferred" for number in (0, 1, 3, 4)} | {"2.txt": "transferring"}


def test_behind_many_large_files(pair: Pair, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does anything wait under a lease while all lanes are busy."""
    settings.QUEUED_STORAGE_LEASE = 6
    monkeypatch.setattr(lanes, "BATCH", 3)
    for number in range(6):
        put(pair, f"{number}.txt")
    ledger.records().filter(name__lt="3").update(retries=1)
    freed = threading.Event()
    waiting = ledger.records().filter(name__gt="4", state="queued", retries=0)

    def hold(name: str) -> None:
        if name < "2":
            freed.wait(20)

    def look(pks: Any, lease: Any) -> int:
        count = give_back(pks, lease)
        if waiting.exists():
            freed.set()
        return count

    give_back = batches.give_back
    monkeypatch.setattr(batches, "give_back", look)
    pair.remote.faults["save"] = hold
    assert {str(outcome) for _, outcome in draining.drain(threads=2)} == {"transferred"}
    assert freed.is_set()


def test_a_row_that_names_another_place(pair: Pair) -> None:
    """What lies elsewhere than its row says is not recorded as transferred: readers would look in the wrong place."""
    first, second = put(pair, "1.txt"), put(pair, "2.txt")
    lease = uuid.uuid4()
    claimed = {record.pk: record for record in batches.claim([first.pk, second.pk], lease, "host:1")}
    claimed[first.pk].remote_name = "elsewhere.txt"
    done = batches.complete(dict.fromkeys(claimed.values(), 7), lease, None)
    assert done == {second.pk}
    states = dict(ledger.records().values_list("pk", "state"))
    assert states == {first.pk: "transferring", second.pk: "transferred"}
    assert TransferAttempt.objects.count() == 1
