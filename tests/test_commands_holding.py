"""Hold, release, pause and resume; runs in threads; records chosen by the shared flags."""

from __future__ import annotations

import os
import signal
import sys
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from queued_storage import draining, health, ledger, selecting, sweeping, tasks
from queued_storage.exceptions import ErrorKind, TransferError
from tests.factories import RecordFactory
from tests.fixtures import MakePair, Outbox, Pair, Threads, attempts, committing, make_due, put, record_of, transfer
from tests.servers.processes import wait_until
from tests.storages import Gate
from tests.test_commands import Ran, manage, report, rows, states

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


# Choosing


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--prefix", "a"], ["a/1", "a/2", "abc"]),
        (["--prefix", "a/"], ["a/1", "a/2"]),
        (["--prefix", "A/"], ["A/3"]),
        (["--prefix", "a%"], []),
        (["--prefix", "\N{SNOWMAN}"], ["\N{SNOWMAN}"]),
        (["--older-than", "1d"], ["a/2", "abc"]),
        (["--older-than", "1d", "--prefix", "a/"], ["a/2"]),
        (["--all", "--limit", "2"], ["a/1", "a/2"]),
        (["--all", "--limit", "0"], []),
    ],
)
def test_records_are_chosen(arguments: list[str], names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefixes are exact in case on every database, flags narrow each other down, and a dry run chooses the same."""
    monkeypatch.setattr(selecting, "CHUNK", 1)
    for name, days in (("a/1", 0), ("a/2", 2), ("abc", 3), ("A/3", 0), ("\N{SNOWMAN}", 0)):
        RecordFactory(name=name, age=timedelta(days=days))
    before = rows()
    dry = manage("hold", *arguments, "--dry-run")
    assert dry.out.encode().decode("unicode_escape").splitlines() == [f"default: {name}: queued" for name in names]
    assert dry.err == f"Would hold {len(names)} files.\n"
    assert rows() == before
    assert manage("hold", *arguments) == Ran(0, f"held: {len(names)}\n", "")
    assert sorted(name for name, state in states().items() if state == "delayed") == sorted(names)


def test_a_state_is_chosen() -> None:
    """Records are chosen by one state or several."""
    RecordFactory(name="q")
    RecordFactory(name="f", failed=True)
    RecordFactory(name="d", delayed=True)
    chosen = selecting.select(ledger.records(), states=["failed", "delayed"])
    assert sorted(chosen.values_list("name", flat=True)) == ["d", "f"]


# Hold and release


@pytest.mark.django_db(transaction=True)
def test_hold_and_release(pair: Pair, outbox: Outbox) -> None:
    """A held file is left by the sweep and by runs; released, its message is sent and it goes."""
    record, other = put(pair, "a.txt"), put(pair, "b.txt")
    outbox.take()
    assert manage("hold", "a.txt") == Ran(0, "held: 1\n", "")
    make_due(record)
    assert manage("run") == Ran(0, report(transferred=1), "")
    assert states() == {"a.txt": "delayed", "b.txt": "transferred"}
    assert manage("hold", "a.txt", "b.txt", "c.txt", "--json") == Ran(
        1,
        '{\n  "held": 0,\n  "not_held": {\n    "delayed": 1,\n    "transferred": 1\n  }\n}\n',
        "No such record: c.txt.\nNot held: 1 delayed.\nNot held: 1 transferred.\n",
    )
    assert manage("release", "--dry-run", "--all") == Ran(0, "default: a.txt: delayed\n", "Would queue 1 files.\n")
    assert manage("release", "--id", str(record.pk), "--id", str(other.pk)) == Ran(
        1, "queued: 1\n", "Not queued: 1 transferred.\n"
    )
    assert outbox.ids() == [record.pk]
    assert ledger.due().get() == record
    assert manage("run") == Ran(0, report(transferred=1), "")


def test_release_of_a_storage(make_pair: MakePair) -> None:
    """What a storage holds with delayed=True goes when it is told to, and so does what waits for an hour."""
    put(make_pair(delayed=True), "a.txt")
    put(make_pair("other", delayed=timedelta(hours=1)), "b.txt")
    assert manage("release", "--storage", "default", "--json").json == {"queued": 1, "not_queued": {}}
    assert states() == {"a.txt": "queued", "b.txt": "delayed"}
    assert manage("release", "--all").out == "queued: 1\n"


# Pause and resume


def test_pause_and_resume(make_pair: MakePair, outbox: Outbox) -> None:
    """A paused storage saves and serves, and nothing of it moves; resumed, everything goes."""
    pair, other = make_pair(), make_pair("other")
    put(pair, "a.txt")
    assert manage("pause", "default", "--dry-run").out == "would be paused: default\n"
    assert health.paused() == []
    assert manage("pause", "default") == Ran(0, "paused: default\n", "")
    put(pair, "b.txt")
    put(other, "c.txt")
    before = [row for row in rows() if row["storage"] == "default"]
    assert manage("run") == Ran(
        1, report(transferred=1), "default: it is paused; 2 files wait until somebody resumes it.\n"
    )
    make_due(*ledger.records())
    assert "sent" not in sweeping.sweep(tasks.send)
    assert sweeping.process(before[0]["id"]) == "retry"
    assert attempts(record_of(pair, "a.txt")) == []
    assert record_of(pair, "a.txt").retries == 0
    assert pair.remote.calls == []
    assert manage("status").out.splitlines()[-1].startswith("paused:  default, since ")
    assert manage("pause", "default", "other", "--json") == Ran(
        0, '{\n  "paused": [\n    "other"\n  ]\n}\n', "default is already paused.\n"
    )
    assert manage("resume", "default", "--dry-run") == Ran(0, "would be resumed: default\n", "")
    assert manage("resume", "default", "other", "other").out == "resumed: default, other\n"
    assert manage("resume", "default") == Ran(0, "resumed: none\n", "default is not paused.\n")
    assert not health.storages().exists()
    assert manage("run") == Ran(0, report(transferred=2), "")


def test_deletes_go_on_while_paused(pair: Pair) -> None:
    """A pause is about transfers: a deleted file is removed from both sides all the same."""
    record = transfer(pair, "a.txt")
    health.pause("default")
    pair.delete("a.txt")
    make_due(record)
    sweeping.sweep(sweeping.process_all)
    assert not pair.remote.exists("a.txt")
    assert not pair.local.exists("a.txt")


def test_a_transfer_in_hand_does_not_end_the_pause(pair: Pair, settings: Any) -> None:
    """A storage that was down and is paused stays paused when a file arrives, and is well afterwards."""
    settings.QUEUED_STORAGE_DOWN_AFTER = 1
    record = put(pair, "a.txt")
    health.failed(record, ErrorKind.PASSING, "no route")
    assert health.pause("default")
    assert not health.pause("default")
    health.succeeded("default")
    assert health.paused() == ["default"]
    known = health.storages().values("failures", "down_since", "probe_at", "error").get()
    assert known == {"failures": 0, "down_since": None, "probe_at": None, "error": ""}
    health.failed(record, ErrorKind.PASSING, "no route")
    health.storages().update(probe_at=timezone.now())
    make_due(record)
    assert health.probes() == []
    assert health.resume("default")
    assert health.down() == ["default"]
    assert health.probes() == [record]


# Threads


@committing
def test_run_in_threads(pair: Pair) -> None:
    """Files move side by side, each once, and each that does not is explained."""
    together = threading.Barrier(3)

    def fault(name: str) -> None:
        if name.startswith("first"):
            together.wait(60)
        if name == "bad.txt":
            raise TransferError("no", ErrorKind.REFUSED)

    pair.remote.faults["save"] = fault
    for number in range(3):
        put(pair, f"first{number}.txt")
    for number in range(20):
        put(pair, f"{number}.txt")
    put(pair, "bad.txt")
    assert manage("run", "--threads", "3") == Ran(
        1, report(transferred=23, failed=1), "default: bad.txt: failed: refused: TransferError: no\n"
    )
    assert sorted(pair.remote.calls).count("save") == 24
    put(pair, "x/1.txt")
    put(pair, "y/1.txt")
    assert manage("run", "--threads", "2", "--prefix", "x/").out == report(transferred=1)
    assert manage("run", "--threads", "2", "--limit", "1").out == report(transferred=1)


@committing
def test_threads_are_interrupted(pair: Pair) -> None:
    """Ctrl-C leaves what nobody has begun, finishes what is in hand, and ends in 130."""
    for number in range(30):
        put(pair, f"{number}.txt")

    def fault(name: str) -> None:
        if name == "3.txt":
            os.kill(os.getpid(), signal.SIGINT)

    pair.remote.faults["save"] = fault
    before = threading.active_count()
    ran = manage("run", "--threads", "2")
    assert ran.code == 130
    assert threading.active_count() == before
    moved = sum(state == "transferred" for state in states().values())
    assert 4 <= moved < 30
    assert set(states().values()) == {"transferred", "queued"}
    pair.remote.faults.clear()
    assert manage("run", "--threads", "2").out == report(transferred=30 - moved)


def _joins(thread: threading.Thread) -> bool:
    """Tell whether a thread waits for another one to end."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "join":
            return True
        frame = frame.f_back
    return False


@committing
def test_what_nobody_has_begun_is_left(pair: Pair, threads: Threads) -> None:
    """Closed early, a run finishes the two files that its threads have in hand, and begins no other."""
    for number in range(9):
        put(pair, f"{number}.txt")
    gate, main = Gate(), threading.current_thread()
    pair.remote.faults["save"] = lambda name: None if name == "0.txt" else gate(name)
    run = draining.drain(threads=2)
    assert next(run)[1] == "transferred"
    wait_until(lambda: pair.remote.counted["save"] == 3, bound=20, what="two files in hand")

    def let_go() -> None:
        wait_until(lambda: _joins(main), bound=20, what="the end of the run")
        gate.open()

    threads.start(let_go)
    run.close()
    threads.join()
    assert sorted(name for name, state in states().items() if state == "transferred") == ["0.txt", "1.txt", "2.txt"]


@committing
def test_an_error_in_a_thread_is_not_lost(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no failure of a transfer ends the command, as it does without threads."""
    put(pair, "a.txt")

    def broken(pk: int, *rest: object) -> None:
        raise RuntimeError("the database is on fire")

    monkeypatch.setattr(sweeping, "process", broken)
    with pytest.raises(RuntimeError, match="on fire"):
        call_command("queued_storage_run", "--threads", "2")
