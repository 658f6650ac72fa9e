"""Work off many records: small files are claimed and completed together, the others one by one, in several lanes.

Knows no Celery. Each file is looked at, sent and verified as ``transfers.run`` does it; only the statements are shared.
"""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import islice
from typing import Any

from django.db import connections

from queued_storage import batches, health, ledger, nodes, pace, sweeping, tracing, transfers
from queued_storage.conf import settings
from queued_storage.exceptions import TransferResultError
from queued_storage.models import Outcome, TransferRecord
from queued_storage.pairs import pair_for
from queued_storage.settling import Settled
from queued_storage.transfers import Attempt

#: A record's id and the count of retries that its message was sent with, if there was one.
Job = tuple[int, "int | None"]
Ended = tuple[int, "Outcome | None"]
Result = tuple["Attempt | Job", "Outcome | None", "BaseException | None"]

#: Records that are claimed, and completed, at a time.
BATCH = 50
# A file that has arrived is not left unrecorded for longer than this, in seconds.
LONGEST_WAIT = 1.0
# How long a thread waits for others to have written down what has failed, in seconds.
LONGEST_TURN = 10.0


class Lanes:
    """Threads that work; none as long as one lane is enough, and the work is done at once."""

    def __init__(self, work: Callable[[Any], Outcome | None]) -> None:
        self.work = work
        self.waiting = 0
        self._todo: queue.Queue[Any] = queue.Queue()
        self._done: queue.Queue[Result] = queue.Queue()
        self._threads: list[threading.Thread] = []

    @property
    def has_room(self) -> bool:
        """Whether a lane would run out of work: two for each, one in hand and one to go on with."""
        return self.waiting < max(2 * len(self._threads), 1)

    def put(self, item: Any, count: int = 1) -> None:
        """Have an item worked on: by one of ``count`` threads, which are started if need be, or with one here and now.

        Where the system has no thread to give, those that are there do it, or this one.
        """
        self.waiting += 1
        with suppress(RuntimeError):
            while 1 < count > len(self._threads):
                thread = threading.Thread(target=self._run)
                thread.start()
                self._threads.append(thread)
        if count > 1 and self._threads:
            self._todo.put((item, tracing.context()))
        else:
            self._do(item)

    def get(self, timeout: float | None) -> Result | None:
        """Return an item that is done; ``None`` if there is none within ``timeout`` seconds."""
        try:
            result = self._done.get(timeout=timeout)
        except queue.Empty:
            return None
        self.waiting -= 1
        return result

    def close(self) -> list[Any]:
        """Finish what is in hand, and return what nobody has begun."""
        left = []
        with suppress(queue.Empty):
            while True:
                left.append(self._todo.get_nowait()[0])
        self.waiting -= len(left)
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()
        return left

    def _run(self) -> None:
        try:
            while (given := self._todo.get()) is not None:
                item, parent = given
                with tracing.within(parent):
                    self._do(item)
        finally:
            connections.close_all()

    def _do(self, item: Any) -> None:
        try:
            self._done.put((item, self.work(item), None))
        except BaseException as error:
            self._done.put((item, None, error))


