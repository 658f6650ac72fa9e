"""Look at the two copies of a record: there, gone, or other bytes than were saved. Changes nothing."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeVar

from django.core.files.storage import Storage
from django.db import connections

from queued_storage import copying, nodes
from queued_storage.conf import settings
from queued_storage.digests import Body, parse_digests
from queued_storage.models import TransferRecord
from queued_storage.names import escape
from queued_storage.pairs import StoragePair, pair_for
from queued_storage.redaction import describe
from queued_storage.remotes.base import Stat
from queued_storage.remotes.registry import adapter_for

T = TypeVar("T")
R = TypeVar("R")
# Digests by which a look without --deep compares what the remote vouches for, best first.
COMPARED = (*copying.STRONG, "crc32")


class Found(str, Enum):
    """What is found at one place: the right bytes, nothing, other bytes, or no answer."""

    SAME = "same"
    ABSENT = "absent"
    DIFFERENT = "different"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Look:
    """What was found, and why in a sentence where that is not the right bytes; size and digests as that side tells."""

    found: Found
    reason: str = ""
    size: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


def body_of(record: TransferRecord) -> Body:
    """Return what the ledger knows of a record's bytes."""
    return Body(record.size or 0, parse_digests(record.digest), record.content_type)


def copy_of(record: TransferRecord, storage: StoragePair, body: Body | None = None) -> copying.Copy:
    """Return the two places of a record, for what ``copying`` can tell of them."""
    places = storage.local, record.local_name, storage.remote, record.remote_name
    return copying.Copy(*places, body or body_of(record), storage.verification)


def is_elsewhere(record: TransferRecord) -> bool:
    """Tell whether the local copy lies on the disk of another host."""
    return nodes.is_elsewhere(record.node)


def look_locally(record: TransferRecord, storage: StoragePair, deep: bool = False) -> Look:
    """Look at the local copy: its size, and with ``deep`` its bytes."""
    if is_elsewhere(record):
        return Look(Found.UNKNOWN, f"the local copy lies on the disk of {record.node}; ask there")

    def look() -> Look:
        try:
            size = int(storage.local.size(record.local_name))
        except FileNotFoundError:
            return Look(Found.ABSENT, f"nothing lies at {escape(record.local_name)}")
        if record.size is not None and size != record.size:
            return Look(Found.DIFFERENT, f"the local copy has {size} bytes in place of {record.size}", size)
        same = Look(Found.SAME, size=size)
        return _compare(storage.local, record.local_name, record, "the local copy") if deep else same

    return _answered(look, storage)


def look_remotely(record: TransferRecord, storage: StoragePair, deep: bool = False) -> Look:
    """Look at the remote copy: by size and the digests that the remote vouches for, with ``deep`` at its bytes."""

    def look() -> Look:
        stat = adapter_for(storage.remote).stat(storage.remote, record.remote_name)
        if stat is None:
            return Look(Found.ABSENT, f"nothing lies at {escape(record.remote_name)} on the remote")
        unread = (deep or stat.size is None) and not stat.is_namesake and not _of_another_size(stat, record)
        if unread:
            return _compare(storage.remote, record.remote_name, record, "the remote copy")
        return replace(_judge(stat, record), size=stat.size, digests=stat.digests)

    return _answered(look, storage)


def _of_another_size(stat: Stat, record: TransferRecord) -> bool:
    return None not in (stat.size, record.size) and stat.size != record.size


def _judge(stat: Stat, record: TransferRecord) -> Look:
    if stat.is_namesake:
        return Look(Found.DIFFERENT, "the remote has a file whose name differs in upper and lower case")
    if _of_another_size(stat, record):
        return Look(Found.DIFFERENT, f"the remote copy has {stat.size} bytes in place of {record.size}")
    known = parse_digests(record.digest)
    algorithm = next((name for name in COMPARED if name in stat.digests and name in known), None)
    if algorithm is not None and stat.digests[algorithm] != known[algorithm]:
        return Look(Found.DIFFERENT, f"the remote vouches for another {algorithm} than was saved")
    return Look(Found.SAME)


def _compare(side: Storage, name: str, record: TransferRecord, what: str) -> Look:
    known = parse_digests(record.digest)
    algorithm = next((algorithm for algorithm in COMPARED if algorithm in known), None)
    found = copying.measure(side, name, *(["md5"] if algorithm == "md5" else []))
    same_size = record.size is None or found.size == record.size
    if same_size and (algorithm is None or found.digests[algorithm] == known[algorithm]):
        return Look(Found.SAME, "", found.size, found.digests)
    return Look(Found.DIFFERENT, f"{what} has other bytes than were saved", found.size, found.digests)


def _answered(look: Callable[[], Look], storage: StoragePair) -> Look:
    try:
        return look()
    except FileNotFoundError:
        return Look(Found.ABSENT, "it went away while it was looked at")
    except Exception as error:
        return Look(Found.UNKNOWN, describe(error, storage.local_options, storage.remote_options))


class Patience:
    """Leave a storage alone that has given no answer several times in a row: each would cost a time-out."""

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        self.storages: dict[str, StoragePair | Look] = {}

    def storage(self, alias: str) -> StoragePair | Look:
        """Return the storage of a record, or why it cannot be looked at."""
        if self.failures[alias] >= settings.QUEUED_STORAGE_DOWN_AFTER:
            return Look(Found.UNKNOWN)
        if alias not in self.storages:
            try:
                self.storages[alias] = pair_for(alias)
            except Exception as error:
                self.storages[alias] = Look(Found.UNKNOWN, describe(error))
        return self.storages[alias]

    def note(self, alias: str, look: Look) -> None:
        """Remember whether the storage gave an answer."""
        self.failures[alias] = self.failures[alias] + 1 if look.found == Found.UNKNOWN else 0


def side_by_side(function: Callable[[T], R], things: Iterable[T], threads: int) -> Iterator[tuple[T, R]]:
    """Yield each thing with what ``function`` makes of it, in their order, ``threads`` of them at a time.

    Closed early, what is running is finished and what is waiting is left.
    """
    if threads < 2:
        yield from ((thing, function(thing)) for thing in things)
        return
    source, running = iter(things), deque[tuple[T, Future[R]]]()
    pool = ThreadPoolExecutor(threads)
    try:
        for thing in source:
            running.append((thing, pool.submit(_in_thread, function, thing)))
            if len(running) > 2 * threads:
                first, future = running.popleft()
                yield first, future.result()
        for first, future in running:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _in_thread(function: Callable[[T], R], thing: T) -> R:
    try:
        return function(thing)
    finally:
        # Nobody else closes them when the thread ends.
        for connection in connections.all(initialized_only=True):
            connection.close()


def throttled(things: Iterable[T], rate: float | None, wait: Callable[[float], object] = time.sleep) -> Iterator[T]:
    """Yield no more than ``rate`` things a second."""
    if not rate:
        yield from things
        return
    started = time.monotonic()
    for number, thing in enumerate(things):
        pause = started + number / rate - time.monotonic()
        if pause > 0:
            wait(pause)
        yield thing
