"""The ledger: every transition from every state, its guard, and what the database itself refuses."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from queued_storage import ledger
from queued_storage.exceptions import ErrorKind
from queued_storage.models import TransferAttempt, TransferRecord
from queued_storage.names import record_key
from tests.factories import BODY, AttemptFactory, RecordFactory
from tests.fixtures import facts, saved

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)
STATES: dict[str, dict[str, Any]] = {
    "delayed": {"delayed": True},
    "queued": {"retries": 2},
    "transferring": {"transferring": True, "retries": 2},
    "transferred": {"transferred": True, "retries": 1},
    "evicted": {"evicted": True, "retries": 1},
    "failed": {"failed": True},
    "deleted": {"deleted": True},
}


def make(state: str, **more: Any) -> TransferRecord:
    """Make a record in that state."""
    record: TransferRecord = RecordFactory(name="a.txt", **STATES[state] | more)
    return record


def row(state: str, **changes: Any) -> dict[str, Any]:
    """Return the facts of a record in that state, with changes."""
    of = {
        "delayed": {"due": None},
        "queued": {"retries": 2},
        "transferring": {"retries": 2, "leased": True, "worker": "host:1"},
        "transferred": {"retries": 1, "transferred": True, "location": "remote", "due": None},
        "evicted": {"retries": 1, "transferred": True, "location": "remote", "due": None, "local_copy": False},
        "failed": {"retries": 1, "due": None, "error_kind": "refused", "error": "EntityTooLarge: too large"},
        "deleted": {"deleted": True},
    }[state]
    name = "transferred" if state == "evicted" else state
    return saved("a.txt", BODY, state=name) | of | changes


def owned(record: TransferRecord) -> uuid.UUID:
    """Return the lease that the caller believes to have."""
    return record.lease or uuid.uuid4()


def with_lease(record: TransferRecord) -> TransferRecord:
    """Let the caller believe that it has a lease."""
    record.lease = owned(record)
    return record


def claim(record: TransferRecord) -> bool:
    """Claim a record and tell whether that was done."""
    return ledger.claim(record.pk, uuid.uuid4(), "host:2").exists()


def only(record: TransferRecord) -> Any:
    """Return the rows that are this record."""
    return ledger.records().filter(pk=record.pk)


TAKEN_UP = {"state": "transferring", "leased": True, "worker": "host:2", "retries": 3, "due": 5 * MINUTE}
GIVEN_BACK = {"state": "queued", "leased": False, "worker": "", "due": MINUTE, "error_kind": "passing", "error": "text"}
GONE = {"state": "deleted", "deleted": True, "leased": False, "retries": 0, "location": "local"}
RELEASED = {"state": "queued", "due": MINUTE}
DONE = {"state": "transferred", "location": "remote", "transferred": True, "leased": False, "worker": "", "due": None}
PUT_OFF = {"due": MINUTE, "error_kind": "passing", "error": "text"}
SENT_AGAIN = {"state": "queued", "location": "local", "retries": 0, "due": 0 * MINUTE, "error_kind": "missing"}
SENT_AGAIN |= {"error": "text"}
MISSED = {"error_kind": "missing", "error": "text"}
KEPT = {"due": None, "error_kind": "mismatch", "error": "text"}

# Each transition with the states that it starts from, and what it changes there; from all others it must not.
TRANSITIONS: list[tuple[str, Callable[[TransferRecord], bool], dict[str, dict[str, Any]]]] = [
    ("release", lambda r: ledger.release(r.pk), {"delayed": RELEASED}),
    ("release at once", lambda r: ledger.release(r.pk, at_once=True), {"delayed": RELEASED | {"due": 0 * MINUTE}}),
    ("hold", lambda r: ledger.hold(r.pk), {"queued": {"state": "delayed", "due": None}}),
    ("hold all", lambda r: ledger.hold_all(only(r)) == 1, {"queued": {"state": "delayed", "due": None}}),
    ("release all", lambda r: ledger.release_all(only(r)) == 1, {"delayed": RELEASED | {"due": 0 * MINUTE}}),
    ("claim", claim, {"queued": TAKEN_UP}),
    ("renew", lambda r: ledger.renew(r.pk, owned(r)), {"transferring": {"due": 5 * MINUTE}}),
    ("place", lambda r: ledger.place(r.pk, owned(r), "b.txt"), {"transferring": {"remote_name": "b.txt"}}),
    ("complete", lambda r: ledger.complete(with_lease(r), None), {"transferring": DONE}),
    ("complete, evict", lambda r: ledger.complete(with_lease(r), MINUTE), {"transferring": DONE | {"due": MINUTE}}),
    (
        "retry",
        lambda r: ledger.retry(with_lease(r), ErrorKind.PASSING, "text", MINUTE),
        {"transferring": GIVEN_BACK},
    ),
    (
        "retry uncounted",
        lambda r: ledger.retry(with_lease(r), ErrorKind.PASSING, "text", MINUTE, counted=False),
        {"transferring": GIVEN_BACK | {"retries": 1}},
    ),
    (
        "fail",
        lambda r: ledger.fail(with_lease(r), ErrorKind.PASSING, "text"),
        {"transferring": GIVEN_BACK | {"state": "failed", "due": None}},
    ),
    (
        "delete",
        lambda r: ledger.delete(r.pk),
        {
            "delayed": GONE | {"due": MINUTE},
            "queued": GONE | {"due": MINUTE},
            # The removal waits for the end of the lease; the worker is remembered until then.
            "transferring": GONE | {"worker": "host:1"},
            "transferred": GONE | {"due": MINUTE},
            "evicted": GONE | {"due": MINUTE},
            "failed": GONE | {"due": MINUTE},
        },
    ),
    (
        "requeue",
        lambda r: ledger.requeue(ledger.records().filter(pk=r.pk)) == 1,
        {
            "failed": {"state": "queued", "due": 0 * MINUTE, "retries": 0},
            "queued": {"due": 0 * MINUTE, "retries": 0},
        },
    ),
    (
        "evicted",
        lambda r: ledger.evicted(r.pk),
        {"transferred": {"local_copy": False}, "evicted": {"local_copy": False}},
    ),
    ("keep", lambda r: ledger.keep(r.pk, ErrorKind.MISMATCH, "text"), {"transferred": KEPT, "evicted": KEPT}),
    (
        "checked",
        lambda r: ledger.checked(r.pk, "missing", "text"),
        {"transferred": MISSED, "evicted": MISSED},
    ),
    ("send_again", lambda r: ledger.send_again(r.pk, ErrorKind.MISSING, "text"), {"transferred": SENT_AGAIN}),
    ("evict_soon", lambda r: ledger.evict_soon([r.pk]) == 1, {"transferred": {"due": 0 * MINUTE}}),
    ("restored", lambda r: ledger.restored(r.pk), {"evicted": {"local_copy": True, "due": None}}),
    (
        "postpone",
        lambda r: ledger.postpone(r.pk, ErrorKind.PASSING, "text", MINUTE),
        {
            "transferred": PUT_OFF | {"retries": 2},
            "evicted": PUT_OFF | {"retries": 2},
            "deleted": PUT_OFF | {"retries": 1},
        },
    ),
]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("transition", "moves"), [(move, moves) for _, move, moves in TRANSITIONS], ids=[name for name, _, _ in TRANSITIONS]
)
def test_transitions(
    transition: Callable[[TransferRecord], bool], moves: dict[str, dict[str, Any]], state: str
) -> None:
    """A transition changes exactly what it says from the states that it starts from, and nothing from the others."""
    record = make(state)
    bystander = RecordFactory(**STATES[state])
    before, untouched = facts(record, BODY), facts(bystander)
    assert before == row(state)
    assert transition(record) is (state in moves)
    after = facts(record, BODY)
    if state in moves and "due" not in moves[state]:
        # The timer was left alone; what differs is the time of the last change from which it is counted.
        assert ledger.records().get(pk=record.pk).due_at == record.due_at
        after["due"] = before["due"]
    assert after == before | moves.get(state, {})
    assert facts(bystander) == untouched


def test_the_whole_table() -> None:
    """Every function of the ledger that moves a record is in the table above, or has its own tests."""
    table = {name.split()[0].rstrip(",") for name, _, _ in TRANSITIONS} | {"hold_all", "release_all"}
    below = {"insert", "insert_many", "replace", "expired", "removed", "prune", "measured", "keep_for_good", "note"}
    others = {
        "log_attempt",
        "overdue",
        "prune_attempts",
        "take_due",
        "persist",
        "after",
        "using",
        "records",
        "completion",
    }
    here = {name for name, value in vars(ledger).items() if getattr(value, "__module__", "") == ledger.__name__}
    public = {name for name in here if not name.startswith("_")}
    assert public - table - below - others == set()


@pytest.mark.parametrize(
    "late",
    [
        lambda r: ledger.renew(r.pk, r.lease),
        lambda r: ledger.place(r.pk, r.lease, "b.txt"),
        lambda r: ledger.measured(r),
        lambda r: ledger.complete(r, None),
        lambda r: ledger.retry(r, ErrorKind.PASSING, "text", MINUTE),
        lambda r: ledger.fail(r, ErrorKind.PASSING, "text"),
    ],
    ids=["renew", "place", "measured", "complete", "retry", "fail"],
)
def test_another_lease(late: Callable[[TransferRecord], bool]) -> None:
    """Under another lease than the record's nothing is written, though the state is right."""
    record = make("transferring")
    before = facts(record)
    record.lease = uuid.uuid4()
    assert late(record) is False
    assert facts(record) == before


