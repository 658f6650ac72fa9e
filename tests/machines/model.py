"""M1: random sequences of everything that users, workers, clocks, brokers, caches and remotes may do.

The model is a dictionary of what was promised; after each step the real storage must agree with it. A worker is the
real code taken in steps, so that others can come in between: claim, upload, complete. It may stop at any of them.
"""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from django.core.cache import caches
from django.core.files.base import ContentFile
from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queued_storage import health, ledger, locations, nodes, sweeping, tasks, transfers
from queued_storage.exceptions import LeaseLostError
from queued_storage.models import State, TransferRecord
from queued_storage.pairs import pair_for
from queued_storage.testing import store
from tests.fixtures import Message, Outbox
from tests.machines.invariants import Key, Promises, look, read_all, settled, sha256
from tests.machines.world import World, advance, prune, settle

NAMES = ("a.txt", "b", "folder/a.txt")
FILES = 8
# Renewed, run out, retried, moved on by a day, forgotten.
TIMES = [timedelta(seconds=61), timedelta(minutes=6), timedelta(hours=2), timedelta(days=1), timedelta(days=8)]
# A request that has left its process arrives sooner than this, or never.
LATEST = timedelta(days=3)
FAULTS = ("stop", "cut", "truncate", "lose answer", "hide", "fail")
number = st.integers(0, 63)


class Stopped(BaseException):
    """The worker is told to stop in mid-upload."""


@dataclass
class Worker:
    """A worker with a file in hand."""

    attempt: transfers.Attempt
    body: bytes | None
    age: timedelta = timedelta(0)

    def wait(self, by: timedelta) -> None:
        """Let time pass for it, too."""
        self.age += by
        self.attempt.renew_at -= by.total_seconds()
        self.attempt.ends_at -= by.total_seconds()