class Worker:
    """Works off ``jobs``, each once; errors of a task's own are in ``errors``, what they are about is retried.

    Without ``threads`` there are as many as ``queued_storage.pace`` says, for files that were claimed together; the
    others go one by one, in the thread of the caller, when nothing else is under way.
    """

    def __init__(self, jobs: Iterable[Job], threads: int | None = 1, task: Any = None) -> None:
        self.task = task
        self.errors: list[ValueError] = []
        self._jobs = iter(jobs)
        self._todo: deque[Attempt | Job] = deque()
        self._verified: list[Attempt] = []
        self._since = 0.0
        self._threads = threads
        self._paces: dict[str, int] = {}
        self._untold: deque[Settled] = deque()
        self._caller, self._lock = threading.current_thread(), threading.Lock()

    def run(self) -> Generator[Ended]:
        """Yield each record's id and how its attempt ended; ``None`` if there was none to make.

        Closed early, it finishes and records what its lanes have in hand, and gives back what else it has claimed.
        """
        lanes = Lanes(self._work)
        try:
            while True:
                while lanes.has_room and (item := self._next()) is not None:
                    count = self._threads or self._pace(item)
                    if count == 1 and not isinstance(item, Attempt):
                        # It may take longer than the lease of those that have arrived, or are under way.
                        while lanes.waiting:
                            yield from self._took(lanes.get(None))
                        yield from self._complete()
                    if count is None and isinstance(item, Attempt):
                        with pace.measured(pair_for(item.record.storage)):
                            lanes.put(item)
                    else:
                        lanes.put(item, count or 1)
                if not lanes.waiting:
                    break
                yield from self._took(lanes.get(LONGEST_WAIT if self._verified or self._todo else None))
                self._let_go()
                if self._is_time():
                    yield from self._complete()
            yield from self._complete()
        finally:
            self._todo.extend(lanes.close())
            while lanes.waiting and (result := lanes.get(0)):
                for _ in self._took(result, stopping=True):
                    pass
            try:
                self._complete()
            finally:
                self._give_back()

    def _pace(self, item: Attempt | Job) -> int | None:
        if not isinstance(item, Attempt) or _is_bound_to_thread():
            return 1
        alias = item.record.storage
        if alias not in self._paces:
            try:
                count = pace.lanes_for(pair_for(alias), self.task)
            except Exception:
                # A storage that cannot be built: the attempt at the record says why.
                count = 1
            if count is None:
                return None
            self._paces[alias] = count
        return self._paces[alias]

    def _next(self) -> Attempt | Job | None:
        if not self._todo:
            self._claim(list(islice(self._jobs, BATCH)))
        self._let_go()
        return self._todo.popleft() if self._todo else None

    def _let_go(self) -> None:
        first = next((item for item in self._todo if isinstance(item, Attempt)), None)
        if first is not None and time.monotonic() >= first.renew_at:
            # Other files have taken their time: somebody else may have these.
            self._give_back()

    def _claim(self, jobs: list[Job]) -> None:
        records: dict[int, TransferRecord] = {}
        started, lease = time.monotonic(), uuid.uuid4()
        fresh = [pk for pk, retries in jobs if not retries]
        if len(fresh) > 1:
            rows = batches.claim(fresh, lease, nodes.worker_name())
            records = {record.pk: record for record in ledger.persist(lambda: list(health.annotate(rows)))}
        # Each once, however often the message names it. What goes alone, and may take long, goes last.
        alone = [job for job in jobs if job[0] not in records]
        self._todo.extend(Attempt(records.pop(pk), started) for pk, _ in jobs if pk in records)
        self._todo.extend(alone)

    def _give_back(self) -> None:
        by_lease: dict[uuid.UUID, list[int]] = {}
        for item in self._todo:
            if isinstance(item, Attempt):
                by_lease.setdefault(item.lease, []).append(item.record.pk)
        self._todo = deque((item.record.pk, 0) if isinstance(item, Attempt) else item for item in self._todo)
        for lease, pks in by_lease.items():
            batches.give_back(pks, lease)

    def _work(self, item: Attempt | Job) -> Outcome | None:
        if isinstance(item, Attempt):
            item.turn, item.tell = self._turn, self._untold.append
            return transfers.work(item, self.task)
        return sweeping.process(*item, self.task)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        # In a transaction of a task of somebody's own the connection is not ours to close.
        if threading.current_thread() is self._caller or connections[ledger.using()].in_atomic_block:
            yield
            return
        # Where a remote fails, all lanes have something to say at once: not each in a connection of its own, for the
        # site needs some too. But nobody waits for ever, should the database answer no more.
        locked = self._lock.acquire(timeout=LONGEST_TURN)
        try:
            yield
        finally:
            try:
                connections[ledger.using()].close()
            finally:
                if locked:
                    self._lock.release()

    def _took(self, result: Result | None, stopping: bool = False) -> Generator[Ended]:
        while self._untold:
            self._untold.popleft().tell()
        if result is None:
            return
        item, outcome, error = result
        pk = item.record.pk if isinstance(item, Attempt) else item[0]
        if isinstance(error, TransferResultError):
            # The task's own mistake; the record has been settled.
            self.errors.append(error)
            outcome = Outcome.RETRY
        elif error is not None and not stopping:
            yield from self._complete()
            raise error
        if isinstance(item, Attempt) and outcome is None and error is None:
            self._since = self._since if self._verified else time.monotonic()
            self._verified.append(item)
            return
        if isinstance(item, Attempt):
            # Something is wrong, perhaps with the remote: the next ones are claimed when their turn has come.
            self._give_back()
        yield pk, outcome

    def _is_time(self) -> bool:
        if not self._verified:
            return False
        waited = time.monotonic() - self._since
        return len(self._verified) >= BATCH or waited >= min(LONGEST_WAIT, _lease().total_seconds() / 6)

    def _complete(self) -> list[Ended]:
        # All of it before the first is yielded: whoever reads may stop there.
        ended: list[Ended] = []
        while self._verified:
            first = self._verified[0]
            if first.record.remote_name != first.place:
                # The remote has chosen another name than the row has.
                ended.append((first.record.pk, transfers.complete(first)))
                del self._verified[0]
                continue
            kind = _kind(first)
            group = [each for each in self._verified if each.record.remote_name == each.place and _kind(each) == kind]
            done = batches.complete({attempt.record: attempt.bytes for attempt in group}, *kind)
            # Not before: after an error they are still to be recorded.
            self._verified = [each for each in self._verified if each not in group]
            for attempt in group:
                tell = transfers.completed if attempt.record.pk in done else transfers.lost
                ended.append((attempt.record.pk, tell(attempt)))
        return ended


def _is_bound_to_thread() -> bool:
    # What a transaction has not committed other threads would not see; and who works in threads, or greenlets, has
    # them already: each of a pool's tasks would start its own.
    is_main = threading.current_thread() is threading.main_thread()
    return connections[ledger.using()].in_atomic_block or not is_main


def _kind(attempt: Attempt) -> tuple[uuid.UUID, timedelta | None]:
    return attempt.lease, transfers.timer_of(attempt.pair)


def _lease() -> timedelta:
    return settings.QUEUED_STORAGE_LEASE
