"""Leases: kept by progress, lost by standing still, and nothing that a loser does counts."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.db import OperationalError, connection

from queued_storage import ledger, sweeping, transfers
from queued_storage.copying import CHUNK
from queued_storage.exceptions import LeaseLostError
from queued_storage.models import State
from tests.conftest import Media
from tests.fixtures import (
    MakePair,
    Pair,
    Threads,
    attempts,
    committing,
    facts,
    finish,
    make_due,
    moved,
    put,
    read,
    record_of,
    saved,
)
from tests.servers.processes import wait_until
from tests.storages import Gate

pytest_plugins = ["tests.fixtures"]
pytestmark = committing


def claim(pk: int) -> Any:
    """Claim a record by hand and return it with its lease."""
    return ledger.claim(pk, uuid.uuid4(), "by hand").first()


class Steps:
    """A file that hands out its chunks only when told to."""

    def __init__(self) -> None:
        self.wanted, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def through(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass the chunks on, one for each ``step()``."""
        for chunk in chunks:
            self.wanted.release()
            assert self.go.acquire(timeout=20), "nobody took a step"
            yield chunk

    def step(self) -> None:
        """Let one chunk pass, when the upload has come to it."""
        assert self.wanted.acquire(timeout=20), "the upload did not come to its next chunk"
        self.go.release()


@pytest.fixture
def slow(make_pair: MakePair) -> tuple[Pair, Steps]:
    """A storage whose uploads go on chunk by chunk."""
    pair, steps = make_pair(remote="tests.storages.MeddlingStorage"), Steps()
    original = type(pair.remote)._save

    def save(name: str, content: Any) -> str:
        return str(original(pair.remote, name, ContentFile(b"".join(steps.through(content.chunks())))))

    pair.remote._save = save
    return pair, steps


def lease_end(pk: int) -> Any:
    """Return when the lease of a record ends."""
    return ledger.records().get(pk=pk).due_at


def pass_time(seconds: float) -> None:
    """Wait until that much time has passed by the clock that leases are trusted by."""
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > seconds, bound=20, what=f"{seconds} s")


def test_progress_renews_the_lease(slow: tuple[Pair, Steps], settings: Any, threads: Threads) -> None:
    """An upload that moves keeps its lease for longer than the lease lasts."""
    settings.QUEUED_STORAGE_LEASE = 3
    pair, steps = slow
    record = put(pair, "a.bin", b"x" * (CHUNK * 4))
    threads.start(sweeping.process, record.pk)
    began, ends = time.monotonic(), set()
    for _ in range(4):
        # Longer than a third of the lease, after which progress renews it.
        pass_time(1.05)
        ends.add(lease_end(record.pk))
        steps.step()
    assert threads.join() == ["transferred"]
    assert time.monotonic() - began > 3
    assert len(ends) > 2
    assert facts(record)["retries"] == 1


def test_standing_still_loses_the_lease(slow: tuple[Pair, Steps], settings: Any, threads: Threads) -> None:
    """An upload that stands still for longer than the lease stops at its next chunk, and touches nothing."""
    settings.QUEUED_STORAGE_LEASE = 2
    pair, steps = slow
    record = put(pair, "a.bin", b"x" * (CHUNK * 3))
    threads.start(sweeping.process, record.pk)
    steps.step()
    wait_until(lambda: ledger.due().exists(), bound=20, what="the end of the lease")
    before = facts(record)
    steps.step()
    assert threads.join() == ["lost"]
    assert facts(record) == before
    assert pair.remote.listdir("") == ([], [])
    assert sweeping.rescue(10) == 1
    row = facts(record)
    assert (row["state"], row["retries"], row["error_kind"]) == ("queued", 1, "lost")
    assert row["error"].endswith("did not renew its lease: killed, or stuck")
    assert attempts() == [("lost", "lost", 0)]


