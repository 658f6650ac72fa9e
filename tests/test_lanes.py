"""Small files that are claimed and completed together: each is still held, verified and recorded by itself."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from queued_storage import batches, draining, lanes, ledger, tasks
from queued_storage.models import Outcome, TransferAttempt
from queued_storage.transfers import Attempt
from tests.fixtures import Pair, committing, put

pytest_plugins = ["tests.fixtures"]
pytestmark = committing


def drained(threads: int = 1) -> list[tuple[str, str]]:
    """Run everything that is owed, and return how each file ended."""
    return [(record.name, str(outcome)) for record, outcome in draining.drain(threads=threads)]


def states() -> dict[str, str]:
    """Return the state of each file."""
    return dict(ledger.records().values_list("name", "state"))


def names(count: int) -> list[str]:
    """Return as many names, in the order in which they sort."""
    return [f"{number:02}.txt" for number in range(count)]


@pytest.mark.parametrize("threads", [1, 3])
def test_every_file_arrives(pair: Pair, threads: int) -> None:
    """Every file is transferred, and has one attempt in its history with the bytes that were sent."""
    for name in names(12):
        put(pair, name, name.encode())
    assert sorted(drained(threads)) == [(name, "transferred") for name in names(12)]
    assert states() == dict.fromkeys(names(12), "transferred")
    attempts = TransferAttempt.objects.order_by("record__name").values_list("record__name", "outcome", "bytes")
    assert list(attempts) == [(name, "transferred", 6) for name in names(12)]


def test_statements(pair: Pair) -> None:
    """Twice as many files in a batch cost not one statement more."""
    counts = []
    for count in (10, 20):
        for name in names(count):
            put(pair, f"{count}/{name}")
        with CaptureQueriesContext(connection) as queries:
            assert len(drained()) == count
        counts.append(Counter(query["sql"].split()[0] for query in queries))
    assert counts[0] == counts[1]
    assert counts[0]["UPDATE"] == 2


def test_in_the_order_of_their_saving(pair: Pair) -> None:
    """A file that must go alone goes after those that are claimed with its neighbours: it may take long."""
    records = [put(pair, name) for name in names(5)]
    ledger.records().filter(pk=records[2].pk).update(retries=1)
    order: list[str] = []
    pair.remote.faults["save"] = order.append
    drained()
    assert order == ["00.txt", "01.txt", "03.txt", "04.txt", "02.txt"]


def test_an_error_gives_the_others_back(pair: Pair) -> None:
    """After an error the next ones are claimed one by one, when their turn has come; nobody's count has changed."""
    for name in names(5):
        put(pair, name)

    def fail(name: str) -> None:
        if name == "01.txt":
            raise ConnectionError("no route")
        if name == "03.txt":
            assert ledger.records().get(name="04.txt").state == "queued"

    pair.remote.faults["save"] = fail
    ended = dict(drained())
    assert ended == dict.fromkeys(names(5), "transferred") | {"01.txt": "retry"}
    assert dict(ledger.records().values_list("name", "retries")) == dict.fromkeys(names(5), 1)


def test_a_lost_lease(pair: Pair) -> None:
    """A record that somebody else has taken meanwhile is left to him; the others of the batch are completed."""
    for name in names(4):
        put(pair, name)
    other = uuid.uuid4()
    pair.remote.faults["save"] = lambda name: (
        ledger.records().filter(name="00.txt").update(lease=other) and None if name == "03.txt" else None
    )
    assert dict(drained()) == dict.fromkeys(names(4), "transferred") | {"00.txt": "lost"}
    assert ledger.records().get(name="00.txt").lease == other
    assert TransferAttempt.objects.count() == 3


def test_a_deleted_file(pair: Pair) -> None:
    """A file that is deleted while its batch is under way stays deleted."""
    for name in names(3):
        put(pair, name)
    pair.remote.faults["save"] = lambda name: pair.delete("00.txt") if name == "02.txt" else None
    assert dict(drained()) == dict.fromkeys(names(3), "transferred") | {"00.txt": "lost"}
    assert states() == dict.fromkeys(names(3), "transferred") | {"00.txt": "deleted"}


def test_stopped(pair: Pair) -> None:
    """A run that is closed early records what has arrived, and gives back the rest as it was."""
    for name in names(8):
        put(pair, name)

    def fail(name: str) -> None:
        if name == "02.txt":
            raise ConnectionError("no route")

    pair.remote.faults["save"] = fail
    run = draining.drain()
    assert next(run)[0].name == "02.txt"
    run.close()
    found = Counter(states().values())
    assert found == {"transferred": 2, "queued": 6}
    waiting = ledger.records().filter(state="queued").exclude(name="02.txt")
    assert set(waiting.values_list("retries", "lease")) == {(0, None)}


def test_what_is_claimed_alone(pair: Pair) -> None:
    """Large files, files that were tried before, held ones and those of unknown digest are not claimed together."""
    plain, large, tried, held, adopted = (put(pair, name) for name in names(5))
    ledger.records().filter(pk=large.pk).update(size=batches.SMALL + 1)
    ledger.records().filter(pk=tried.pk).update(retries=1)
    ledger.hold(held.pk)
    ledger.records().filter(pk=adopted.pk).update(digest="")
    lease = uuid.uuid4()
    everything = list(ledger.records().values_list("pk", flat=True))
    assert [record.pk for record in batches.claim(everything, lease, "host:1")] == [plain.pk]
    assert batches.give_back(everything, uuid.uuid4()) == 0
    assert batches.give_back(everything, lease) == 1
    assert ledger.records().get(pk=plain.pk).retries == 0


def test_a_message(pair: Pair, django_assert_max_num_queries: Any) -> None:
    """The records of one message are claimed together as well."""
    pks = [put(pair, name).pk for name in names(10)]
    with django_assert_max_num_queries(8):
        outcomes = tasks.process_each([[pk, 0] for pk in pks])
    assert outcomes == {str(pk): str(Outcome.TRANSFERRED) for pk in pks}


def test_a_batch_that_took_too_long(pair: Pair) -> None:
    """What has waited for a third of its lease is given back, and claimed anew when its turn has come."""
    first, second = (put(pair, name) for name in names(2))
    worker = lanes.Worker([(first.pk, None), (second.pk, None)])
    begun = worker._next()
    assert isinstance(begun, Attempt)
    assert states() == dict.fromkeys(names(2), "transferring")
    worker._todo[0].renew_at = 0.0  # type: ignore[union-attr]
    assert worker._next() == (second.pk, 0)
    assert states() == {"00.txt": "transferring", "01.txt": "queued"}


def test_a_file_saved_at_the_full_second(pair: Pair) -> None:
    """It comes once, also where the database compares times as text."""
    for name in names(2):
        put(pair, name)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE queued_storage_transferrecord SET created_at = '2026-01-01 00:00:00.000'")
    assert drained() == [(name, "transferred") for name in names(2)]
