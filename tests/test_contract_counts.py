"""What an operation costs: calls to the remote and queries to the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.core.files.base import ContentFile

from queued_storage import sweeping, tasks
from tests.app.models import Document
from tests.fixtures import MakePair, Pair, committing, put, read, record_of, transfer

pytest_plugins = ["tests.fixtures"]
pytestmark = committing
AssertQueries = Any


def every_request(pair: Pair, name: str) -> dict[str, Any]:
    """Do everything that a request may do with a recorded file, but read its bytes; return the answers."""
    return {
        "exists": pair.exists(name),
        "size": pair.size(name),
        "url": pair.url(name),
        "using_local": pair.using_local(name),
        "available": pair.get_available_name(name) != name,
        "created": pair.get_created_time(name) is not None,
        "modified": pair.get_modified_time(name) is not None,
        "locate": len(pair.locate([name])),
        "key": pair.get_cache_key(name),
        "valid": pair.get_valid_name("a b.txt"),
    }


def test_no_request_calls_the_remote(make_pair: MakePair) -> None:
    """With a remote that fails on every call each method of a waiting file works, and makes no call."""
    pair = make_pair(remote="tests.storages.BrokenStorage")
    name = pair.save("a.txt", ContentFile(b"content"))
    answers = every_request(pair, name)
    answers |= {"read": read(pair, name), "path": pair.path(name).endswith("a.txt")}
    pair.transfer(name)
    pair.delete(name)
    answers |= {"gone": pair.exists(name), "another": pair.save("a.txt", ContentFile(b"content")) != name}
    assert pair.remote.calls == []
    expected = {"exists": True, "size": 7, "url": "/media/a.txt", "using_local": True, "available": True, "locate": 1}
    more = {"created": True, "modified": True, "read": b"content", "path": True, "gone": False, "another": True}
    assert answers == expected | more | {"key": pair.get_cache_key(name), "valid": "a_b.txt"}


@pytest.mark.parametrize("keep_local", [True, False])
def test_no_request_calls_the_remote_after_the_transfer(make_pair: MakePair, keep_local: bool) -> None:
    """The same of a file that is on the remote, warm and cold."""
    pair = make_pair(keep_local=keep_local)
    transfer(pair, "a.txt")
    pair.remote.forget()
    answers = []
    for _ in range(2):
        answers.append(every_request(pair, "a.txt"))
        cache.clear()
    pair.transfer("a.txt")
    pair.delete("a.txt")
    assert pair.exists("a.txt") is False
    pair.save("a.txt", ContentFile(b"content"))
    assert pair.remote.calls == []
    assert answers[0] == answers[1]
    assert answers[0]["url"] == "https://remote.example/a.txt"


def test_a_model_calls_no_remote(make_pair: MakePair) -> None:
    """Saving, listing and deleting model instances makes no call to the remote."""
    pair = make_pair(remote="tests.storages.BrokenStorage")
    document = Document(title="one")
    document.file.save("a.txt", ContentFile(b"content"))
    found = Document.objects.get()
    assert (found.file.url, found.file.size) == ("/media/documents/a.txt", 7)
    found.file.delete()
    assert pair.remote.calls == []


def test_the_calls_of_a_transfer(pair: Pair, figure: Callable[[str], None]) -> None:
    """A transfer to a plain storage looks, saves (which looks again), and reads back to verify."""
    record = put(pair, "a.txt")
    sweeping.process(record.pk)
    assert pair.remote.calls == ["exists", "exists", "save", "exists", "size", "open"]
    figure(f"transfer of a new file: {', '.join(pair.remote.calls)}")


def test_the_calls_of_a_transfer_that_trusts_sizes(make_pair: MakePair) -> None:
    """With ``verify="size"`` nothing is read back."""
    pair = make_pair(verify="size")
    record = put(pair, "a.txt")
    sweeping.process(record.pk)
    assert pair.remote.calls == ["exists", "exists", "save", "exists", "size"]


def test_the_calls_of_a_read(make_pair: MakePair) -> None:
    """Reading a file from the remote opens it, and does nothing else."""
    pair = make_pair(keep_local=False)
    transfer(pair, "a.txt")
    pair.remote.forget()
    assert read(pair, "a.txt") == b"content"
    assert pair.remote.calls == ["open"]


def test_the_calls_of_an_unrecorded_file(pair: Pair) -> None:
    """A file without a record costs one question, which is remembered."""
    pair.remote.save("a.txt", ContentFile(b"content"))
    pair.remote.forget()
    assert (pair.exists("a.txt"), pair.exists("a.txt")) == (True, True)
    assert pair.remote.calls == ["exists"]


def test_the_queries_of_a_save(pair: Pair, django_assert_num_queries: AssertQueries) -> None:
    """A save is one INSERT."""
    content = ContentFile(b"content")
    with django_assert_num_queries(1) as captured:
        pair.save("a.txt", content)
    assert captured[0]["sql"].startswith("INSERT")


@pytest.mark.parametrize("max_length", [None, 100])
def test_the_queries_of_a_second_save(
    pair: Pair, django_assert_num_queries: AssertQueries, max_length: int | None
) -> None:
    """A save beside an existing local file is one INSERT as well."""
    put(pair, "a.txt")
    with django_assert_num_queries(1):
        pair.save("a.txt", ContentFile(b"content"), max_length=max_length)


@pytest.mark.parametrize("method", ["url", "exists", "size", "using_remote"])
def test_the_queries_of_a_question(pair: Pair, django_assert_num_queries: AssertQueries, method: str) -> None:
    """A question about a moved file is no query with a warm cache and one with a cold one."""
    transfer(pair, "a.txt")
    with django_assert_num_queries(0):
        getattr(pair, method)("a.txt")
    cache.clear()
    with django_assert_num_queries(1):
        getattr(pair, method)("a.txt")
    with django_assert_num_queries(0):
        getattr(pair, method)("a.txt")


def test_the_queries_of_many_names(pair: Pair, django_assert_num_queries: AssertQueries) -> None:
    """A page of files is one query with a cold cache and none with a warm one."""
    names = [transfer(pair, f"{number}.txt").name for number in range(10)]
    cache.clear()
    with django_assert_num_queries(1):
        pair.locate([*names, "unknown.txt"])
    with django_assert_num_queries(0):
        assert all(location.side == "remote" for location in pair.locate(names).values())


def test_the_queries_of_a_transfer(pair: Pair, django_assert_max_num_queries: AssertQueries) -> None:
    """A transfer is four statements: claim, read, complete, note the attempt."""
    record = put(pair, "a.txt")
    with django_assert_max_num_queries(4) as captured:
        assert sweeping.process(record.pk) == "transferred"
    verbs = [query["sql"].split()[0] for query in captured.captured_queries]
    assert verbs == ["UPDATE", "SELECT", "UPDATE", "INSERT"]


def test_the_queries_of_an_overtaken_message(pair: Pair, django_assert_max_num_queries: AssertQueries) -> None:
    """A message about a file that has moved costs three statements and nothing else."""
    record = transfer(pair, "a.txt")
    pair.remote.forget()
    with django_assert_max_num_queries(3):
        sweeping.process(record.pk, 0)
    assert pair.remote.calls == []


def test_the_queries_of_a_delete(pair: Pair, django_assert_num_queries: AssertQueries) -> None:
    """A delete is one look and one UPDATE."""
    transfer(pair, "a.txt")
    with django_assert_num_queries(2):
        pair.delete("a.txt")


def test_the_queries_of_a_sweep_with_nothing_due(pair: Pair, django_assert_max_num_queries: AssertQueries) -> None:
    """A sweep that finds nothing to do costs five statements, whatever the ledger holds.

    What is due, what has grown late, what history is too old; and its heartbeat, read and written.
    """
    sweeping.sweep(tasks.send)
    for number in range(5):
        transfer(pair, f"{number}.txt")
        put(pair, f"waiting-{number}.txt")
    with django_assert_max_num_queries(5):
        assert sweeping.sweep(tasks.send) == {}


def test_the_queries_of_a_sweep(pair: Pair, django_assert_max_num_queries: AssertQueries) -> None:
    """A sweep of a hundred due files costs no query for each of them where rows can be locked."""
    from django.db import connection, transaction

    from queued_storage import ledger
    from tests.fixtures import make_due

    with transaction.atomic():
        for number in range(100):
            put(pair, f"{number}.txt", b"")
    sweeping.sweep(tasks.send)
    make_due(*ledger.records())
    each = 0 if connection.features.has_select_for_update_skip_locked else 1
    with django_assert_max_num_queries(12 + each * 100):
        assert sweeping.sweep(tasks.send) == {"sent": 100}
    assert record_of(pair, "0.txt").state == "queued"
