"""The actions that look at storages: verify, evict, restore; each a handful of files, and what they tell."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.files.base import ContentFile
from django.db import connection
from django.test import Client

from queued_storage import handful, ledger
from tests.factories import RecordFactory
from tests.fixtures import MakePair, Pair, read, transfer
from tests.staff import LIST, LogIn, act, told
from tests.storages import Gate

pytest_plugins = ["tests.fixtures", "tests.staff"]
pytestmark = pytest.mark.django_db
NAMES = ("verify", "evict", "restore")
LABELS = {
    "verify": "Verify selected files on the remote",
    "evict": "Evict local copies of selected files",
    "restore": "Restore local copies of selected files",
}
BOUND = "At once it is the first {} files of up to 100.0\xa0MB, as many as it takes 20 seconds to begin. "
BOUND += "For any number of them run: manage.py queued_storage_{}"


@pytest.fixture
def operator(log_in: LogIn) -> Client:
    """A user who may do all three."""
    return log_in("view_transferrecord", *(f"{name}_transferrecord" for name in NAMES))


def local_copies() -> dict[str, bool]:
    """Return which files have a local copy, as the ledger says."""
    return dict(ledger.records().order_by("pk").values_list("name", "local_copy"))


def test_verify(pair: Pair, operator: Client) -> None:
    """What is there is counted, what is gone goes again or is told of, and what is not on the remote is left."""
    records = [transfer(pair, f"{number}.txt") for number in range(5)]
    records.append(RecordFactory(name="held.txt", delayed=True))
    for name in ("1.txt", "2.txt", "3.txt"):
        pair.remote.delete(name)
    pair.remote.save("3.txt", ContentFile(b"altered"[:3]))
    for name in ("2.txt", "3.txt"):
        pair.local.delete(name)
        ledger.records().filter(name=name).update(local_copy=False)
    label = LABELS["verify"]
    assert told(act(operator, "verify", *records)) == [
        ("success", f"{label}: 1 gone or altered on the remote, queued again, 2 verified"),
        ("warning", "3 were not: 1 altered on the remote, 1 delayed, 1 gone from the remote."),
        ("warning", "1.txt: nothing lies at 1.txt on the remote"),
        ("warning", "2.txt: nothing lies at 2.txt on the remote"),
        ("warning", "3.txt: the remote copy has 3 bytes in place of 7"),
    ]
    states = dict(ledger.records().order_by("pk").values_list("name", "state"))
    assert [states[f"{number}.txt"] for number in range(5)] == [
        *("transferred", "queued", "transferred", "transferred", "transferred")
    ]
    (entry,) = LogEntry.objects.all()
    assert entry.change_message == f"{label}: 1 gone or altered on the remote, queued again, 2 verified"


def test_evict(pair: Pair, operator: Client) -> None:
    """Local copies go, but for those that the remote does not hold as they were saved."""
    records = [transfer(pair, f"{number}.txt") for number in range(4)]
    pair.remote.delete("1.txt")
    pair.local.delete("2.txt")
    ledger.records().filter(name="2.txt").update(local_copy=False)
    records.append(RecordFactory(name="owed.txt"))
    response = act(operator, "evict", *records)
    assert told(response)[:2] == [
        ("success", f"{LABELS['evict']}: 2 evicted"),
        ("warning", "3 were not: 1 kept, 1 queued, 1 without a local copy."),
    ]
    assert [text.partition(":")[0] for _, text in told(response)[2:]] == ["1.txt"]
    assert local_copies() == {"0.txt": False, "1.txt": True, "2.txt": False, "3.txt": False, "owed.txt": True}
    assert [pair.local.exists(f"{number}.txt") for number in range(4)] == [False, True, False, False]


def test_restore(make_pair: MakePair, operator: Client) -> None:
    """Copies come back with the right bytes, and nothing is written over."""
    pair = make_pair(keep_local=False)
    records = [transfer(pair, f"{number}.txt") for number in range(3)]
    act(operator, "evict", *records)
    assert set(local_copies().values()) == {False}
    pair.local.save("1.txt", ContentFile(b"foreign"))
    response = act(operator, "restore", *records, RecordFactory(name="there.txt", transferred=True))
    assert told(response) == [
        ("success", f"{LABELS['restore']}: 2 restored"),
        ("warning", "2 were not: 1 whose local place is taken, 1 with a local copy already."),
        ("warning", "1.txt: another file lies at 1.txt: move it away, then restore again"),
    ]
    assert [read(pair.local, f"{number}.txt") for number in range(3)] == [b"content", b"foreign", b"content"]


@pytest.mark.parametrize("name", NAMES)
def test_each_needs_its_own_permission(pair: Pair, log_in: LogIn, name: str) -> None:
    """Who may do the others may not do this one: neither offered nor done."""
    record = transfer(pair, "a.txt")
    others = [f"{other}_transferrecord" for other in (*NAMES, "retry", "remove") if other != name]
    client = log_in("view_transferrecord", *others)
    pair.remote.forget()
    before = ledger.records().values().get()
    assert f"{name}_selected" not in client.get(LIST).content.decode()
    act(client, name, record)
    act(client, name, record, select_across="1")
    assert (ledger.records().values().get(), pair.remote.calls) == (before, [])
    assert not LogEntry.objects.exists()


def test_it_is_confirmed_with_its_numbers_and_its_bound(pair: Pair, operator: Client) -> None:
    """The page in between tells how many would be looked at, how many not, and how many at once; it does nothing."""
    RecordFactory.create_batch(3, transferred=True)
    RecordFactory.create_batch(2, evicted=True)
    RecordFactory(failed=True)
    records = list(ledger.records())
    html = act(operator, "evict", *records, confirmed="").content.decode()
    rows = [re.sub(r"<[^>]*>", " ", row).split() for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)]
    assert [" ".join(row) for row in rows[-3:]] == [
        "transferred 3 57 bytes will be looked at",
        "transferred 2 38 bytes stays as it is",
        "failed 1 19 bytes stays as it is",
    ]
    assert BOUND.format(100, "evict") in html
    assert pair.remote.calls == []


def test_everything_that_matches_is_a_handful(pair: Pair, operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of everything that the filter matches the first few are done, those that can be; the rest is for the command."""
    monkeypatch.setattr(handful, "FILES", 3)
    RecordFactory.create_batch(4, failed=True)
    RecordFactory(name="huge.txt", transferred=True, size=handful.LARGEST + 1)
    records = [transfer(pair, f"{number}.txt") for number in range(5)]
    response = act(operator, "evict", records[0], path="?storage=default", select_across="1")
    assert told(response) == [
        ("success", f"{LABELS['evict']}: 3 evicted"),
        ("warning", "4 were not, for their states: 4 failed."),
        ("warning", f"3 files were left. {BOUND.format(3, 'evict')}"),
    ]
    assert [name for name, local in local_copies().items() if not local] == ["0.txt", "1.txt", "2.txt"]
    # What is done is not in the way of the next.
    response = act(operator, "evict", records[0], path="?storage=default", select_across="1")
    assert told(response)[0] == ("success", f"{LABELS['evict']}: 2 evicted")


