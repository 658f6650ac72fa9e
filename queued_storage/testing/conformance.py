"""A check that any pair of storages can run: can files be kept by the local one and moved to the remote one?"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import Storage

from queued_storage import copying, ledger, sweeping
from queued_storage.models import State
from queued_storage.names import record_key
from queued_storage.pairs import StoragePair
from queued_storage.remotes.registry import adapter_for

# Every byte value, in more than one block of everybody's.
BODY = bytes(range(256)) * 4097
BODIES = {"plain.bin": BODY, "empty.bin": b"", "a directory/ünïcode & more.txt": b"one line\r\n"}


class ConformanceError(AssertionError):
    """A storage does not do what queued_storage needs of it; the message says what, and what came instead."""


class LocalConformanceError(ConformanceError):
    """The local storage does not do what is needed."""


class RemoteConformanceError(ConformanceError):
    """The remote storage does not do what is needed."""


class PairConformanceError(ConformanceError):
    """Each side does what is needed, but a file does not find its way through both."""


def check_pair(storage: StoragePair) -> None:
    """Save, read, move and delete small files through both sides of ``storage``; needs the database.

    Raises a ``ConformanceError`` for the first thing that is not as it must be, and whatever the storages raise.
    Uses names below ``queued-storage-check-…/`` and removes what it has made, except for records of deleted files.
    """
    folder = f"queued-storage-check-{secrets.token_hex(8)}"
    _check_side(storage.local, folder, LocalConformanceError, copying_in=lambda s, n, c: str(s.save(n, c)))
    _check_side(storage.remote, folder, RemoteConformanceError, copying_in=_upload)
    _check_stat(storage.remote, f"{folder}/stat.bin")
    for name, body in BODIES.items():
        _check_whole_way(storage, f"{folder}/{name}", body)


def _upload(storage: Storage, name: str, content: Any) -> str:
    return adapter_for(storage).upload(storage, name, content)


def _check_side(
    storage: Storage, folder: str, error: type[ConformanceError], copying_in: Callable[[Storage, str, Any], str]
) -> None:
    for name, body in BODIES.items():
        with _stored(storage, f"{folder}/{name}", body, copying_in) as stored:
            _check_reading(storage, stored, body, error)
            _check_taken(storage, stored, body, error, copying_in)
        _expect(error, not storage.exists(stored), f"exists() is still true after delete({stored!r})")
    missing = f"{folder}/missing.bin"
    _expect(error, not storage.exists(missing), f"exists({missing!r}) is true, and nothing was saved there")
    try:
        storage.open(missing, "rb").read()
    except FileNotFoundError:
        return
    except Exception as other:
        raise error(f"open() of a missing file raises {type(other).__name__}, not FileNotFoundError") from other
    raise error("open() of a missing file raises nothing; FileNotFoundError is needed")


@contextmanager
def _stored(storage: Storage, name: str, body: bytes, copying_in: Callable[[Storage, str, Any], str]) -> Iterator[str]:
    stored = copying_in(storage, name, ContentFile(body))
    try:
        yield stored
    finally:
        storage.delete(stored)


def _check_reading(storage: Storage, name: str, body: bytes, error: type[ConformanceError]) -> None:
    _expect(error, storage.exists(name), f"exists({name!r}) is false after save() returned that name")
    size = storage.size(name)
    _expect(error, size == len(body), f"size({name!r}) is {size} after saving {len(body)} bytes")
    _expect(error, _read(storage, name) == body, f"open({name!r}) gives other bytes than were saved")


def _check_taken(
    storage: Storage,
    name: str,
    body: bytes,
    error: type[ConformanceError],
    copying_in: Callable[[Storage, str, Any], str],
) -> None:
    other = None
    with suppress(FileExistsError):
        other = copying_in(storage, name, ContentFile(b"another file"))
    try:
        # A storage that overwrites never gets the same name twice from us.
        if other != name:
            _expect(error, _read(storage, name) == body, f"a second save under {name!r} changed the first file")
    finally:
        if other is not None and other != name:
            storage.delete(other)


def _check_stat(remote: Storage, name: str) -> None:
    adapter = adapter_for(remote)
    _expect(RemoteConformanceError, adapter.stat(remote, name) is None, "stat() of a missing file must be None")
    with _stored(remote, name, BODY, _upload) as stored:
        stat = adapter.stat(remote, stored)
        if stat is None:
            raise RemoteConformanceError(f"stat({stored!r}) is None after the upload: is what was just stored visible?")
        known = copying.measure(remote, stored, *(name for name in stat.digests if name not in ("sha256", "crc32")))
        right = stat.size in (None, len(BODY))
        _expect(RemoteConformanceError, right, f"stat() says {stat.size} bytes after an upload of {len(BODY)}")
        for algorithm, digest in stat.digests.items():
            right = known.digests[algorithm] == digest
            _expect(RemoteConformanceError, right, f"stat() vouches for a {algorithm} that is not that of the bytes")


def _check_whole_way(storage: StoragePair, name: str, body: bytes) -> None:
    error = PairConformanceError
    name = storage.save(name, ContentFile(body))
    record = ledger.lookup(record_key(storage.alias, name))
    if record is None:
        raise error(f"no record of {name!r} after save(); is {storage!r} the storage that is configured?")
    ledger.release(record.pk)
    try:
        _expect(error, _read(storage, name) == body, f"open({name!r}) gives other bytes before the transfer")
        outcome = sweeping.process(record.pk)
        after = ledger.get(record.pk)
        if after is None or after.state != State.TRANSFERRED:
            raise error(f"the transfer ended as {outcome}: {after.error if after else 'the record is gone'}")
        _expect(error, _read(storage, name) == body, f"open({name!r}) gives other bytes after the transfer")
        stored = _read(storage.remote, after.remote_name)
        _expect(error, stored == body, f"the remote holds other bytes under {after.remote_name!r}")
    finally:
        storage.delete(name)
        sweeping.process(record.pk)
    _expect(error, not storage.exists(name), f"exists({name!r}) is true after delete()")
    for side, place in ((storage.local, after.local_name), (storage.remote, after.remote_name)):
        _expect(error, not side.exists(place), f"{type(side).__name__} still has {place!r} after the removal")


def _read(storage: Storage, name: str) -> bytes:
    with storage.open(name, "rb") as file:
        return bytes(file.read())


def _expect(error: type[ConformanceError], right: bool, message: str) -> None:
    if not right:
        raise error(f"{message}.")
