"""Tasks of somebody else, tasks that override ``run``, and eager mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import current_app
from django.core.files.base import ContentFile
from django.db import transaction

from queued_storage import sweeping, tasks
from queued_storage.exceptions import StorageConfigurationError
from tests import usertasks
from tests.fixtures import (
    MakePair,
    Outbox,
    Pair,
    committing,
    configure,
    facts,
    finish,
    make_due,
    moved,
    put,
    read,
    record_of,
    saved,
)

pytest_plugins = ["tests.fixtures"]
pytestmark = [committing, pytest.mark.usefixtures("forgetful")]


@pytest.fixture
def eager(settings: Any) -> Iterator[None]:
    """Celery runs tasks where they are sent."""
    configure(task_always_eager=True)
    yield
    configure(task_always_eager=False)


@pytest.mark.parametrize("task", ["tests.usertasks.delaying", usertasks.delaying])
def test_a_foreign_task_gets_the_six_arguments(make_pair: MakePair, task: Any) -> None:
    """A task object that only has ``delay`` is called with the six documented arguments."""
    pair = make_pair(task=task)
    pair.save("a.txt", ContentFile(b"content"))
    arguments = ("a.txt", pair.get_cache_key("a.txt"), pair.local_path, pair.remote_path, {}, {})
    assert [arguments] == usertasks.DELAYED
    assert pair.transfer("a.txt") == "a result of its own"


def test_the_work_of_a_foreign_task_is_confirmed(make_pair: MakePair) -> None:
    """The ledger looks for itself whether somebody else's task has moved the file, and asks again if not."""
    pair = make_pair(task="tests.usertasks.delaying")
    record = put(pair, "a.txt")
    finish_once(record)
    assert len(usertasks.DELAYED) == 2
    assert facts(record, b"content")["state"] == "queued"
    usertasks.copy(*usertasks.DELAYED[0])
    finish()
    assert facts(record, b"content") == moved("a.txt", b"content")


def finish_once(record: Any) -> None:
    """Let the sweep look at one record once."""
    make_due(record)
    sweeping.sweep(sweeping.process_all)


@pytest.mark.parametrize("task", ["delaying", "plain", "OwnRun"])
def test_the_work_of_a_foreign_task_is_confirmed_by_messages(make_pair: MakePair, outbox: Outbox, task: str) -> None:
    """With messages alone, and no sweep in this process, the work of any task ends as a transferred record."""
    pair = make_pair(task=f"tests.usertasks.{task}")
    record = put(pair, "a.txt")
    for _ in range(3):
        outbox.deliver()
        for arguments in usertasks.DELAYED:
            if not pair.remote.exists(arguments[0]):
                usertasks.copy(*arguments)
        make_due(record)
        sweeping.sweep(tasks.send)
    outbox.deliver()
    row = facts(record, b"content")
    assert (row["state"], row["size"], row["error"]) == ("transferred", 7, "")
    assert pair.remote.listdir("") == ([], ["a.txt"])


def test_a_foreign_task_and_generations(make_pair: MakePair, outbox: Outbox) -> None:
    """A foreign task that copies what it is told moves each generation to where the ledger expects it."""
    pair = make_pair(task="tests.usertasks.plain", overwrite=True)
    for content in (b"first", b"second"):
        put(pair, "a.txt", content)
        outbox.deliver()
    finish()
    assert (read(pair, "a.txt"), record_of(pair, "a.txt").state) == (b"second", "transferred")


def test_an_overridden_run_and_generations(make_pair: MakePair, outbox: Outbox) -> None:
    """A subclass that overrides ``run`` gets the six arguments and moves the record that they mean."""
    pair = make_pair(task="tests.usertasks.OwnRun", overwrite=True)
    put(pair, "a.txt", b"first")
    outbox.deliver()
    second = put(pair, "a.txt", b"second")
    outbox.deliver()
    assert [arguments[0] for arguments in usertasks.OwnRun.seen] == ["a.txt", second.local_name]
    assert (read(pair, "a.txt"), record_of(pair, "a.txt").state) == (b"second", "transferred")
    from queued_storage import ledger

    assert ledger.records().count() == 2


def test_a_foreign_task_that_raises(make_pair: MakePair) -> None:
    """An error in somebody's ``delay`` costs the caller nothing, and no other storage its messages."""
    pair = make_pair(task="tests.usertasks.failing")
    other = make_pair("other", task="queued_storage.tasks.Transfer")
    record = put(pair, "a.txt")
    assert facts(record, b"content") == saved("a.txt", b"content")
    assert other.transfer(put(other, "b.txt").name) is not None


def test_eager(pair: Pair, eager: None) -> None:
    """In eager mode a save has moved the file when it returns."""
    pair.save("a.txt", ContentFile(b"content"))
    assert facts(record_of(pair, "a.txt"), b"content") == moved("a.txt", b"content")


def test_eager_in_a_transaction(pair: Pair, eager: None) -> None:
    """In eager mode the file moves at the commit, and not at all after a rollback."""
    with transaction.atomic():
        pair.save("a.txt", ContentFile(b"content"))
        assert record_of(pair, "a.txt").state == "queued"
    assert record_of(pair, "a.txt").state == "transferred"
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        pair.save("b.txt", ContentFile(b"content"))
        raise ZeroDivisionError
    assert pair.remote.listdir("") == ([], ["a.txt"])


def test_eager_errors_are_not_the_brokers(answering: tuple[Pair, Any], eager: None) -> None:
    """In eager mode an error of one task does not stop the messages of the next."""
    pair, task = answering
    configure(task_eager_propagates=True)
    try:
        task.answer = None
        pair.save("a.txt", ContentFile(b"content"))
        task.answer = True
        pair.save("b.txt", ContentFile(b"content"))
    finally:
        configure(task_eager_propagates=False)
    assert record_of(pair, "b.txt").state == "transferred"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("no.such.Task", "cannot be imported"),
        ("tests.usertasks.copy", "is not a Celery task"),
        (42, "dotted path of a Celery task"),
    ],
)
def test_bad_tasks(make_pair: MakePair, task: Any, message: str) -> None:
    """A task that cannot be used is told before anything is saved."""
    with pytest.raises(StorageConfigurationError, match=message):
        make_pair(task=task).save("a.txt", ContentFile(b"content"))
    from queued_storage import ledger

    assert ledger.records().count() == 0
    assert current_app.tasks
