"""Save a file: its bytes durable locally, then its record in the caller's transaction, then the message."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from django.core.files.base import File
from django.db import Error, InterfaceError, OperationalError, connections

from queued_storage import backlog, copying, ledger, locations, publishing
from queued_storage.conf import settings
from queued_storage.copying import AnyFile
from queued_storage.digests import Body, format_digests
from queued_storage.exceptions import SaveUnknownError
from queued_storage.models import State, TransferRecord
from queued_storage.names import alternative_name, clean_name, escape, generation_name, record_key
from queued_storage.pairs import StoragePair

# Other names, or other writers of the same name, that a save meets before it gives up.
TRIES = 100
# How often a write is tried whose answer was an error of the connection, or of several writers at once.
ANSWERS = 10

logger = logging.getLogger("queued_storage")


def save(
    storage: StoragePair, name: str, content: AnyFile, max_length: int | None = None, exclusive: bool = False
) -> str:
    """Save ``content`` and return the name under which it is known from now on.

    On any error nothing is left: no bytes under a public name, no record, no message. The one exception is a database
    that went away while it was committing (``SaveUnknownError``): then the bytes stay. With ``exclusive`` a taken name
    raises ``FileExistsError`` where otherwise the file is replaced or another name is chosen. A storage that owes as
    much as it may raises ``BacklogFullError``, or has the file transferred after the commit, before the caller goes on.
    """
    through = backlog.admit(storage)
    # A task that cannot be found is told before anything is written.
    _ = storage.task
    place, generation = name, 1
    if storage.overwrites:
        old = ledger.lookup(record_key(storage.alias, name))
        generation = 1 if old is None else old.generation + 1
        # A local storage that overwrites would write over the body of an earlier record, or of a save at this moment.
        if generation > 1 or storage.local_overwrites:
            place = generation_name(name, generation)
    fixed = storage.overwrites or exclusive
    local_name, body = copying.save_locally(storage.local, place, content, None if fixed else max_length)
    record = new_record(storage, name if fixed else clean_name(local_name), local_name, body)
    if generation > 1:
        record.remote_name = place
    try:
        if fixed and local_name != place:
            _move(storage, record, generation_name(name, generation))
        if storage.overwrites:
            _replace(storage, record, exclusive)
        else:
            _insert_under_free_name(storage, record, max_length, exclusive)
    except SaveUnknownError:
        raise
    except Exception:
        _discard(storage, record.local_name)
        raise
    if record.state == State.QUEUED and through:
        backlog.write_through(storage, record)
    elif record.state == State.QUEUED:
        publishing.after_commit(storage, record)
        backlog.saved(storage, record)
    return record.name


def new_record(storage: StoragePair, name: str, local_name: str, body: Body | None) -> TransferRecord:
    """Return an unsaved record for a file that lies at ``local_name``; without ``body`` it is measured later."""
    delay = storage.delayed
    state = State.DELAYED if delay else State.QUEUED
    wait = delay if isinstance(delay, timedelta) else settings.QUEUED_STORAGE_RESEND_DELAY
    return TransferRecord(
        storage=storage.alias,
        name=name,
        key=record_key(storage.alias, name),
        state=state,
        local_name=local_name,
        remote_name=name,
        size=body.size if body else None,
        digest=format_digests(body.digests) if body else "",
        content_type=body.content_type if body else copying.content_type_of(None, name),
        node=settings.QUEUED_STORAGE_NODE,
        due_at=None if delay is True else ledger.after(wait),
    )


def _taken(name: str) -> FileExistsError:
    return FileExistsError(f"{escape(name)} was saved by somebody else meanwhile; save under another name")


def _replace(storage: StoragePair, record: TransferRecord, exclusive: bool) -> None:
    for attempt in range(TRIES):
        # Under REPEATABLE READ only a locking read shows what another writer has committed meanwhile.
        if _certainly(record, partial(ledger.replace, record, exclusive, attempt > 0)):
            locations.announce(storage, record)
            return
        if exclusive:
            break
        if record.local_name == record.name:
            # Saved by others since this save looked; what they have removed from the place may be owed once more.
            _move(storage, record, generation_name(record.name, record.generation))
    raise _taken(record.name)


def _insert_under_free_name(
    storage: StoragePair, record: TransferRecord, max_length: int | None, exclusive: bool
) -> None:
    wanted = record.name
    for _ in range(TRIES):
        if _certainly(record, partial(ledger.insert, record)):
            return
        if exclusive:
            break
        another = alternative_name(wanted, storage.get_alternative_name, max_length)
        # The bytes move along: a place belongs to the record of that name, which may be removed any time.
        _move(storage, record, storage.get_available_name(another, max_length=max_length))
        record.name = record.remote_name = clean_name(record.local_name)
        record.key = record_key(record.storage, record.name)
    raise _taken(wanted)


def _move(storage: StoragePair, record: TransferRecord, place: str) -> None:
    with storage.local.open(record.local_name, "rb") as file:
        moved, body = copying.save_locally(storage.local, place, file)
    _discard(storage, record.local_name)
    record.local_name = moved
    if (body.size, format_digests(body.digests)) != (record.size, record.digest):
        raise OSError(f"{escape(record.name)} was changed while it was saved; save it again")


def _certainly(record: TransferRecord, write: Callable[[], bool]) -> bool:
    """Write the record and return whether it is there, also where the answer of the database was lost."""
    connection = connections[ledger.using()]
    for _ in range(ANSWERS):
        # Asked before the write: an error here means that the row is certainly not there.
        connection.ensure_connection()
        try:
            return write()
        except (OperationalError, InterfaceError) as error:
            # A dead connection, or a deadlock of several writers of one name, which MySQL and MariaDB resolve by force.
            if connection.in_atomic_block:
                raise
            # A connection that still works has brought the database's own answer: nothing was written.
            answered = connection.connection is not None and connection.is_usable()
            if _committed(record, error, answered):
                return True
            failure = error
    raise failure


def _committed(record: TransferRecord, error: Error, answered: bool) -> bool:
    assert record.key is not None
    try:
        found = ledger.lookup(record.key)
    except Error:
        if answered:
            raise error from None
        raise SaveUnknownError from error
    # An earlier record whose local copy was evicted may have lain at the same place.
    if found is None or not found.local_copy or not _same(found, record):
        return False
    record.pk = found.pk
    return True


def _same(found: TransferRecord, record: TransferRecord) -> bool:
    return all(getattr(found, name) == getattr(record, name) for name in ("local_name", "size", "digest"))


def _discard(storage: StoragePair, local_name: str) -> None:
    try:
        storage.local.delete(local_name)
    except Exception:
        logger.exception("Could not remove the bytes of a failed save", extra={"file": escape(local_name)})


class StagedFile(AnyFile):
    """A file open for writing: it becomes a new record when it is closed, and nothing at all after an exception.

    Closing raises ``FileExistsError`` if somebody else has saved the name meanwhile.
    """

    file: Any

    def __init__(self, storage: StoragePair, name: str, mode: str, content: Any = None) -> None:
        self._bytes = tempfile.TemporaryFile("w+b")  # noqa: SIM115 closed in close() and discard()
        if content is not None:
            with content:
                for chunk in content.chunks():
                    self._bytes.write(chunk)
            if "a" not in mode:
                self._bytes.seek(0)
        text = None if "b" in mode else io.TextIOWrapper(self._bytes, encoding="utf-8", write_through=True)
        super().__init__(text or self._bytes, name)
        self.mode, self._storage, self._open = mode, storage, True
        self._exclusive = "x" in mode or not storage.overwrites

    def close(self) -> None:
        """Save what was written, under exactly the name that was opened."""
        if not self._open:
            return
        self._open = False
        try:
            self.file.flush()
            self._bytes.seek(0)
            content = File(self._bytes, self.name)
            save(self._storage, str(self.name), content, exclusive=self._exclusive)
        finally:
            self.file.close()

    def discard(self) -> None:
        """Forget what was written."""
        self._open = False
        with contextlib.suppress(OSError):
            self.file.close()

    @property
    def closed(self) -> bool:
        """Whether the file was closed or given up."""
        return not self._open

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        # Forgotten without close(): nobody said that it was complete.
        if getattr(self, "_open", False):
            self.discard()
