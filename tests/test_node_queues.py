"""A queue for each host: messages go where the file lies, and one that lands elsewhere is sent on, within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.files.base import ContentFile
from django.test import Client

from queued_storage import sweeping, tasks
from queued_storage.exceptions import TemporarilyUnavailableError
from queued_storage.models import TransferAttempt, TransferRecord
from tests.conftest import Media
from tests.fixtures import MakePair, Message, Outbox, Pair, attempts, committing, facts, make_due, put, read, saved
from tests.test_commands import manage
from tests.test_nodes import Host, host as host

pytest_plugins = ["tests.fixtures"]
pytestmark = committing


@pytest.fixture
def following(settings: Any, make_pair: MakePair, host: Host, outbox: Outbox) -> Iterator[Pair]:
    """A storage whose queue follows the host; this is host one."""
    settings.QUEUED_STORAGE_QUEUE = "files-{node}"
    yield make_pair()
    take(outbox, "files-one", "files-two", "large-one", "files-")


def swept(*records: TransferRecord) -> None:
    """Let the sweep send what is owed on ``records``."""
    make_due(*records)
    sweeping.sweep(tasks.send)


def take(outbox: Outbox, *names: str) -> dict[str, list[int]]:
    """Take the messages of these queues; return the ids of their records."""
    return {name: [pk for message in outbox.take(name) for pk, _ in message.kwargs["records"]] for name in names}


def only(messages: list[Message]) -> Message:
    """Return the one message."""
    (message,) = messages
    return message


def test_messages_go_to_the_host_of_the_file(following: Pair, host: Host, outbox: Outbox) -> None:
    """A save, the sweep of another host and a retry by hand all send to the queue of the host that has the file."""
    first = put(following, "a.txt")
    assert take(outbox, "files-one", "files-two", "") == {"files-one": [first.pk], "files-two": [], "": []}
    host("two")
    second = put(following, "b.txt")
    swept(first, second)
    assert take(outbox, "files-one", "files-two") == {"files-one": [first.pk], "files-two": [second.pk, second.pk]}
    following.transfer("a.txt")
    assert take(outbox, "files-one", "files-two") == {"files-one": [first.pk], "files-two": []}


def test_the_option_goes_before_the_setting(following: Pair, make_pair: MakePair, outbox: Outbox) -> None:
    """A storage may have queues of its own, for each host too."""
    record = put(make_pair(queue="large-{node}"), "a.txt")
    assert take(outbox, "files-one", "large-one") == {"files-one": [], "large-one": [record.pk]}


def test_a_message_that_lands_elsewhere(following: Pair, host: Host, outbox: Outbox) -> None:
    """Another host claims nothing, counts nothing, writes nothing, and sends the message home."""
    record = put(following, "a.txt", b"content")
    before = facts(record, b"content")
    message = only(outbox.take("files-one"))
    host("two")
    assert message.deliver() == {str(record.pk): "elsewhere"}
    assert facts(record, b"content") == before == saved("a.txt", b"content", node="one")
    assert attempts() == []
    host("one")
    again = only(outbox.take("files-one"))
    assert again.kwargs == {"records": [[record.pk, 0]], "hops": 1}
    assert again.deliver() == {str(record.pk): "transferred"}
    assert attempts() == [("transferred", "", 7)]


def test_the_others_of_a_message_are_done_here(following: Pair, host: Host, outbox: Outbox) -> None:
    """Of a message for files of two hosts each does its own."""
    first = put(following, "a.txt")
    host("two")
    second = put(following, "b.txt")
    outbox.take("files-one"), outbox.take("files-two")
    outcomes = tasks.process_each([[first.pk, 0], [second.pk, 0]])
    assert outcomes == {str(first.pk): "elsewhere", str(second.pk): "transferred"}
    assert take(outbox, "files-one", "files-two") == {"files-one": [first.pk], "files-two": []}


def test_a_message_is_not_sent_on_for_ever(make_pair: MakePair, host: Host, outbox: Outbox) -> None:
    """Where hosts share a queue the wrong one takes a message four times, then the reason stands in the record."""
    pair = make_pair()
    record = put(pair, "a.txt", b"content")
    due_at = record.due_at
    host("two")
    assert outbox.deliver() == 1 + tasks.HOPS
    error = "its messages reach two, and the file lies on the disk of one"
    expected = saved("a.txt", b"content", node="one", error_kind="elsewhere", error=error)
    row = facts(record, b"content")
    # Counted from the note; the moment itself stays.
    assert row | {"due": expected["due"]} == expected
    record.refresh_from_db()
    assert (record.due_at, attempts()) == (due_at, [])
    # The sweep sends again, and the lot may fall on the right host.
    swept(record)
    host("one")
    outbox.deliver()
    row = facts(record, b"content")
    assert (row["state"], row["retries"], row["error_kind"]) == ("transferred", 1, "")


@pytest.mark.parametrize("hops", [-1, 99, "1", None, True, [1]])
def test_a_forged_count_sends_nothing_on(following: Pair, host: Host, outbox: Outbox, hops: Any) -> None:
    """A count that is none of ours is taken for the last one."""
    record = put(following, "a.txt")
    outbox.take("files-one")
    host("two")
    tasks.process_each([[record.pk, 0]], hops=hops)
    assert take(outbox, "files-one", "files-two") == {"files-one": [], "files-two": []}


def test_a_message_that_was_overtaken_is_dropped(following: Pair, host: Host, outbox: Outbox) -> None:
    """A message from before another attempt is not made a fresh one by its way over another host."""
    record = put(following, "a.txt")
    outbox.take("files-one")
    TransferRecord.objects.update(retries=1)
    host("two")
    tasks.process_each([[record.pk, 0]])
    assert outbox.take("files-one") == []


def test_deleting_and_evicting_happen_at_home(
    following: Pair, make_pair: MakePair, host: Host, media: Media, outbox: Outbox
) -> None:
    """What else is owed on a local copy is sent home as well, and done there without a failure."""
    pair = make_pair(keep_local=timedelta(seconds=0.001))
    evicted, deleted = put(pair, "a.txt"), put(pair, "b.txt")
    for record in (evicted, deleted):
        assert sweeping.process(record.pk) == "transferred"
    outbox.take("files-one")
    host("two")
    pair.delete("b.txt")
    swept(evicted)
    messages = outbox.take("files-one")
    assert [pk for message in messages for pk, _ in message.kwargs["records"]] == [deleted.pk, evicted.pk]
    before = [facts(record) for record in (evicted, deleted)]
    for message in messages:
        message.deliver()
    assert [facts(record) for record in (evicted, deleted)] == before
    host("one")
    for message in outbox.take("files-one"):
        message.deliver()
    rows = [facts(record) for record in (evicted, deleted)]
    assert [(row["state"], row["local_copy"], row["error_kind"]) for row in rows] == [
        ("transferred", False, ""),
        ("deleted", False, ""),
    ]
    assert list(media.local.rglob("*.txt")) == []


def test_without_a_local_copy_any_host_will_do(
    following: Pair, make_pair: MakePair, host: Host, outbox: Outbox
) -> None:
    """The removal of a file that is on the remote alone does not wait for a host that may be gone."""
    pair = make_pair(keep_local=False)
    record = put(pair, "a.txt")
    sweeping.process(record.pk)
    outbox.take("files-one")
    host("two")
    pair.delete("a.txt")
    only(outbox.take("files-two")).deliver()
    assert facts(record)["error_kind"] == ""
    assert not pair.remote.exists("a.txt")


def test_a_deleted_file_whose_host_is_gone(following: Pair, host: Host, outbox: Outbox, media: Media) -> None:
    """After an hour another host removes the remote copy; the local one waits for its host, which may come back."""
    record = put(following, "a.txt")
    sweeping.process(record.pk)
    outbox.take("files-one")
    host("two")
    following.delete("a.txt")
    outbox.take("files-one")
    swept(record)
    early = only(outbox.take("files-one"))
    assert early.deliver() == {str(record.pk): "elsewhere"}
    assert following.remote.exists("a.txt")
    outbox.take("files-one")
    make_due(record, by=timedelta(hours=2))
    sweeping.sweep(tasks.send)
    only(outbox.take("files-two")).deliver()
    assert not following.remote.exists("a.txt")
    row = facts(record)
    assert (row["state"], row["local_copy"], row["error_kind"]) == ("deleted", True, "elsewhere")
    swept(record)
    host("one")
    only(outbox.take("files-one")).deliver()
    row = facts(record)
    assert (row["local_copy"], row["error_kind"], list(media.local.rglob("*.txt"))) == (False, "", [])


@pytest.mark.parametrize("task", ["OwnRun", "plain"])
def test_tasks_with_the_six_arguments(following: Pair, make_pair: MakePair, outbox: Outbox, task: str) -> None:
    """A Celery task that does not take records is sent to the queue of the host, too."""
    make_pair(task=f"tests.usertasks.{task}").save("a.txt", ContentFile(b"content"))
    assert only(outbox.take("files-one")).args[0] == "a.txt"


def test_the_queries_of_a_message(
    following: Pair, outbox: Outbox, settings: Any, django_assert_num_queries: Any
) -> None:
    """Whose files they are is one question for a whole message, and none where hosts have no names."""
    records = [put(following, f"{number}.txt") for number in range(5)]
    told = [(record.pk, 0) for record in records]
    with django_assert_num_queries(1):
        assert tasks.send_home(told) == {}
    settings.QUEUED_STORAGE_NODE = ""
    with django_assert_num_queries(0):
        assert tasks.send_home(told) == {}


def test_a_worker_without_a_name(following: Pair, host: Host, outbox: Outbox) -> None:
    """A worker that has no name finds out by the transfer; that is no failure either."""
    record = put(following, "a.txt")
    message = only(outbox.take("files-one"))
    host("")
    assert message.deliver() == {str(record.pk): "retry"}
    row = facts(record)
    assert (row["state"], row["retries"], row["error_kind"]) == ("queued", 0, "elsewhere")
    swept(record)
    host("one")
    assert only(outbox.take("files-one")).deliver() == {str(record.pk): "transferred"}
    assert not TransferAttempt.objects.filter(outcome="failed").exists()


def test_the_error_of_a_reader_elsewhere(following: Pair, host: Host) -> None:
    """The temporary error of a reader on another host says where the file lies."""
    put(following, "a.txt")
    host("two")
    with pytest.raises(TemporarilyUnavailableError, match=r"^a\.txt lies on the disk of one until it is transferred"):
        read(following, "a.txt")


@pytest.mark.django_db
@pytest.mark.parametrize("remote", ["SpyStorage", "SigningStorage"])
def test_a_reader_elsewhere_is_redirected(
    following: Pair, make_pair: MakePair, host: Host, settings: Any, client: Client, remote: str
) -> None:
    """A link leads from another host to the one that has the file, with its signature, and is good there."""
    settings.ROOT_URLCONF = "tests.app.urls_with_files"
    settings.QUEUED_STORAGE_NODE_URL = "https://{node}.example.com/"
    pair = make_pair(remote=f"tests.storages.{remote}", links=True)
    put(pair, "a b.txt", b"content")
    host("two")
    url = pair.url("a b.txt")
    response = client.get(url)
    assert (response.status_code, response["Cache-Control"]) == (302, "no-store")
    mark = "&" if "?" in url else "?"
    assert response["Location"] == f"https://one.example.com{url}{mark}sent_home=1"
    parts = urlsplit(response["Location"])
    # Should the address lead to the same host again, that is the end of it.
    assert client.get(f"{parts.path}?{parts.query}").status_code == 503
    host("one")
    assert client.get(f"{parts.path}?{parts.query}").getvalue() == b"content"


def test_the_run_of_one_host(following: Pair, host: Host) -> None:
    """A run transfers what lies on its own host, leaves the rest untouched, and says where that lies."""
    first, other = put(following, "a.txt"), put(following, "b.txt", b"content")
    host("two")
    put(following, "c.txt")
    before = facts(other)
    ran = manage("run", "--json")
    assert (ran.code, ran.json["transferred"], ran.json["retry"]) == (1, 1, 0)
    assert ran.err.splitlines()[-1] == "2 files lie on the disk of one; run this there, or a worker."
    assert facts(other) == before
    host("one")
    assert manage("run", "--dry-run").out == "default: a.txt\ndefault: b.txt\n"
    assert manage("run").code == 0
    assert facts(first)["state"] == "transferred"


def test_the_doctor_names_the_queue_of_the_host(
    following: Pair, host: Host, filesystem_broker: Any, celery_processes: Any
) -> None:
    """The doctor asks for a worker on the queue of this host, and for one wherever files wait."""
    put(following, "a.txt")
    host("two")
    celery_processes.worker(filesystem_broker, "--queues", "files-two")
    findings = {item["check"]: item for item in manage("doctor", "--json", "--no-canary").json["findings"]}
    assert findings["workers for default"]["text"] == "they know its task and listen to the queue files-two"
    waiting = findings["hosts of default"]
    assert waiting["text"] == "1 files lie on the disk of one, and no worker listens to its queue files-one"
    assert waiting["verdict"] == "bad"


def test_the_canary_names_the_queue_of_the_host(
    following: Pair, filesystem_broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A canary that nobody takes says which queue it waits in."""
    monkeypatch.setattr("queued_storage.doctor.PATIENCE", (0.1,))
    findings = manage("doctor", "--json", "--timeout", "0").json["findings"]
    (canary,) = (item for item in findings if item["check"] == "canary of default")
    assert canary["advice"].startswith("Start a worker that listens to the queue files-one, on the same broker")