class Machine(RuleBasedStateMachine):
    """See the module; ``world`` and ``steps`` are set on a subclass for each run."""

    world: World
    steps = 0
    hits: dict[str, int]

    @initialize()
    def begin(self) -> None:
        """Begin with nothing."""
        self.world.clear()
        self.outbox = Outbox()
        self.outbox.take()
        self.promises = Promises()
        # Names that were never acknowledged but may be seen: a rolled-back save leaves its bytes for a while.
        self.loose: set[Key] = set()
        self.foreign: dict[Key, bytes] = {}
        self.messages: list[Message] = []
        self.workers: list[Worker] = []
        # What arrived on a remote after its worker was dead.
        self.late: set[Key] = set()
        self.down: set[str] = set()
        self.saved = 0

    # Users

    def content(self, size: int) -> bytes:
        """Return a content that no other file has, unless it is empty."""
        self.saved += 1
        return (b"%d:" % self.saved).ljust(size, b".") if size else b""

    def store_file(self, alias: str, name: str, data: bytes) -> Key:
        """Save and return the key of what was saved; the promise is not made yet."""
        known = set(TransferRecord.objects.filter(storage=alias).values_list("name", flat=True))
        saved = self.world.storage(alias).save(name, ContentFile(data))
        key = (alias, saved)
        if self.world.overwrites(alias):
            assert saved == name
        else:
            assert key not in self.promises.kept, f"{saved} was handed out twice"
            assert saved not in known, f"{saved} was handed out before its deleted record was pruned"
        return key

    @precondition(lambda self: len(self.promises.kept) < FILES)
    @rule(kind=number, name=st.sampled_from(NAMES), size=st.sampled_from([0, 1, 64, 200]))
    def save(self, kind: int, name: str, size: int) -> None:
        """Save a file, under a name that may be taken."""
        data = self.content(size)
        self.promises.keep(self.store_file(self.alias(kind), name, data), sha256(data))

    @precondition(lambda self: len(self.promises.kept) < FILES)
    @rule(kind=number, names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3), commits=st.booleans())
    def save_in_transaction(self, kind: int, names: list[str], commits: bool) -> None:
        """Save files in one transaction that is committed, or is not."""
        keys = []
        with transaction.atomic():
            for name in names:
                data = self.content(100)
                keys.append((self.store_file(self.alias(kind), name, data), sha256(data)))
            transaction.set_rollback(not commits)
        for key, digest in keys:
            if commits:
                self.promises.keep(key, digest)
            else:
                self.promises.unknown.add(digest)
                self.loose.add(key)
                self.promises.gone.discard(key)

    @precondition(lambda self: self.promises.kept)
    @rule(which=number)
    def delete(self, which: int) -> None:
        """Delete a file."""
        alias, name = key = self.kept(which)
        self.world.storage(alias).delete(name)
        self.promises.drop(key)
        if key in self.loose | set(self.foreign):
            self.promises.gone.discard(key)

    @precondition(lambda self: self.promises.kept)
    @rule(which=number)
    def ask_for_transfer(self, which: int) -> None:
        """Release a held file, send for a queued one, retry a failed one; nothing happens to others."""
        alias, name = self.kept(which)
        self.world.storage(alias).transfer(name)

    # The broker

    @rule()
    def publish(self) -> None:
        """Take what was published since: it may be delivered now, later, twice or never."""
        self.messages += self.outbox.take()

    @precondition(lambda self: self.messages)
    @rule(which=number, again=st.booleans())
    def deliver(self, which: int, again: bool) -> None:
        """Deliver a message, and perhaps keep it for another time."""
        message = self.messages[which % len(self.messages)]
        message.deliver()
        if not again:
            self.messages.remove(message)

    @precondition(lambda self: self.messages)
    @rule(which=number)
    def lose(self, which: int) -> None:
        """Lose a message."""
        del self.messages[which % len(self.messages)]

    # Workers, step by step

    @rule(which=number)
    def claim(self, which: int) -> None:
        """Let a worker claim a queued record and go no further."""
        queued = list(TransferRecord.objects.filter(state=State.QUEUED).order_by("pk"))
        if not queued:
            return
        pk = queued[which % len(queued)].pk
        record = health.annotate(ledger.claim(pk, uuid.uuid4(), nodes.worker_name())).get()
        attempt = transfers.Attempt(record, time.monotonic())
        attempt.storage = pair_for(record.storage)
        body = self.world.local_files(record.storage).get(record.local_name)
        self.workers.append(Worker(attempt, body))

    @precondition(lambda self: self.workers)
    @rule(which=number)
    def upload(self, which: int) -> None:
        """Let a worker upload, whether its lease is still worth anything or not; it dies of an error."""
        worker = self.workers[which % len(self.workers)]
        try:
            worker.attempt.copy()
        except LeaseLostError:
            self.workers.remove(worker)
        except Exception as error:
            self.workers.remove(worker)
            transfers._give_back(worker.attempt, error)

    @precondition(lambda self: any(worker.attempt.verified for worker in self.workers))
    @rule(which=number)
    def complete(self, which: int) -> None:
        """Let a worker that has uploaded go on to the end."""
        ready = [worker for worker in self.workers if worker.attempt.verified]
        worker = ready[which % len(ready)]
        self.workers.remove(worker)
        transfers.complete(worker.attempt)

    @precondition(lambda self: self.workers)
    @rule(which=number, late=st.booleans())
    def crash(self, which: int, late: bool) -> None:
        """Let a worker die; what it has sent already may arrive afterwards."""
        worker = self.workers.pop(which % len(self.workers))
        record = worker.attempt.record
        if late and worker.age < LATEST and worker.body is not None and record.storage not in self.down:
            store(record.storage).objects.setdefault(record.remote_name, worker.body)
            self.late.add((record.storage, record.remote_name))

    @rule(which=number, fault=st.sampled_from(FAULTS))
    def transfer_with_fault(self, which: int, fault: str) -> None:
        """Run a transfer that meets one fault of its remote."""
        queued = list(TransferRecord.objects.filter(state=State.QUEUED).order_by("pk"))
        if not queued:
            return
        record = queued[which % len(queued)]
        remote = store(record.storage)
        with suppress(Stopped):
            armed = {
                "stop": lambda: remote.fail("part", Stopped()),
                "cut": lambda: remote.fail("part", ConnectionResetError("cut")),
                "truncate": lambda: remote.truncate(1),
                "lose answer": lambda: remote.lose_answer(TimeoutError("no answer")),
                "hide": remote.hide,
                "fail": lambda: remote.fail("stat", PermissionError("403")),
            }[fault]()
            try:
                sweeping.process(record.pk)
            finally:
                armed.end()
                self.hits[fault] = self.hits.get(fault, 0) + armed.hits
        if fault == "truncate":
            self.promises.damaged.update(
                sha256(body[:1]) for body in [self.world.local_files(record.storage).get(record.local_name, b"")]
            )

    # Sweeps, time, cache, remotes

    @rule(twice=st.booleans(), by_message=st.booleans())
    def sweep(self, twice: bool, by_message: bool) -> None:
        """Run one sweep or two, which do the work themselves or publish it."""
        for _ in range(1 + twice):
            sweeping.sweep(tasks.send if by_message else sweeping.process_all)

    @rule(by=st.sampled_from(TIMES))
    def pass_time(self, by: timedelta) -> None:
        """Let time pass."""
        advance(by)
        for worker in self.workers:
            worker.wait(by)

    @rule(which=st.none() | number)
    def lose_cache(self, which: int | None) -> None:
        """Empty the cache, or evict what it holds of one file."""
        if which is None or not self.promises.kept:
            caches["default"].clear()
        else:
            alias, name = self.kept(which)
            caches["default"].delete(locations.cache_key(self.world.storage(alias), name))

    @rule(kind=number)
    def remote_down(self, kind: int) -> None:
        """Let a remote go away."""
        alias = self.alias(kind)
        if alias not in self.down:
            self.down.add(alias)
            store(alias).fail("*", ConnectionError("down"), times=None)

    @rule(kind=number)
    def remote_up(self, kind: int) -> None:
        """Let a remote come back."""
        alias = self.alias(kind)
        self.down.discard(alias)
        store(alias).heal()

    @rule(kind=number, name=st.sampled_from(NAMES))
    def foreign_object(self, kind: int, name: str) -> None:
        """Let somebody else put an object on a remote, where none is: it is theirs, and stays."""
        key = alias, _ = self.alias(kind), name
        if name not in store(alias).objects:
            self.foreign[key] = store(alias).objects[name] = b"somebody else's"
            self.promises.gone.discard(key)

    # What must hold

    @invariant()
    def agree(self) -> None:
        """Compare with the model."""
        type(self).steps += 1
        if hasattr(self, "promises"):
            bad = read_all(self.world, self.promises, self.down) + look(self.world, self.promises)
            assert not bad, "\n".join(bad)

    def teardown(self) -> None:
        """Bring everything to rest, and find each file in its place and nothing besides."""
        if not hasattr(self, "promises"):
            return
        for alias in self.world.kinds:
            store(alias).heal()
        self.down.clear()
        self.come_to_rest()
        pruned = prune()
        assert pruned, "something is owed after the pruning"
        self.late.clear()
        self.judge()

    def come_to_rest(self) -> None:
        """Do what the operator does, and the sweep, and judge."""
        assert settle(), "the sweep does not come to an end"
        for alias, name in self.promises.kept:
            self.world.storage(alias).transfer(name)
        assert settle(), "the sweep does not come to an end"
        self.judge()

    def judge(self) -> None:
        """Judge what stands when all is done."""
        for (alias, name), data in self.foreign.items():
            assert store(alias).objects.pop(name, None) == data, f"somebody else's {name} on {alias} was touched"
        self.foreign.clear()
        bad, _ = settled(self.world, self.promises, self.late)
        bad += read_all(self.world, self.promises) + look(self.world, self.promises)
        assert not bad, "\n".join(bad)

    def alias(self, kind: int) -> str:
        """Choose a storage."""
        kinds = list(self.world.kinds)
        return kinds[kind % len(kinds)]

    def kept(self, which: int) -> Key:
        """Choose a file."""
        keys = sorted(self.promises.kept)
        return keys[which % len(keys)]
