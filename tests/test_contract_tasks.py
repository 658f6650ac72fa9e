"""Tasks: ours, subclasses, and those of somebody else."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from queued_storage import signals, sweeping, tasks
from tests import usertasks
from tests.celeryapp import app
from tests.fixtures import (
    MakePair,
    Outbox,
    Pair,
    committing,
    facts,
    finish,
    make_due,
    moved,
    put,
    read,
    record_of,
    saved,
    transfer,
)
from tests.storages import _unreachable

pytest_plugins = ["tests.fixtures"]
pytestmark = [committing, pytest.mark.usefixtures("forgetful")]


def test_subclasses_are_registered() -> None:
    """Task classes are known to Celery under their dotted path, or the name that they give themselves."""
    names = {"queued_storage.tasks.Transfer", "queued_storage.tasks.TransferAndDelete", "queued_storage.tasks.sweep"}
    ours = {"tests.usertasks.TransferAndNotify", "tests.a_name_of_its_own", "tests.usertasks.OwnCopy"}
    assert names | ours <= set(app.tasks)


def test_a_class_of_this_moment() -> None:
    """A subclass that is defined while Celery runs is registered at once."""

    class Late(tasks.Transfer):
        """Defined in a test."""

    assert isinstance(app.tasks[Late.name], Late)


def test_attributes_from_the_settings(settings: Any) -> None:
    """``max_retries`` and ``default_retry_delay`` of the task are those of the settings of this moment."""
    task = app.tasks["queued_storage.tasks.Transfer"]
    assert (task.max_retries, task.default_retry_delay) == (5, 60)
    settings.QUEUED_STORAGE_RETRIES, settings.QUEUED_STORAGE_RETRY_DELAY = 7, 30
    assert (task.max_retries, task.default_retry_delay) == (7, 30)


def test_transfer_and_notify(make_pair: MakePair, outbox: Outbox) -> None:
    """The documentation's subclass runs by message, sees the user's name, and gets the ledger for free."""
    pair = make_pair(task="tests.usertasks.TransferAndNotify")
    record = put(pair, "a.txt")
    (message,) = outbox.take()
    assert message.task == "tests.usertasks.TransferAndNotify"
    message.deliver()
    assert [("a.txt", pair.local, pair.remote)] == usertasks.NOTIFIED
    assert facts(record, b"content") == moved("a.txt", b"content", local_copy=False)
    assert not pair.local.exists("a.txt")


def test_transfer_and_notify_is_retried(make_pair: MakePair, outbox: Outbox) -> None:
    """A subclass gets the retries and the sweep for free."""
    pair = make_pair(task="tests.usertasks.TransferAndNotify")
    record = put(pair, "a.txt")
    pair.remote.faults["save"] = _unreachable
    outbox.deliver()
    row = facts(record, b"content")
    assert (row["state"], row["retries"], row["error_kind"]) == ("queued", 1, "passing")
    assert row["error"] == "ConnectionError: the remote cannot be reached"
    pair.remote.faults.clear()
    make_due(record)
    sweeping.sweep(tasks.send)
    outbox.deliver()
    assert (usertasks.NOTIFIED[0][0], record_of(pair, "a.txt").state) == ("a.txt", "transferred")


def test_a_later_generation_under_the_users_name(make_pair: MakePair, outbox: Outbox) -> None:
    """A subclass that copies by the user's name moves each generation to its own place."""
    pair = make_pair(task="tests.usertasks.OwnCopy", overwrite=True)
    put(pair, "a.txt", b"first")
    outbox.deliver()
    second = put(pair, "a.txt", b"second")
    outbox.deliver()
    assert record_of(pair, "a.txt").state == "transferred"
    assert read(pair.remote, second.remote_name) == read(pair, "a.txt") == b"second"


def test_transfer_and_delete(make_pair: MakePair, outbox: Outbox) -> None:
    """``TransferAndDelete`` removes the local copy after the verified transfer, and not before it is committed."""
    pair = make_pair(task="queued_storage.tasks.TransferAndDelete")
    record = put(pair, "a.txt")
    seen: list[tuple[str, bool]] = []
    original = pair.local.delete

    def delete(name: str) -> None:
        with transaction.atomic():
            seen.append((record_of(pair, "a.txt").state, pair.remote.exists(name)))
        original(name)

    pair.local.delete = delete
    outbox.deliver()
    assert seen == [("transferred", True)]
    assert facts(record, b"content") == moved("a.txt", b"content", local_copy=False)
    assert (read(pair, "a.txt"), pair.local.exists("a.txt")) == (b"content", False)


def test_transfer_and_delete_cannot_delete(make_pair: MakePair) -> None:
    """A local copy that cannot be removed does not undo the transfer; it is tried again by the sweep."""
    pair = make_pair(task="queued_storage.tasks.TransferAndDelete")
    original, pair.local.delete = pair.local.delete, _unreachable
    record = put(pair, "a.txt")
    assert sweeping.process(record.pk) == "transferred"
    row = facts(record, b"content")
    assert (row["state"], row["local_copy"], row["error_kind"]) == ("transferred", True, "passing")
    assert read(pair, "a.txt") == b"content"
    pair.local.delete = original
    finish()
    row = facts(record, b"content")
    assert (row["local_copy"], row["due"], pair.local.exists("a.txt")) == (False, None, False)


