"""A worker has as many files under way as its remote is far away, where that is safe."""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.files.storage import Storage, storages
from django.db import connections, transaction
from storages.backends.s3 import S3Storage as DjangoStoragesS3

from queued_storage import draining, lanes, ledger, pace, settling, signals, sweeping, tasks
from queued_storage.models import TransferAttempt
from queued_storage.remotes import ftp, objectstore, s3, sftp
from queued_storage.remotes.registry import many_at_once
from tests.conftest import Media
from tests.fixtures import MakePair, Pair, Threads, committing, put
from tests.usertasks import TransferAndNotify

pytest_plugins = ["tests.fixtures"]
pytestmark = committing

FAR, NEAR = 100.0, 1.2


class Gauge:
    """Counts how many files are being saved at the same moment, and by how many threads."""

    def __init__(self) -> None:
        self.most = self.now = 0
        self.threads: set[int] = set()
        self._lock = threading.Lock()

    @contextmanager
    def _inside(self) -> Iterator[None]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.threads.add(threading.get_ident())
        yield
        with self._lock:
            self.now -= 1

    def __call__(self, name: str) -> None:
        """Wait as one does for a server far away."""
        with self._inside():
            time.sleep(0.05)


@pytest.fixture
def gauge(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Gauge:
    """A remote that may be used by several threads, and waits."""
    monkeypatch.setattr(pace, "many_at_once", lambda storage: True)
    made = Gauge()
    pair.remote.faults["save"] = made
    return made


def seen(pair: Any, waits: float, ago: float = 0.0) -> None:
    """Have a measurement have been made."""
    pair.__dict__["_pace"] = pace.Pace(waits, time.monotonic() - ago)


def work(pair: Pair, count: int = 32) -> None:
    """Save files and have one message do all of them."""
    records = [put(pair, f"{number:02}.txt", b"content") for number in range(count)]
    outcomes = tasks.process_each([[record.pk, 0] for record in records], pair.task)
    assert Counter(outcomes.values()) == {"transferred": count}
    assert set(ledger.records().values_list("state", "retries")) == {("transferred", 1)}
    assert TransferAttempt.objects.count() == count
    assert Counter(pair.remote.calls) >= Counter({"save": count})


def test_a_remote_far_away_is_measured_and_used_at_once(pair: Pair, gauge: Gauge) -> None:
    """The second file shows that the remote is far away; of the others several are under way, each once."""
    work(pair)
    assert 1 < gauge.most <= 32
    assert len(gauge.threads) == gauge.most + 1


def test_the_first_file_is_no_measure(pair: Pair, gauge: Gauge) -> None:
    """In the first file of a process its client is made; so the second one is measured as well."""
    with pace.measured(pair):
        pass
    assert pace.lanes_for(pair) is None
    with pace.measured(pair):
        time.sleep(0.02)
    assert pace.lanes_for(pair) == 32


def test_no_more_than_the_setting(pair: Pair, gauge: Gauge, settings: Any) -> None:
    """QUEUED_STORAGE_THREADS bounds it; with 1 there are no threads."""
    seen(pair, FAR)
    settings.QUEUED_STORAGE_THREADS = 3
    work(pair)
    assert gauge.most == 3
    settings.QUEUED_STORAGE_THREADS = 1
    gauge.most, gauge.threads = 0, set()
    for number in range(4):
        put(pair, f"more/{number}")
    list(draining.drain())
    assert (gauge.most, gauge.threads) == (1, {threading.get_ident()})


def test_a_remote_near_by_gets_one_after_the_other(pair: Pair, gauge: Gauge) -> None:
    """Where waiting is no more than the work there are no threads, until it is measured again."""
    seen(pair, NEAR)
    work(pair)
    assert (gauge.most, gauge.threads) == (1, {threading.get_ident()})
    assert pace.lanes_for(pair) == 1
    seen(pair, NEAR, ago=2 * pace.GOOD_FOR)
    assert pace.lanes_for(pair) is None


def test_code_of_users_is_called_by_one_thread(pair: Pair, gauge: Gauge, make_pair: MakePair) -> None:
    """A task with a ``transfer`` of its own is not asked to work in threads; one that says it can is."""
    seen(pair, FAR)
    task = TransferAndNotify()
    assert pace.lanes_for(pair, task) == 1
    assert pace.lanes_for(pair) == 32

    class Ready(tasks.Transfer):
        name = "tests.test_pace.Ready"

        def transfer(self, name: str, local: Storage, remote: Storage, **kwargs: Any) -> bool:
            return super().transfer(name, local, remote, **kwargs)

        transfer.many_at_once = True  # type: ignore[attr-defined]

    assert pace.lanes_for(pair, Ready()) == 32


@pytest.mark.parametrize(
    ("remote", "many"),
    [(s3.S3Storage, True), (objectstore.ObjectStorage, True), (sftp.SFTPStorage, False), (ftp.FTPStorage, False)],
)
def test_which_remotes_are_used_at_once(remote: type[Storage], many: bool) -> None:
    """Those whose threads share connections; a login for each thread would cost more than it brings."""
    assert many_at_once(remote.__new__(remote)) is many


def test_a_way_of_ones_own_to_save() -> None:
    """A subclass that saves in its own way is somebody's code, made for one thread."""

    class Own(s3.S3Storage):
        def _save(self, name: str, content: Any) -> str:
            return str(super()._save(name, content))

    class OwnObjects(objectstore.ObjectStorage):
        def _save(self, name: str, content: Any) -> str:
            return str(super()._save(name, content))

    for storage in (Own.__new__(Own), OwnObjects.__new__(OwnObjects), storages["default"]):
        assert many_at_once(storage) is False
    plain = DjangoStoragesS3.__new__(DjangoStoragesS3)
    assert many_at_once(plain) is True


def test_in_a_transaction(pair: Pair, gauge: Gauge) -> None:
    """Inside of a transaction, as in somebody's tests, nothing is left to other threads."""
    seen(pair, FAR)
    with transaction.atomic():
        worker = lanes.Worker([(put(pair, f"{number}.txt").pk, 0) for number in range(4)], None)
        assert [str(outcome) for _, outcome in worker.run()] == ["transferred"] * 4
    assert gauge.threads == {threading.get_ident()}


def test_in_a_pool_of_threads(pair: Pair, gauge: Gauge, threads: Threads) -> None:
    """A worker whose tasks run in threads has as many files under way as it has tasks."""
    seen(pair, FAR)
    messages = [[[put(pair, f"{number}/{each}.txt").pk, 0] for each in range(6)] for number in range(2)]
    threads.together(2, lambda number: tasks.process_each(messages[number]))
    assert gauge.most <= 2
    assert len(gauge.threads) == 2
    assert set(ledger.records().values_list("state", flat=True)) == {"transferred"}


def test_large_files_wait_for_the_small_ones(pair: Pair, gauge: Gauge) -> None:
    """What may take long goes alone, in the thread of the worker, when all others are recorded."""
    seen(pair, FAR)
    records = [put(pair, f"{number:02}.txt") for number in range(10)]
    ledger.records().filter(pk=records[0].pk).update(retries=1)
    states: list[tuple[int, int]] = []

    def look(name: str) -> None:
        if name == "00.txt":
            left = ledger.records().exclude(state="transferred").count()
            states.append((left, threading.get_ident()))
        gauge(name)

    pair.remote.faults["save"] = look
    tasks.process_each([[record.pk, 1 if record is records[0] else 0] for record in records])
    assert states == [(1, threading.get_ident())]
    assert gauge.most > 1
    assert set(ledger.records().values_list("state", flat=True)) == {"transferred"}


def test_one_that_fails(pair: Pair, gauge: Gauge) -> None:
    """A file that fails in its thread is retried later; the others arrive."""
    seen(pair, FAR)

    def fail(name: str) -> None:
        gauge(name)
        if name == "03.txt":
            raise ConnectionError("no route")

    pair.remote.faults["save"] = fail
    records = [put(pair, f"{number:02}.txt") for number in range(12)]
    outcomes = tasks.process_each([[record.pk, 0] for record in records])
    assert Counter(outcomes.values()) == {"transferred": 11, "retry": 1}
    assert outcomes[str(records[3].pk)] == "retry"


def test_many_that_fail_at_once(pair: Pair, gauge: Gauge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A remote that goes down fails a file in each thread; they write so with one connection, after one another."""
    seen(pair, FAR)
    write, writing = settling.write, Gauge()
    open_ones: list[Any] = []

    def fail(name: str) -> None:
        gauge(name)
        raise ConnectionError("no route")

    def slow(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            writing("")
            own = connections[ledger.using()]
            open_ones.append([each for each in known if each is not own and each.connection is not None])
            known.append(own)
        return write(*args, **kwargs)

    known: list[Any] = []
    pair.remote.faults["save"] = fail
    monkeypatch.setattr(settling, "write", slow)
    records = [put(pair, f"{number:02}.txt") for number in range(12)]
    outcomes = tasks.process_each([[record.pk, 0] for record in records])
    assert gauge.most > 1
    assert (writing.most, set(map(len, open_ones))) == (1, {0})
    assert set(outcomes.values()) <= {"retry", "waits", "None"}, outcomes
    assert set(ledger.records().values_list("state", flat=True)) == {"queued"}


def test_receivers_are_called_by_one_thread(pair: Pair, gauge: Gauge) -> None:
    """Of files that fail in several threads receivers hear in that of the worker, of each once."""
    seen(pair, FAR)
    told: list[tuple[str, int]] = []

    def refuse(name: str) -> None:
        gauge(name)
        raise OSError(errno.ENAMETOOLONG, "too long")

    def receive(**facts: Any) -> None:
        told.append((facts["name"], threading.get_ident()))

    pair.remote.faults["save"] = refuse
    records = [put(pair, f"{number:02}.txt") for number in range(12)]
    signals.transfer_failed.connect(receive)
    try:
        tasks.process_each([[record.pk, 0] for record in records])
    finally:
        signals.transfer_failed.disconnect(receive)
    assert gauge.most > 1
    assert sorted(told) == [(f"{number:02}.txt", threading.get_ident()) for number in range(12)]


class InTransaction(tasks.Transfer):
    """A user's task, made for threads, that moves each file in a transaction of its own."""

    name = "tests.test_pace.InTransaction"

    def transfer(self, name: str, local: Storage, remote: Storage, **kwargs: Any) -> bool:
        """Move it as ever."""
        with transaction.atomic():
            return super().transfer(name, local, remote, **kwargs)

    transfer.many_at_once = True  # type: ignore[attr-defined]


def test_a_taken_name_in_a_transaction_of_the_task(pair: Pair, gauge: Gauge, media: Media) -> None:
    """Where the record names another place than first, its file lies there, whatever surrounds the transfer."""
    seen(pair, FAR)
    records = [put(pair, f"{number:02}.txt", b"content") for number in range(6)]
    for record in records:
        # As of files that were transferred before, and go again.
        ledger.records().filter(pk=record.pk).update(transferred_at=ledger.DatabaseNow())
        (media.remote / record.name).write_bytes(b"foreign")
    tasks.process_each([[record.pk, 0] for record in records], InTransaction())
    assert len(gauge.threads) > 1
    for record in ledger.records():
        assert (record.state, record.remote_name != record.name) == ("transferred", True)
        assert (media.remote / record.remote_name).read_bytes() == b"content"
        assert (media.remote / record.name).read_bytes() == b"foreign"


def test_no_thread_to_be_had(pair: Pair, gauge: Gauge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no more threads the work is done all the same: by those that are there, or by none."""
    seen(pair, FAR)
    starts: list[int] = []
    start: Callable[[threading.Thread], None] = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        starts.append(1)
        if len(starts) > allowed:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for allowed in (0, 2):
        starts.clear()
        gauge.most = 0
        for number in range(8):
            put(pair, f"{allowed}/{number}.txt")
        ended = Counter(str(outcome) for _, outcome in draining.drain())
        assert ended == {"transferred": 8}
        assert gauge.most == max(allowed, 1)


def test_a_worker_that_is_told_to_stop(pair: Pair, gauge: Gauge) -> None:
    """An interruption finishes what is in hand, records it, and gives the rest back as it was."""
    seen(pair, FAR)
    records = [put(pair, f"{number:02}.txt") for number in range(40)]
    stopped = threading.Event()

    class Told(Exception):
        """What Celery raises in the thread of the task."""

    def jobs() -> Iterator[lanes.Job]:
        yield from ((record.pk, 0) for record in records)

    worker = lanes.Worker(jobs(), None)
    took = worker._took

    def raising(*args: Any, **kwargs: Any) -> Any:
        if not stopped.is_set() and gauge.most > 1:
            stopped.set()
            raise Told
        return took(*args, **kwargs)

    worker._took = raising  # type: ignore[method-assign]
    with pytest.raises(Told):
        list(worker.run())
    found = Counter(ledger.records().values_list("state", "retries"))
    assert set(found) <= {("transferred", 1), ("queued", 0), ("transferring", 1)}
    assert found["transferring", 1] <= 1
    assert sum(found.values()) == 40
    assert storages["default"].remote.calls.count("save") == found["transferred", 1] + found["transferring", 1]
    ledger.records().filter(state="transferring").update(due_at=ledger.DatabaseNow())
    sweeping.rescue(10)
    list(draining.drain())
    assert set(ledger.records().values_list("state", flat=True)) == {"transferred"}


def test_no_more_threads_than_connections(settings: Any) -> None:
    """A client that keeps ten connections, as boto3's own does, gets ten threads; ours keeps enough for all."""
    found = {}
    for backend in ("storages.backends.s3.S3Storage", "queued_storage.remotes.s3.S3Storage"):
        entry = dict(settings.STORAGES["default"])
        keys = {"access_key": "a", "secret_key": "b", "bucket_name": "bucket"}
        entry["OPTIONS"] = entry["OPTIONS"] | {"remote": backend, "remote_options": keys}
        settings.STORAGES = settings.STORAGES | {"default": entry}
        pair = storages["default"]
        seen(pair, FAR)
        found[backend] = pace.lanes_for(pair)
    assert list(found.values()) == [10, 32]