def test_the_lease_was_given_to_another(slow: tuple[Pair, Steps], settings: Any, threads: Threads) -> None:
    """A worker that comes back after another has taken over stops at its next renewal."""
    pair, steps = slow
    settings.QUEUED_STORAGE_LEASE = 3
    record = put(pair, "a.bin", b"x" * (CHUNK * 3))
    threads.start(sweeping.process, record.pk)
    steps.step()
    ledger.records().filter(pk=record.pk).update(lease=uuid.uuid4(), worker="another")
    before = facts(record)
    pass_time(1.05)
    steps.step()
    assert threads.join() == ["lost"]
    assert facts(record) == before


def test_two_attempts_by_hand(make_pair: MakePair, media: Media) -> None:
    """Whatever the first of two attempts does after the second took over, each of its writes meets no row."""
    pair = make_pair()
    record = put(pair, "a.txt")
    zombie = claim(record.pk)
    ledger.records().filter(pk=record.pk).update(due_at=ledger.DatabaseNow())
    assert sweeping.rescue(10) == 1
    second = claim(record.pk)
    before = facts(record)
    assert ledger.renew(record.pk, zombie.lease) is False
    assert ledger.place(record.pk, zombie.lease, "elsewhere.txt") is False
    assert ledger.complete(zombie, None) is False
    assert ledger.retry(zombie, ledger.ErrorKind.PASSING, "late", ledger.AT_ONCE) is False
    assert ledger.fail(zombie, ledger.ErrorKind.MISSING, "late") is False
    assert facts(record) == before
    attempt = transfers.Attempt(second, time.monotonic())
    attempt.storage = pair
    attempt.copy()
    assert ledger.complete(second, None) is True
    assert ledger.complete(zombie, None) is False
    assert read(pair, "a.txt") == b"content"


def test_a_zombie_completes_after_the_second(make_pair: MakePair, threads: Threads) -> None:
    """A worker whose late upload got another name does not change where the file is for anybody."""
    pair = make_pair(remote="tests.storages.RenamingStorage", keep_local=False)
    record, gate = put(pair, "a.txt"), Gate()
    pair.remote.faults["save"] = gate
    threads.start(sweeping.process, record.pk)
    gate.wait()
    pair.remote.faults.clear()
    make_due(record)
    assert sweeping.rescue(10) == 1
    assert sweeping.process(record.pk) == "transferred"
    settled = facts(record, b"content")
    gate.open()
    assert threads.join() == ["lost"]
    assert facts(record, b"content") == settled
    cache.clear()
    assert read(pair, "a.txt") == b"content"
    assert [outcome for outcome, _, _ in attempts()] == ["lost", "transferred"]


def test_a_rescued_record_by_the_same_worker(pair: Pair, threads: Threads) -> None:
    """The same process may hold a record twice, once as a zombie: only the token tells."""
    record, gate = put(pair, "a.txt"), Gate()
    pair.remote.faults["save"] = gate
    threads.start(sweeping.process, record.pk)
    gate.wait()
    pair.remote.faults.clear()
    make_due(record)
    sweeping.rescue(10)
    again = claim(record.pk)
    before = facts(record)
    gate.open()
    assert threads.join() == ["lost"]
    assert facts(record) == before
    assert ledger.records().get(pk=record.pk).lease == again.lease


def test_three_lost_workers(pair: Pair, settings: Any) -> None:
    """A file that takes three workers with it becomes failed, and says so."""
    record = put(pair, "poison.bin")
    for number in range(3):
        assert claim(record.pk) is not None
        make_due(record)
        assert sweeping.rescue(10) == 1
        assert facts(record)["state"] == ("queued" if number < 2 else "failed")
    row = facts(record, b"content")
    assert (row["error_kind"], row["retries"], row["due"]) == ("lost", 3, None)
    assert [kind for _, kind, _ in attempts()] == ["lost"] * 3