def test_the_storage_decides_before_the_task(make_pair: MakePair) -> None:
    """``keep_local`` of the storage goes before that of the task."""
    pair = make_pair(task="queued_storage.tasks.TransferAndDelete", keep_local=True)
    transfer(pair, "a.txt")
    assert pair.local.exists("a.txt")


def test_false_is_retried(answering: tuple[Pair, Any]) -> None:
    """A result of False is tried again, whatever was copied."""
    pair, task = answering
    task.answer = False
    record = put(pair, "a.txt")
    assert sweeping.process(record.pk) == "retry"
    row = facts(record, b"content")
    assert (row["state"], row["error"]) == ("queued", "TransferError: Answering.transfer() returned False")
    task.answer = True
    assert sweeping.process(record.pk) == "transferred"


@pytest.mark.parametrize("answer", [None, 1, "yes", [], object()])
def test_anything_else_is_a_value_error(answering: tuple[Pair, Any], answer: Any) -> None:
    """A result that is neither True nor False is a ``ValueError``, and the record is given back with the reason."""
    pair, task = answering
    task.answer = answer
    record = put(pair, "a.txt")
    with pytest.raises(ValueError, match=r"Answering\.transfer\(\) must return True or False, not"):
        sweeping.process(record.pk)
    row = facts(record, b"content")
    assert (row["state"], row["retries"]) == ("queued", 1)
    assert "must return True or False" in row["error"]


def test_a_value_error_and_the_rest_of_the_message(answering: tuple[Pair, Any], make_pair: MakePair) -> None:
    """The other records of a message, and of a sweep, go on after one whose task answered nonsense."""
    pair, task = answering
    other = make_pair("other", task="queued_storage.tasks.Transfer")
    bad, good = put(pair, "a.txt"), put(other, "b.txt")
    task.answer = None
    make_due(bad, good)
    with pytest.raises(ValueError, match="must return True or False"):
        sweeping.sweep(sweeping.process_all)
    assert record_of(other, "b.txt").state == "transferred"
    another = put(other, "c.txt")
    app.tasks["tests.usertasks.Answering"].apply([], {"records": [[bad.pk, 1], [another.pk, 0]]})
    assert record_of(other, "c.txt").retries == 1


def test_true_without_a_copy(answering: tuple[Pair, Any]) -> None:
    """True is not believed: a task that copied nothing is found out by the verification."""
    pair, task = answering
    task.copies = False
    record = put(pair, "a.txt")
    assert sweeping.process(record.pk) == "retry"
    assert facts(record)["error_kind"] == "mismatch"
    assert "nothing at a.txt after the upload" in facts(record)["error"]


def test_true_after_a_failure(answering: tuple[Pair, Any]) -> None:
    """A task that hides a failure is found out as well."""
    pair, _ = answering
    pair.remote.faults["save"] = _unreachable
    record = put(pair, "a.txt")
    assert sweeping.process(record.pk) == "retry"
    assert record_of(pair, "a.txt").state == "queued"


def test_a_second_try_inside_the_task(make_pair: MakePair) -> None:
    """A task that tries again by itself and then succeeds has succeeded."""
    pair = make_pair(task="tests.usertasks.Patient")
    failures: list[str] = []

    def fail_once(name: str) -> None:
        if not failures:
            failures.append(name)
            raise ConnectionError("once")

    pair.remote.faults["save"] = fail_once
    record = put(pair, "a.txt")
    assert sweeping.process(record.pk) == "transferred"
    assert failures == ["a.txt"]


def test_the_sender_of_the_signal(make_pair: MakePair) -> None:
    """``file_transferred`` is sent by the class of the task, with name, storages and record."""
    pair = make_pair(task="tests.usertasks.TransferAndNotify")
    told: list[dict[str, Any]] = []

    def receive(**facts: Any) -> None:
        facts.pop("signal")
        told.append(facts)

    signals.file_transferred.connect(receive, sender=usertasks.TransferAndNotify)
    try:
        record = transfer(pair, "a.txt")
    finally:
        signals.file_transferred.disconnect(receive, sender=usertasks.TransferAndNotify)
    sender = usertasks.TransferAndNotify
    assert told == [{"sender": sender, "name": "a.txt", "local": pair.local, "remote": pair.remote, "record": record}]


def test_delayed_until_asked(make_pair: MakePair, outbox: Outbox) -> None:
    """With ``delayed=True`` nothing moves until ``transfer()`` says so."""
    pair = make_pair(delayed=True)
    record = put(pair, "a.txt")
    assert facts(record, b"content") == saved("a.txt", b"content", state="delayed", due=None)
    assert sweeping.process(record.pk) is None
    finish()
    assert (pair.remote.calls, pair.using_local("a.txt")) == ([], True)
    assert pair.transfer("a.txt").id
    assert facts(record, b"content") == saved("a.txt", b"content")
    outbox.deliver()
    assert facts(record, b"content") == moved("a.txt", b"content")
