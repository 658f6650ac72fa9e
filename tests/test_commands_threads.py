"""Looks and downloads side by side: the same answers, and no thread is left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from queued_storage import examining, ledger
from queued_storage.testing import store
from tests.fixtures import MakePair, Pair, committing, transfer
from tests.servers.processes import wait_until
from tests.test_commands import manage
from tests.test_restore import report as restored
from tests.test_verify import FAULTY, evicted, report

pytest_plugins = ["tests.fixtures"]


@pytest.fixture
def pair(make_pair: MakePair) -> Pair:
    """A storage on an object store in memory."""
    store("threads").clear()
    return make_pair(remote=FAULTY, remote_options={"location": None, "base_url": "x:", "name": "threads"})


@committing
def test_verify_in_threads(pair: Pair) -> None:
    """Three are asked at the same moment, and each gets its own answer."""
    for number in range(12):
        transfer(pair, f"{number}.txt", str(number).encode())
    bucket = store("threads")
    del bucket.objects["3.txt"]
    bucket.objects["7.txt"] = b"other"
    hanging = bucket.hang("stat", times=3)
    before = threading.active_count()

    def let_go() -> None:
        wait_until(lambda: hanging.hits == 3, bound=20, what="three questions at once")
        hanging.release()

    watcher = threading.Thread(target=let_go)
    watcher.start()
    ran = manage("verify", "--threads", "3")
    watcher.join(20)
    assert (ran.code, ran.out) == (1, report(verified=10, requeued=2))
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == ["3.txt", "7.txt"]
    assert threading.active_count() == before


@committing
def test_restore_in_threads(pair: Pair) -> None:
    """Every file comes back with its own bytes."""
    for number in range(12):
        evicted(pair, f"{number}.txt", b"%02d" % number)
    assert manage("restore", "--threads", "4").out == restored(restored=12, size=24)
    for number in range(12):
        assert Path(pair.local.path(f"{number}.txt")).read_bytes() == b"%02d" % number
    assert ledger.records().filter(local_copy=True).count() == 12


@committing
def test_reconcile_in_threads(pair: Pair) -> None:
    """The plan is the same, in the same order."""
    for number in range(12):
        transfer(pair, f"{number}.txt")
    for number in (1, 5, 8):
        del store("threads").objects[f"{number}.txt"]
    plan = manage("reconcile", "--older-than", "0")
    assert len(plan.out.splitlines()) == 3
    assert manage("reconcile", "--older-than", "0", "--threads", "4") == plan
    assert manage("reconcile", "--older-than", "0", "--threads", "4", "--apply").code == 0


@committing
def test_threads_are_interrupted(pair: Pair) -> None:
    """Ctrl-C ends in 130; what was counted is written, and no thread goes on."""
    for number in range(12):
        transfer(pair, f"{number}.txt")
    before = threading.active_count()
    store("threads").fail("stat", KeyboardInterrupt(), nth=5)
    ran = manage("verify", "--threads", "2")
    assert ran.code == 130
    assert threading.active_count() == before
    checked = ledger.records().filter(checked_at__isnull=False).count()
    assert ran.out == report(verified=checked)
    assert checked < 12


def test_order_and_errors() -> None:
    """Results come in the order of the things; an error comes where its thing would."""
    assert list(examining.side_by_side(lambda n: n * n, range(20), 3)) == [(n, n * n) for n in range(20)]
    assert list(examining.side_by_side(str, [], 3)) == []

    def fussy(number: int) -> int:
        if number == 4:
            raise ValueError("four")
        return number

    got = []
    with pytest.raises(ValueError, match="four"):
        for _, number in examining.side_by_side(fussy, range(10), 2):
            got.append(number)
    assert got == [0, 1, 2, 3]