def test_a_living_worker_is_not_rescued(pair: Pair) -> None:
    """The sweep takes no lease that has not ended, nor one that is renewed at the same moment."""
    record = put(pair, "a.txt")
    held = claim(record.pk)
    assert sweeping.rescue(10) == 0
    make_due(record)
    seen = ledger.due().get()
    assert ledger.renew(record.pk, held.lease) is True
    assert ledger.expired(seen) is False
    assert ledger.records().get(pk=record.pk).lease == held.lease


def test_the_end_by_our_own_clock(pair: Pair, settings: Any) -> None:
    """A worker trusts its lease no longer than its own clock says, whatever the database would answer."""
    settings.QUEUED_STORAGE_LEASE = 10
    record = put(pair, "a.txt")
    attempt = transfers.Attempt(claim(record.pk), time.monotonic() - 9.1)
    with pytest.raises(LeaseLostError):
        attempt.progress(1)


def test_a_renewal_that_takes_too_long(pair: Pair, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose database keeps it waiting until its lease is over sends nothing more."""
    settings.QUEUED_STORAGE_LEASE = 10
    attempt = transfers.Attempt(claim(put(pair, "a.txt").pk), time.monotonic() - 4)

    def silent(*args: Any) -> bool:
        attempt.ends_at = time.monotonic()
        raise OperationalError("no answer")

    monkeypatch.setattr(ledger, "renew", silent)
    with pytest.raises(LeaseLostError):
        attempt.progress(1)


def test_the_lease_is_measured_by_the_database(pair: Pair, settings: Any) -> None:
    """The end of a lease is the database's time plus the lease."""
    settings.QUEUED_STORAGE_LEASE = 120
    record = put(pair, "a.txt")
    assert facts(claim(record.pk))["due"].total_seconds() == 120


def test_a_record_that_nobody_may_claim(pair: Pair, make_pair: MakePair) -> None:
    """Held, claimed, moved, failed and deleted records cannot be claimed, nor any with a count that does not match."""
    from tests.factories import RecordFactory

    others = [
        RecordFactory(**{state: True}) for state in ("delayed", "transferring", "transferred", "failed", "deleted")
    ]
    before = [facts(record) for record in others]
    assert [claim(record.pk) for record in others] == [None] * 5
    assert [facts(record) for record in others] == before
    record = put(pair, "a.txt")
    assert ledger.claim(record.pk, uuid.uuid4(), "by hand", retries=1).first() is None
    assert facts(record, b"content") == saved("a.txt", b"content")


def test_the_database_connection_dies_in_mid_upload(pair: Pair) -> None:
    """A database connection that dies while bytes move costs nothing: the transfer completes on a new one."""
    if connection.vendor not in ("postgresql", "mysql"):
        pytest.skip("SQLite has no connection that a server could end")
    record, killed = put(pair, "a.txt"), []

    def kill(name: str) -> None:
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SELECT pg_backend_pid()")
            else:
                cursor.execute("SELECT CONNECTION_ID()")
            backend = cursor.fetchone()[0]
        threads = Threads()
        threads.start(_end_connection, backend)
        killed.extend(threads.join())

    pair.remote.faults["save"] = kill
    assert sweeping.process(record.pk) == "transferred"
    assert killed == [True]
    assert facts(record, b"content") == moved("a.txt", b"content")
    assert attempts() == [("transferred", "", 7)]


def _end_connection(backend: int) -> bool:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
            return bool(cursor.fetchone()[0])
        cursor.execute(f"KILL CONNECTION {int(backend)}")
        return True


def test_the_sweep_finishes_what_dead_workers_left(pair: Pair) -> None:
    """Records in the hands of workers that died are rescued and moved by the sweep alone."""
    for number in range(3):
        claim(put(pair, f"{number}.txt").pk)
    finish()
    assert [record_of(pair, f"{number}.txt").state for number in range(3)] == [State.TRANSFERRED] * 3