def test_the_timer_of_a_deletion() -> None:
    """A record in a worker's hands keeps its timer when it is deleted: the end of the lease."""
    record = make("transferring")
    ends = record.due_at
    ledger.delete(record.pk)
    assert ledger.records().get().due_at == ends


def test_expired() -> None:
    """Only an ended lease can be taken away, once, under a new token."""
    living, dead = make("transferring"), RecordFactory(transferring=True, due=-MINUTE)
    assert ledger.expired(living) is False
    token = dead.lease
    twin = ledger.records().get(pk=dead.pk)
    assert ledger.expired(dead) is True
    assert (dead.lease != token, facts(dead)["due"]) == (True, 5 * MINUTE)
    assert ledger.expired(twin) is False


def test_removed_and_pruned() -> None:
    """A removed record keeps its name until the prune date, and is then deleted with its attempts."""
    record = make("deleted")
    AttemptFactory(record=record)
    assert ledger.removed(record.pk) is True
    assert ledger.removed(record.pk) is False
    assert facts(record, BODY) == row("deleted", local_copy=False, due=facts(record)["due"])
    found = ledger.records().get()
    assert found.due_at - found.deleted_at == timedelta(days=7)
    assert ledger.prune(record.pk) is False
    past = timezone.now() - timedelta(days=7, seconds=1)
    ledger.records().update(deleted_at=past)
    # Its timer says that something else is to happen before.
    assert ledger.prune(record.pk) is False
    ledger.records().update(due_at=timezone.now())
    assert ledger.prune(record.pk) is True
    assert (TransferRecord.objects.count(), TransferAttempt.objects.count()) == (0, 0)