def test_no_file_is_begun_after_the_time(pair: Pair, operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the remote, the request ends after the file at hand."""
    monkeypatch.setattr(handful, "SECONDS", 0.0)
    records = [transfer(pair, f"{number}.txt") for number in range(3)]
    assert told(act(operator, "verify", *records)) == [
        ("success", f"{LABELS['verify']}: 1 verified"),
        ("warning", f"2 files were left. {BOUND.format(100, 'verify').replace('20 s', '0 s')}"),
    ]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Holds a remote until the test ends; one that hangs has little time."""
    monkeypatch.setattr(handful, "PATIENCE", 2.0)
    gate = Gate(60)
    yield gate
    gate.opened.set()


@pytest.mark.parametrize("name", NAMES)
def test_a_remote_that_hangs_does_not_hang_the_request(
    make_pair: MakePair, operator: Client, gate: Gate, name: str
) -> None:
    """Its files are left as they are, and those of other storages are done."""
    pair, papers = make_pair(), make_pair("papers")
    records = [transfer(storage, f"{number}.txt") for storage in (pair, papers) for number in range(2)]
    if name == "restore":
        act(operator, "evict", *records)
    papers.remote.faults["*"] = gate
    before = list(ledger.records().filter(storage="papers").values())
    started = time.monotonic()
    messages = told(act(operator, name, *records))
    assert time.monotonic() - started < 20
    assert [level for level, _ in messages] == ["success", "warning"]
    assert messages[1][1] == "2 were not: 2 on a remote that does not answer."
    assert list(ledger.records().filter(storage="papers").values()) == before


def test_a_remote_that_fails_is_not_asked_for_ever(make_pair: MakePair, operator: Client) -> None:
    """After some files without an answer the others are not tried; its words stand there without its secrets."""
    pair = make_pair(remote="tests.storages.OptionalStorage", remote_options={"secret_key": "correct-horse"})
    records = [transfer(pair, f"{number}.txt") for number in range(8)]

    def fail(name: str) -> None:
        raise ConnectionError("key correct-horse refused")

    pair.remote.faults["*"] = fail
    pair.remote.forget()
    response = act(operator, "verify", *records)
    assert told(response) == [
        ("warning", "8 were not: 8 no answer."),
        *[("warning", f"{number}.txt: ConnectionError: key ******** refused") for number in range(3)],
    ]
    assert len(pair.remote.calls) <= 4
    assert LogEntry.objects.get().change_message == f"{LABELS['verify']}: nothing"


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_bytes_move(pair: Pair, operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the project wraps each request in one."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    record, inside = transfer(pair, "a.txt"), []
    ledger.records().update(local_copy=False)
    pair.local.delete("a.txt")
    pair.remote.faults["open"] = lambda name: inside.append(connection.in_atomic_block)
    assert told(act(operator, "restore", record))[0][0] == "success"
    assert inside == [False]


def test_a_name_from_hell_in_a_message(pair: Pair, operator: Client) -> None:
    """Names are spelled out in messages, which stay text."""
    record = RecordFactory(name="a\u202egnp.<b>", transferred=True)
    text: Any = told(act(operator, "verify", record))[-1][1]
    assert text.startswith("a\\u202egnp.<b>: ")
    assert (
        "<b>" not in act(operator, "verify", record).content.decode().partition("messagelist")[2].partition("</ul>")[0]
    )
