"""Where a file is: a cache that can only ever hold the final answer, read through to the ledger.

Cached is "on the remote, under this name" and "gone". A file that is still local is asked of the ledger each time:
caching "local" allows a lasting wrong answer, whichever of set, add, delete or versions is used. "On the remote" is
only ever added, by readers and by the worker; a delete sets "gone", so that nobody slow can bring an old answer back.
Any cache error is a miss.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

from django.core.cache import BaseCache, caches
from django.db import connections, transaction

from queued_storage import ledger, nodes
from queued_storage.access import Place
from queued_storage.breaker import Breaker
from queued_storage.conf import settings
from queued_storage.exceptions import TemporarilyUnavailableError
from queued_storage.models import Side, State, TransferRecord
from queued_storage.names import escape, record_key
from queued_storage.pairs import StoragePair

logger = logging.getLogger("queued_storage")
T = TypeVar("T")

# A cache that fails or hangs costs one time-out, then it is left alone for this long.
breaker = Breaker(lambda: timedelta(seconds=30))
GONE = "gone"
# Stands in the way of an answer that was final and is no longer; whoever meets it asks the ledger.
ASK = "ask"


class Location(NamedTuple):
    """Where the bytes of a recorded file are; ``side`` is ``None`` for a deleted one."""

    side: Side | None
    local_name: str = ""
    remote_name: str = ""
    size: int | None = None
    digest: str = ""
    final: bool = False
    #: The host on whose disk a file that is still local lies, where hosts do not share one.
    node: str = ""

    @property
    def is_elsewhere(self) -> bool:
        """Tell whether the file is local to another host."""
        return nodes.is_elsewhere(self.node)

    @classmethod
    def of(cls, record: TransferRecord | Place) -> Location:
        """Return what a record says."""
        if record.state == State.DELETED:
            return cls(None, final=True)
        on_remote = record.state == State.TRANSFERRED
        side, node = (Side.REMOTE, "") if on_remote else (Side.LOCAL, record.node)
        return cls(side, record.local_name, record.remote_name, record.size, record.digest, on_remote, node)

    def dump(self) -> str:
        """Write a final location as a short string for the cache."""
        if self.side is None:
            return GONE
        return json.dumps([self.local_name, self.remote_name, self.size, self.digest], separators=(",", ":"))

    @classmethod
    def load(cls, value: object) -> Location | None:
        """Read what ``dump`` wrote; ``None`` for anything else."""
        if value == GONE:
            return cls(None, final=True)
        try:
            local_name, remote_name, size, digest = json.loads(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None
        if not (all(isinstance(text, str) for text in (local_name, remote_name, digest)) and isinstance(size, int)):
            return None
        return cls(Side.REMOTE, local_name, remote_name, size, digest, final=True)


def cache_key(storage: StoragePair, name: str) -> str:
    """Return the cache key of ``name``: a prefix and a digest, so that no two storages share one."""
    return _cache_key(storage, record_key(storage.alias, name))


def _cache_key(storage: StoragePair, key: uuid.UUID) -> str:
    return f"{storage.prefix}_{key.hex}"


def locate(storage: StoragePair, name: str) -> Location | None:
    """Return where ``name`` is, or ``None`` if it has no record; one query at most, none if the cache knows."""
    key, timeout = record_key(storage.alias, name), _timeout(storage)
    cached_under = _cache_key(storage, key)
    if timeout is not None and not _changed_here(cached_under):
        found = _load(cached_under, try_cache(lambda cache: cache.get(cached_under)))
        if found is not None:
            return found
    place = ledger.places([key]).get(key)
    return None if place is None else _remember(cached_under, Location.of(place), timeout)


def guess(storage: StoragePair, name: str) -> Location:
    """Return where ``name`` is; if nobody knows, locally if it is there, else on the unasked remote.

    Some find out by the path of a made-up name whether a storage has paths at all.
    """
    found = locate(storage, name)
    return found or Location(Side.LOCAL if storage.local.exists(name) else Side.REMOTE, name, name)


def locate_many(storage: StoragePair, names: Iterable[str]) -> dict[str, Location | None]:
    """Return where each of ``names`` is: one round trip to the cache and at most one query for all."""
    wanted = {name: cache_key(storage, name) for name in names}
    timeout = _timeout(storage)
    asked = [] if timeout is None else [key for key in wanted.values() if not _changed_here(key)]
    cached = try_cache(lambda cache: cache.get_many(asked)) if asked else None
    result = {name: _load(key, (cached or {}).get(key)) for name, key in wanted.items()}
    missing = {record_key(storage.alias, name): name for name, location in result.items() if location is None}
    for key, place in (ledger.places(missing) if missing else {}).items():
        name = missing[key]
        result[name] = _remember(wanted[name], Location.of(place), timeout)
    return result


def unavailable(record: TransferRecord) -> TemporarilyUnavailableError:
    """Return the error for a file that is recorded and cannot be read from here at this moment."""
    name = escape(record.name)
    if Location.of(record).is_elsewhere:
        return TemporarilyUnavailableError(
            f"{name} lies on the disk of {escape(record.node)} until it is transferred: ask there, or try again."
        )
    return TemporarilyUnavailableError(
        f"{name} is recorded as {record.state} but was found on neither side; try again."
    )


def announce(storage: StoragePair, record: TransferRecord) -> None:
    """Tell the cache, after the commit, what a transition has made final."""
    key, location, timeout = cache_key(storage, record.name), Location.of(record), _timeout(storage)
    connection = connections[ledger.using()]
    if connection.in_atomic_block:
        _changes(connection).add(key)
    if timeout is not None and location.final:
        # The closure is our own and raises nothing: an error in on_commit would cost the callbacks of others.
        transaction.on_commit(lambda: _write(key, location, timeout), using=ledger.using())


def unsettle(storage: StoragePair, record: TransferRecord) -> None:
    """Tell the cache, after the commit, that "on the remote" is not true of ``record`` for now: ask the ledger.

    Set, so that a reader with the former answer in hand cannot add it afterwards.
    """
    key, timeout = cache_key(storage, record.name), _timeout(storage)
    if timeout is not None:
        seconds = timeout.total_seconds()
        transaction.on_commit(lambda: try_cache(lambda cache: cache.set(key, ASK, seconds)), using=ledger.using())


def _write(key: str, location: Location, timeout: timedelta) -> None:
    if location.side is None:
        # "Gone" must be forgotten before the record is pruned and its name is free again.
        seconds = min(timeout, settings.QUEUED_STORAGE_PRUNE_AFTER / 2).total_seconds()
        try_cache(lambda cache: cache.set(key, GONE, seconds))
    else:
        # Added, not set: a delete may have been faster than the worker that tells of its transfer.
        try_cache(lambda cache: cache.add(key, location.dump(), timeout.total_seconds()))


def recall_side(storage: StoragePair, name: str) -> Side | None:
    """Return the side where a file without a record was found lately; a hint, asked only after the ledger."""
    value = try_cache(lambda cache: cache.get(_side_key(storage, name)))
    return Side(value) if value in Side.values else None


def remember_side(storage: StoragePair, name: str, side: Side | None) -> None:
    """Remember, or forget, the side where a file without a record was found."""
    key, seconds = _side_key(storage, name), settings.QUEUED_STORAGE_UNRECORDED_TIMEOUT.total_seconds()
    if side is None:
        try_cache(lambda cache: cache.delete(key))
    else:
        try_cache(lambda cache: cache.set(key, str(side.value), seconds))


def _side_key(storage: StoragePair, name: str) -> str:
    return f"{cache_key(storage, name)}_side"


def _timeout(storage: StoragePair) -> timedelta | None:
    # Where names are overwritten nothing is final; the user may accept a stated staleness.
    return storage.staleness if storage.overwrites else settings.QUEUED_STORAGE_CACHE_TIMEOUT


def _load(key: str, value: object) -> Location | None:
    location = Location.load(value)
    if location is None and value not in (None, ASK):
        logger.warning("Ignored a foreign cache value", extra={"cache_key": key, "type": type(value).__name__})
    return location


def _remember(key: str, location: Location, timeout: timedelta | None) -> Location:
    # What this transaction has written may yet be rolled back; how long "gone" may stand is for the deleter to say.
    if location.side == Side.REMOTE and timeout is not None and not _changed_here(key):
        _write(key, location, timeout)
    return location


def try_cache(call: Callable[[BaseCache], T]) -> T | None:
    """Return what ``call`` returns of the cache; ``None`` if there is none, it fails, or has failed lately."""
    alias = settings.QUEUED_STORAGE_CACHE
    if alias is None or not breaker.allows():
        return None
    try:
        result = call(caches[alias])
        breaker.succeeded()
        return result
    except Exception as error:
        breaker.failed()
        logger.warning("The cache failed; reading from the ledger", extra={"error": type(error).__name__})
        return None


def _changed_here(key: str) -> bool:
    connection = connections[ledger.using()]
    return connection.in_atomic_block and key in _changes(connection)


def _changes(connection: Any) -> set[str]:
    # What the open transaction has changed; another outermost block is another transaction.
    outermost = connection.atomic_blocks[0]
    known: tuple[object, set[str]] | None = getattr(connection, "queued_storage_changes", None)
    if known is None or known[0] is not outermost:
        known = connection.queued_storage_changes = (outermost, set())
    return known[1]
