"""Messages: after the commit, few, small, without secrets, and harmless whatever is in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import transaction

from queued_storage import ledger, sweeping, tasks
from queued_storage.models import TransferRecord
from tests.celeryapp import app
from tests.factories import RecordFactory
from tests.fixtures import MakePair, Outbox, Pair, committing, facts, moved, put, read, record_of, saved, transfer

pytest_plugins = ["tests.fixtures"]
pytestmark = committing
TRANSFER = "queued_storage.tasks.Transfer"


def test_the_message_of_a_save(pair: Pair, outbox: Outbox) -> None:
    """A save sends one message: the id of the record and its count of retries, as JSON, and nothing else."""
    record = put(pair, "a.txt")
    (message,) = outbox.take()
    assert (message.task, message.args, message.kwargs) == (TRANSFER, [], {"records": [[record.pk, 0]]})
    assert message.headers["expires"] is not None
    assert message.headers["ignore_result"] is True


def test_a_message_is_enough(pair: Pair, outbox: Outbox) -> None:
    """Delivering the message moves the file."""
    record = put(pair, "a.txt")
    assert outbox.deliver() == 1
    assert facts(record, b"content") == moved("a.txt", b"content")


def test_after_the_commit(pair: Pair, outbox: Outbox) -> None:
    """Inside a transaction nothing is sent; the commit sends it."""
    with transaction.atomic():
        record = put(pair, "a.txt")
        assert outbox.take() == []
    assert outbox.ids() == [record.pk]


def test_a_rollback(pair: Pair, outbox: Outbox) -> None:
    """After a rollback there is no record, no message and no transfer."""
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        pair.save("a.txt", ContentFile(b"content"))
        raise ZeroDivisionError
    assert (TransferRecord.objects.count(), outbox.take()) == (0, [])
    sweeping.sweep(sweeping.process_all)
    assert pair.remote.calls == []


def test_a_rollback_to_a_savepoint(pair: Pair, outbox: Outbox) -> None:
    """After a rollback to a savepoint only what was saved outside of it is recorded and sent."""
    with transaction.atomic():
        first = put(pair, "a.txt")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            pair.save("b.txt", ContentFile(b"content"))
            raise ZeroDivisionError
        third = put(pair, "c.txt")
    assert list(TransferRecord.objects.values_list("name", flat=True)) == ["a.txt", "c.txt"]
    assert outbox.ids() == [first.pk, third.pk]


def test_a_savepoint_in_a_savepoint(pair: Pair, outbox: Outbox) -> None:
    """What was saved in a savepoint that stays is sent, though one inside of it was rolled back."""
    with transaction.atomic():
        with transaction.atomic():
            first = put(pair, "a.txt")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                pair.save("b.txt", ContentFile(b"content"))
                raise ZeroDivisionError
        second = put(pair, "c.txt")
    assert sorted(outbox.ids()) == [first.pk, second.pk]


def test_a_hundred_saves_in_one_transaction(pair: Pair, outbox: Outbox) -> None:
    """A hundred saves in one transaction are one message, each record once."""
    with transaction.atomic():
        records = [put(pair, f"{number}.txt") for number in range(100)]
    (message,) = outbox.take()
    assert message.kwargs == {"records": [[record.pk, 0] for record in records]}


def test_a_hundred_savepoints_in_one_transaction(pair: Pair, outbox: Outbox) -> None:
    """A savepoint around each save, as ``update_or_create`` makes them, does not make more messages."""
    with transaction.atomic():
        records = []
        for number in range(100):
            with transaction.atomic():
                records.append(put(pair, f"{number}.txt"))
    messages = outbox.take()
    assert [pk for message in messages for pk, _ in message.kwargs["records"]] == [record.pk for record in records]
    assert len(messages) == 1


def test_many_files_are_several_messages(pair: Pair, outbox: Outbox) -> None:
    """One message holds a hundred records at most."""
    with transaction.atomic():
        for number in range(101):
            put(pair, f"{number}.txt", b"")
    assert [len(message.kwargs["records"]) for message in outbox.take()] == [100, 1]


def test_a_message_for_each_queue(make_pair: MakePair, outbox: Outbox) -> None:
    """Files of storages with different queues go in different messages."""
    pair, other = make_pair(), make_pair("other", queue="queued-storage-other")
    with transaction.atomic():
        first, second = put(pair, "a.txt"), put(other, "b.txt")
    records = [message.kwargs["records"] for message in (*outbox.take(), *outbox.take("queued-storage-other"))]
    assert records == [[[first.pk, 0]], [[second.pk, 0]]]


def test_another_callback_of_the_commit(pair: Pair, outbox: Outbox) -> None:
    """Callbacks of others at the same commit run, and ours with them."""
    ran: list[int] = []
    with transaction.atomic():
        transaction.on_commit(lambda: ran.append(1))
        put(pair, "a.txt")
        transaction.on_commit(lambda: ran.append(2))
    assert (ran, len(outbox.take())) == ([1, 2], 1)


def test_a_delayed_file_sends_nothing(make_pair: MakePair, outbox: Outbox) -> None:
    """A held file sends no message before ``transfer()``."""
    pair = make_pair(delayed=True)
    record = put(pair, "a.txt")
    assert outbox.take() == []
    result = pair.transfer("a.txt")
    (message,) = outbox.take()
    assert (message.kwargs, message.headers["id"]) == ({"records": [[record.pk, 0]]}, result.id)


FORGED: list[Any] = [
    0,
    -1,
    2**63,
    "x",
    None,
    True,
    1.5,
    [],
    {},
    "1",
    [[]],
    [[[[1]]]],
    [None],
    [["x", 0]],
    [[1, -1]],
    [[1, "x"]],
    [[1, 2**31]],
    [[2**63, 0]],
    [[-1, 0]],
    [[True, 0]],
    [{"pk": 1}],
    {"records": [[1, 0]]},
    "\x00\ud800",
]


@pytest.mark.parametrize("records", FORGED, ids=[str(number) for number in range(len(FORGED))])
def test_forged_records(pair: Pair, outbox: Outbox, records: Any) -> None:
    """A message with anything else than ids is ignored: no error, no query with it, nothing changes."""
    record = put(pair, "a.txt")
    result = app.tasks[TRANSFER].apply([], {"records": records}).result
    assert result in ({}, {"1": "None"}, False)
    assert facts(record, b"content") == saved("a.txt", b"content")


def test_an_unknown_record(pair: Pair, outbox: Outbox) -> None:
    """A message about a record that is not there is ignored."""
    assert app.tasks[TRANSFER].apply([], {"records": [[987654321, 0]]}).result == {"987654321": "None"}
    assert app.tasks[TRANSFER].apply([], {"records": [[2**63 - 1, 0]]}).result == {str(2**63 - 1): "None"}


def test_one_bad_entry_among_good_ones(pair: Pair, outbox: Outbox) -> None:
    """A bad entry does not keep the good ones of a message from their transfer."""
    record = put(pair, "a.txt")
    app.tasks[TRANSFER].apply([], {"records": [["x", 0], [record.pk, 0], [-1]]})
    assert facts(record, b"content") == moved("a.txt", b"content")


def test_a_message_twice(pair: Pair, outbox: Outbox) -> None:
    """A message that is delivered twice makes one transfer."""
    record = put(pair, "a.txt")
    (message,) = outbox.take()
    message.deliver()
    message.deliver()
    assert facts(record, b"content") == moved("a.txt", b"content")
    assert pair.remote.calls.count("save") == 1


def test_a_message_that_was_overtaken(pair: Pair, outbox: Outbox) -> None:
    """A message from before an attempt claims nothing after it, so redelivery cannot shorten a back-off."""
    record = put(pair, "a.txt")
    (message,) = outbox.take()
    pair.remote.faults["save"] = lambda name: (_ for _ in ()).throw(ConnectionError("away"))
    message.deliver()
    failed = facts(record)
    assert (failed["state"], failed["retries"]) == ("queued", 1)
    message.deliver()
    assert facts(record) == failed


def test_the_record_of_an_unknown_alias(pair: Pair, outbox: Outbox) -> None:
    """A record of a storage that is gone waits with its reason, and the others of the batch go on."""
    stranger = RecordFactory(storage="no-such-storage", due=-ledger.settings.QUEUED_STORAGE_LEASE)
    record = put(pair, "a.txt")
    outbox.take()
    app.tasks[TRANSFER].apply([], {"records": [[stranger.pk, 0], [record.pk, 0]]})
    assert facts(record, b"content") == moved("a.txt", b"content")
    waiting = facts(stranger)
    assert (waiting["state"], waiting["error_kind"], waiting["retries"]) == ("queued", "settings", 1)
    assert "no queued storage has the alias 'no-such-storage'" in waiting["error"]


@pytest.mark.parametrize("state", ["queued", "transferred", "deleted"])
def test_the_sweep_meets_an_unknown_alias(pair: Pair, outbox: Outbox, state: str) -> None:
    """The sweep sends what it can and keeps what it cannot, with a reason that a person can read."""
    trait = {} if state == "queued" else {state: True}
    stranger = RecordFactory(storage="no-such-storage", **trait, due_at=ledger.DatabaseNow())
    record = put(pair, "a.txt")
    outbox.take()
    ledger.records().filter(pk=record.pk).update(due_at=ledger.DatabaseNow())
    assert sweeping.sweep(tasks.send) == {"sent": 2}
    assert outbox.ids() == [record.pk]
    waiting = facts(stranger)
    assert waiting["state"] == state
    assert "no-such-storage" in waiting["error"]


def test_a_bad_task_of_one_storage(make_pair: MakePair, outbox: Outbox, settings: Any) -> None:
    """The sweep sends the files of all other storages where the task of one cannot be found."""
    bad = make_pair("bad")
    broken = put(bad, "a.txt")
    pair = make_pair()
    good = put(pair, "b.txt")
    make_pair("bad", task="no.such.Task")
    outbox.take()
    ledger.records().filter(pk__in=[broken.pk, good.pk]).update(due_at=ledger.DatabaseNow())
    sweeping.sweep(tasks.send)
    assert outbox.ids() == [good.pk]


def test_no_secret_in_any_message(make_pair: MakePair, outbox: Outbox) -> None:
    """No message holds a storage's options, for whatever reason it is sent."""
    options = {"access_key": "AKIAEXAMPLE", "secret_key": "hunter2-hunter2", "nested": {"password": "correcthorse"}}
    pair = make_pair(remote="tests.storages.OptionalStorage", remote_options=options)
    put(pair, "a.txt")
    pair.transfer("a.txt")
    ledger.records().update(due_at=ledger.DatabaseNow())
    sweeping.sweep(tasks.send)
    pair.delete("a.txt")
    messages = outbox.take()
    assert len(messages) == 4
    for message in messages:
        text = json.dumps([message.args, message.kwargs, message.headers], default=str)
        assert not any(secret in text for secret in ("AKIA", "hunter2", "correcthorse", str(pair.remote.location)))


def test_all_states_of_a_message(pair: Pair, outbox: Outbox) -> None:
    """A message about a record that is not owed anything changes nothing."""
    records = [
        RecordFactory(delayed=True),
        RecordFactory(transferring=True),
        RecordFactory(transferred=True),
        RecordFactory(evicted=True),
        RecordFactory(failed=True),
    ]
    before = [facts(record) for record in records]
    app.tasks[TRANSFER].apply([], {"records": [[record.pk, record.retries] for record in records]})
    assert [facts(record) for record in records] == before
    assert pair.remote.calls == []


def test_the_transfer_of_a_moved_file(pair: Pair, outbox: Outbox) -> None:
    """``transfer()`` of a file that is on the remote sends nothing and returns nothing."""
    transfer(pair, "a.txt")
    outbox.take()
    assert (pair.transfer("a.txt"), outbox.take()) == (None, [])
    assert read(pair, "a.txt") == b"content"
    assert record_of(pair, "a.txt").state == "transferred"