@pytest.mark.parametrize("state", [state for state in STATES if state != "deleted"])
def test_nothing_else_is_pruned(state: str) -> None:
    """No record that is not deleted is pruned or noted as removed."""
    record = make(state)
    ledger.records().update(created_at=timezone.now() - timedelta(days=900))
    before = facts(record)
    assert (ledger.removed(record.pk), ledger.prune(record.pk)) == (False, False)
    assert facts(record) == before


@pytest.mark.parametrize("state", STATES)
def test_replace(state: str) -> None:
    """New content supersedes a record in any state: that one is deleted without a key, the new one has the name."""
    old, new = make(state), RecordFactory.build(name="a.txt", local_name="new.txt")
    assert ledger.replace(new) is True
    after = facts(old, BODY)
    assert (after["state"], after["keyed"], after["leased"], after["deleted"]) == ("deleted", False, False, True)
    assert facts(new, BODY) | {"due": MINUTE} == row(
        "queued", generation=2, retries=0, local_name="new.txt", remote_name=new.remote_name
    )
    assert new.remote_name.startswith("a.g2-")
    assert ledger.lookup(record_key("default", "a.txt")) == new


def test_replace_nothing() -> None:
    """Without a former record the new one is the first generation, in its plain places."""
    new = RecordFactory.build(name="a.txt")
    assert ledger.replace(new) is True
    assert facts(new, BODY)["remote_name"] == "a.txt"
