"""The ledger's rows: inserted, found, due, taken, pruned, and what the database itself refuses."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from queued_storage import access, ledger
from queued_storage.exceptions import ErrorKind
from queued_storage.models import Outcome, Side, State, TransferAttempt, TransferRecord
from queued_storage.names import record_key
from tests.factories import BODY, AttemptFactory, RecordFactory
from tests.fixtures import attempts, facts
from tests.test_ledger import STATES, make, row

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


def test_insert() -> None:
    """A name is inserted once; the second insert answers False and leaves the transaction usable."""
    first, second = RecordFactory.build(name="a.txt"), RecordFactory.build(name="a.txt")
    with transaction.atomic():
        assert (ledger.insert(first), ledger.insert(second)) == (True, False)
        assert ledger.records().count() == 1
    assert (first.pk, second.pk) == (ledger.records().get().pk, None)


def test_insert_many() -> None:
    """Names that are taken are left out and everything else of the batch is inserted."""
    new = [RecordFactory.build(name=name) for name in ("a.txt", "b.txt")]
    moment = access.now()
    assert ledger.insert_many(new, moment) == new
    RecordFactory(name="c.txt", failed=True)
    more = [RecordFactory.build(name=name) for name in ("c.txt", "d.txt")]
    assert ledger.insert_many(more, moment) == more[1:]
    assert ledger.insert_many([], moment) == []
    rows = ledger.records().order_by("name").values_list("name", "state")
    assert list(rows) == [("a.txt", "queued"), ("b.txt", "queued"), ("c.txt", "failed"), ("d.txt", "queued")]
    assert abs(timezone.now() - moment) < MINUTE
    assert {record.created_at for record in new} == {moment}


@pytest.mark.parametrize("name", [f"{number}.txt" for number in range(40)])
def test_every_key_is_taken(name: str) -> None:
    """The key of any name can be stored and found on every database."""
    record = RecordFactory.build(name=name)
    assert ledger.insert(record)
    assert ledger.lookup(record_key("default", name)) == record


def test_lookups() -> None:
    """Records are found by key and by id, several keys with one query."""
    record, other = RecordFactory(name="a.txt"), RecordFactory(name="b.txt")
    unknown = record_key("default", "c.txt")
    assert ledger.lookup_many([record.key, other.key, unknown]) == {record.key: record, other.key: other}
    assert (ledger.lookup(unknown), ledger.get(record.pk), ledger.get(987654321)) == (None, record, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "nonsense"},
        {"state": "queued", "due_at": None},
        {"state": "queued", "lease": uuid.uuid4()},
        {"state": "deleted", "due_at": None, "deleted_at": timezone.now()},
        {"state": "deleted", "deleted_at": None},
        {"state": "queued", "deleted_at": timezone.now()},
        {"state": "failed"},
        {"state": "transferring"},
        {"state": "transferring", "lease": uuid.uuid4(), "due_at": None},
        {"state": "transferred", "transferred_at": None},
        {"state": "transferred", "transferred_at": timezone.now(), "size": None},
        {"state": "transferred", "transferred_at": timezone.now(), "lease": uuid.uuid4()},
        {"state": "queued", "key": None},
        {"state": "queued", "local_copy": False},
        {"state": "delayed", "due_at": None, "local_copy": False},
    ],
    ids=lambda changes: " ".join(f"{name}={'NULL' if value is None else value}" for name, value in changes.items())[
        :60
    ],
)
def test_no_limbo(changes: dict[str, Any]) -> None:
    """The database refuses a row that nobody would move on."""
    record = make("queued")
    with pytest.raises((IntegrityError, OperationalError)), transaction.atomic():
        TransferRecord.objects.filter(pk=record.pk).update(**changes)
    assert facts(record, BODY) == row("queued")


@pytest.mark.parametrize("state", STATES)
def test_the_location_follows_the_state(state: str) -> None:
    """The side that serves a file is computed by the database from its state."""
    remote = state in ("transferred", "evicted")
    assert make(state).location == (Side.REMOTE if remote else Side.LOCAL)


def test_one_key_for_one_record() -> None:
    """Two records cannot hold the same key."""
    make("queued")
    with pytest.raises(IntegrityError), transaction.atomic():
        make("queued")


def test_due() -> None:
    """Due are the rows whose timer has ended, the longest due first, and no others."""
    late, later = RecordFactory(due=-2 * MINUTE), RecordFactory(due=-MINUTE, transferring=True)
    RecordFactory(due=MINUTE)
    RecordFactory(failed=True)
    RecordFactory(transferred=True)
    RecordFactory(delayed=True)
    assert list(ledger.due()) == [late, later]
    assert ledger.due_states() == {"queued", "transferring"}


def test_take_due() -> None:
    """Rows that are owed a message are taken once, with their timer set to the next resend."""
    young, old = RecordFactory(due=-MINUTE), RecordFactory(due=-MINUTE, age=timedelta(days=1))
    gone = RecordFactory(deleted=True, due=-MINUTE, worker="host:1")
    held, lost = (
        RecordFactory(delayed=True, due_at=timezone.now() - MINUTE),
        RecordFactory(transferring=True, due=-MINUTE),
    )
    taken = ledger.take_due(10)
    assert {record.pk for record in taken} == {young.pk, old.pk, gone.pk}
    assert ledger.take_due(10) == []
    now = timezone.now()
    waits = [round((ledger.get(record.pk).due_at - now) / MINUTE) for record in (young, old, gone)]
    assert waits == [1, 60, 1]
    assert ledger.get(gone.pk).worker == ""
    assert [ledger.get(record.pk).due_at < now for record in (held, lost)] == [True, True]


def test_take_due_in_parts() -> None:
    """A limit is kept; what is left is taken by the next call, oldest first."""
    records = [RecordFactory(due=-MINUTE * (10 - number)) for number in range(5)]
    assert ledger.take_due(2) == records[:2]
    assert ledger.take_due(10) == records[2:]


def test_strikes() -> None:
    """Strikes are the attempts of one kind in a row before this one."""
    record = RecordFactory(transferring=True, retries=4)
    for kind in ("mismatch", "passing", "mismatch", "mismatch"):
        AttemptFactory(record=record, outcome=Outcome.RETRY, error_kind=kind)
    assert ledger.strikes(record, ErrorKind.MISMATCH) == 2
    assert ledger.strikes(record, ErrorKind.PASSING) == 0
    record.retries = 2
    assert ledger.strikes(record, ErrorKind.MISMATCH) == 1


def test_the_history() -> None:
    """An ended attempt is appended with its times, outcome and reason, and pruned by age."""
    record = make("transferring")
    ledger.log_attempt(record, Outcome.RETRY, ErrorKind.PASSING, "text", 7)
    (attempt,) = TransferAttempt.objects.all()
    assert (attempt.started_at, attempt.worker, attempt.error) == (record.updated_at, "host:1", "text")
    assert attempts(record) == [("retry", "passing", 7)]
    assert attempt.finished_at >= attempt.started_at
    old = AttemptFactory(record=record, finished_at=timezone.now() - timedelta(days=31))
    assert (ledger.prune_attempts(10), ledger.prune_attempts(10)) == (1, 0)
    assert list(TransferAttempt.objects.all()) == [attempt]
    assert old.pk != attempt.pk


def test_overdue() -> None:
    """An eviction is due when the transfer is older than the storage keeps local copies."""
    record = make("transferred")
    assert ledger.overdue(record.pk, timedelta(seconds=10)) is False
    ledger.records().update(transferred_at=timezone.now() - timedelta(seconds=11))
    assert ledger.overdue(record.pk, timedelta(seconds=10)) is True
    ledger.evicted(record.pk)
    assert ledger.overdue(record.pk, timedelta(seconds=10)) is False


def test_selectors() -> None:
    """Stalled are queued records beyond their retries; held are old ones without a timer."""
    stalled, held = RecordFactory(retries=6), RecordFactory(delayed=True, age=timedelta(days=2))
    RecordFactory(retries=5)
    RecordFactory(failed=True, retries=9)
    RecordFactory(delayed=True)
    RecordFactory(delayed=True, age=timedelta(days=2), due_at=timezone.now())
    assert list(ledger.stalled()) == [stalled]
    assert list(ledger.held(timedelta(days=1))) == [held]


def test_the_clock_of_the_database() -> None:
    """Times come from the database's clock in UTC, with fractions of a second."""
    record = RecordFactory.build(name="a.txt")
    ledger.insert(record)
    found = ledger.records().get()
    assert abs(found.created_at - timezone.now()) < timedelta(seconds=5)
    assert found.created_at == found.updated_at
    claimed = ledger.claim(found.pk, uuid.uuid4(), "host:1").get()
    assert claimed.updated_at > found.updated_at or connection.vendor == "sqlite"
    assert claimed.state == State.TRANSFERRING
