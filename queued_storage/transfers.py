"""Run one transfer: claim, look, copy, verify, complete. Knows no Celery.

The same ``run`` serves the Celery task, the command without a broker, the test helper and the sweep.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, connections

from queued_storage import (
    backoff,
    batches,
    copying,
    health,
    ledger,
    locations,
    nodes,
    removal,
    settling,
    signals,
    tracing,
)
from queued_storage.conf import settings
from queued_storage.digests import Body, format_digests, parse_digests
from queued_storage.exceptions import (
    ErrorKind,
    LeaseLostError,
    RemoteDownError,
    SourceMissingError,
    TransferError,
    TransferResultError,
)
from queued_storage.models import Outcome, State, TransferRecord
from queued_storage.names import escape, generation_name
from queued_storage.pairs import StoragePair, pair_for
from queued_storage.redaction import describe
from queued_storage.remotes.registry import refuses_taken, sort_error
from queued_storage.settling import log_facts

logger = logging.getLogger("queued_storage")

_current: contextvars.ContextVar[Attempt | None] = contextvars.ContextVar("queued_storage_attempt", default=None)

# How often another remote name is tried when somebody takes it between the look and the upload.
PLACES = 3


def current() -> Attempt | None:
    """Return the attempt that is running in this context, if any."""
    return _current.get()


class Attempt:
    """One try at one claimed record, for as long as its lease lasts."""

    def __init__(self, record: TransferRecord, claimed: float) -> None:
        assert record.lease is not None
        self.record, self.lease = record, record.lease
        # Asked together with the claim: whether the remote is down for this record, and whether it failed lately.
        self.waits, self.suspect = bool(getattr(record, "down", False)), bool(getattr(record, "suspect", False))
        self.storage: StoragePair | None = None
        self.error: Exception | None = None
        self.verified = False
        self.bytes = 0
        self.place = record.remote_name
        # Entered to speak to the database; in threads, by one of them at a time.
        self.turn: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        # What becomes of it after an error is told here; of threads, by the one that has started them.
        self.tell: Callable[[settling.Settled], None] = settling.Settled.tell
        # Kind and text of the error that ended it, for those who watch.
        self.ended = ("", "")
        self._lock = threading.Lock()
        self._thread = threading.get_ident()
        self._trust(claimed)

    def _trust(self, asked: float) -> None:
        # Counted from before the question was sent, by a clock that nobody sets.
        length = settings.QUEUED_STORAGE_LEASE.total_seconds()
        self.renew_at, self.ends_at = asked + length / 3, asked + length * 0.9

    @property
    def pair(self) -> StoragePair:
        """The storage, once it is known."""
        assert self.storage is not None
        return self.storage

    def begin(self) -> None:
        """Go to work in this thread; raises as ``progress()``, for it may be some time since the claim."""
        self._thread = threading.get_ident()
        self.progress(0)

    def progress(self, size: int) -> None:
        """Take note of bytes that moved: renews the lease; raises ``LeaseLostError`` once it is lost or has run out."""
        self.bytes += size
        now = time.monotonic()
        if now >= self.ends_at:
            raise LeaseLostError
        if now >= self.renew_at and self._lock.acquire(blocking=False):
            try:
                self._renew(now)
            finally:
                self._lock.release()
            if time.monotonic() >= self.ends_at:
                # The database gave no answer, or others had their turn, for longer than the lease is trusted.
                raise LeaseLostError

    def _renew(self, now: float) -> None:
        try:
            with self.turn():
                renewed = ledger.renew(self.record.pk, self.lease)
        except DatabaseError:
            # The lease is trusted until it ends by our own clock; the database may be back before that.
            return
        finally:
            # An upload may read from threads of its own, which nobody closes connections for.
            if threading.get_ident() != self._thread:
                connections[ledger.using()].close()
        if not renewed:
            raise LeaseLostError
        self._trust(now)

    def copy(self) -> None:
        """Bring the bytes to the remote and verify them there, or find that they are there already.

        Raises ``TransferError`` or whatever the storages raise; the record is not touched but for its remote name,
        which is fixed before any byte goes there.
        """
        new = self._is_new()
        copy, refused = self._plan(), False
        for turn in range(PLACES):
            # Nobody can have sent a new file before, and the remote itself refuses a name that others have taken.
            present = None if new and not turn and refuses_taken(copy.remote) else copy.present()
            if present:
                self.verified = True
                return
            if present is False or refused:
                # Something that is not this file lies there: it is left alone.
                copy = replace(copy, remote_name=self._another_place())
            try:
                stored = copy.upload()
            except FileExistsError:
                # Somebody was faster, perhaps an earlier attempt of ours whose answer was lost: look again. An object
                # of ours shows sooner or later; what never does, such as a folder, is not ours.
                refused = backoff.stalled(self.record.retries)
                continue
            self.record.remote_name = stored.remote_name
            stored.check()
            self.verified = True
            return
        raise TransferError("every remote name that was tried was taken meanwhile")

    def _is_new(self) -> bool:
        # Of a large file a look costs little, and a refusal after the last byte much; an adopted one may be there.
        record = self.record
        small = record.size is not None and record.size <= batches.SMALL and bool(record.digest)
        return small and record.retries <= 1 and record.transferred_at is None

    def check(self) -> None:
        """Verify what somebody else's code has copied; raises as ``copy()``."""
        if not self.verified:
            self._plan().check()
            self.verified = True

    def _plan(self) -> copying.Copy:
        record, storage = self.record, self.pair
        if not record.digest:
            # Adopted: what lies there now is what was saved.
            with contextlib.suppress(FileNotFoundError):
                found = copying.measure(storage.local, record.local_name, progress=lambda size: self.progress(0))
                record.size, record.digest = found.size, format_digests(found.digests)
                if not ledger.measured(record):
                    raise LeaseLostError
        if record.size is None or not record.digest:
            raise SourceMissingError
        body = Body(record.size, parse_digests(record.digest), record.content_type)
        return copying.Copy(
            storage.local,
            record.local_name,
            storage.remote,
            record.remote_name,
            body,
            storage.verification,
            self.progress,
        )

    def _another_place(self) -> str:
        name = generation_name(self.record.name, self.record.generation)
        with self.turn():
            placed = ledger.place(self.record.pk, self.lease, name)
        if not placed:
            raise LeaseLostError
        logger.warning("The remote name is taken by another file", extra=log_facts(self.record, remote=escape(name)))
        self.record.remote_name = self.place = name
        return name


def run(pk: int, retries: int | None = None, task: Any = None) -> Outcome | None:
    """Make one attempt at a queued record and return how it ended; ``None`` if there was nothing to claim.

    ``retries`` is what the message said, ``task`` the Celery task that runs; the storage's own by default. Errors of
    the transfer end in the ledger and in the log, not here.
    """
    started = time.monotonic()
    claimed = ledger.claim(pk, uuid.uuid4(), nodes.worker_name(), retries)
    record = ledger.persist(health.annotate(claimed).first)
    if record is None:
        return None
    attempt = Attempt(record, started)
    return _traced(attempt, lambda: _attempt(attempt, task) or complete(attempt))


def work(attempt: Attempt, task: Any = None) -> Outcome | None:
    """Do the work of an attempt that was claimed with others; ``None``: the bytes are verified, to be completed."""
    outcome: Outcome = _traced(attempt, lambda: _attempt(attempt, task) or Outcome.TRANSFERRED)
    return None if attempt.verified and outcome == Outcome.TRANSFERRED else outcome


def _traced(attempt: Attempt, call: Callable[[], Outcome]) -> Outcome:
    with tracing.span("queued_storage.transfer", **log_facts(attempt.record)) as note:
        outcome = call()
        note(outcome=str(outcome.value), bytes=attempt.bytes, kind=attempt.ended[0], error=attempt.ended[1])
    return outcome


def _attempt(attempt: Attempt, task: Any) -> Outcome | None:
    try:
        attempt.begin()
        _work(attempt, task)
    except LeaseLostError:
        return lost(attempt)
    except Exception as error:
        return _give_back(attempt, error)
    except BaseException:
        # The process is told to stop: another one may take the file at once.
        with attempt.turn():
            _stop(attempt)
        raise
    return None


def _work(attempt: Attempt, task: Any) -> None:
    record = attempt.record
    attempt.storage = storage = pair_for(record.storage)
    if record.transferred_at is not None:
        # It goes again; the cache may have been away when it was queued, and still know its former place.
        with attempt.turn():
            locations.unsettle(storage, record)
    if attempt.waits:
        raise RemoteDownError
    if record.node and record.node != settings.QUEUED_STORAGE_NODE:
        raise TransferError(f"the file lies on the disk of {record.node}", ErrorKind.ELSEWHERE)
    task = task if task is not None else storage.task
    if not hasattr(task, "transfer"):
        _delegate(attempt, task)
        return
    with _running(attempt):
        local = copying.renamed(storage.local, record.name, record.local_name)
        remote = copying.renamed(storage.remote, record.name, record.remote_name)
        result = task.transfer(record.name, local, remote)
    if isinstance(attempt.error, LeaseLostError):
        raise attempt.error
    if result is True:
        attempt.check()
    elif result is False:
        raise attempt.error or TransferError(f"{type(task).__name__}.transfer() returned False")
    else:
        raise TransferResultError(type(task).__name__, result)


@contextlib.contextmanager
def _running(attempt: Attempt) -> Iterator[None]:
    token = _current.set(attempt)
    try:
        yield
    finally:
        _current.reset(token)


def _delegate(attempt: Attempt, task: Any) -> None:
    # A task of somebody else's that only has ``delay``: look whether it has done its work, else ask it again.
    if not attempt._plan().present():
        attempt.pair.send_to_foreign_task(attempt.record)
        raise TransferError("handed to the task of the storage; looked at again later", ErrorKind.THROTTLED)
    attempt.verified = True


def timer_of(storage: StoragePair) -> timedelta | None:
    """Return when the local copy is due to go after a completion: for the sweep, should this process die before."""
    evict_after = storage.evict_after
    return None if evict_after is None else max(evict_after, settings.QUEUED_STORAGE_RESEND_DELAY)


def complete(attempt: Attempt) -> Outcome:
    """Make the record of a verified attempt ``transferred``, and tell everybody."""
    record = attempt.record
    if not ledger.complete(record, timer_of(attempt.pair)):
        return lost(attempt)
    ledger.log_attempt(record, Outcome.TRANSFERRED, size=attempt.bytes)
    return completed(attempt)


def completed(attempt: Attempt) -> Outcome:
    """Tell everybody of a completion that is committed, and remove the local copy where it is not to stay."""
    record, storage = attempt.record, attempt.pair
    evict_after = storage.evict_after
    record.state, record.lease = State.TRANSFERRED, None
    if attempt.suspect:
        health.succeeded(record.storage)
    logger.info("Transferred", extra=log_facts(record, bytes=attempt.bytes))
    if record.transferred_at is not None:
        locations.unsettle(storage, record)
    locations.announce(storage, record)
    if evict_after is not None and not evict_after:
        # Where nothing was sent, nobody has read what lies locally.
        removal.evict(record, storage, unread=not attempt.bytes)
    signals.tell(
        signals.file_transferred,
        type(storage.task),
        name=record.name,
        local=storage.local,
        remote=storage.remote,
        record=record,
    )
    return Outcome.TRANSFERRED


def lost(attempt: Attempt) -> Outcome:
    """Leave a record alone that somebody else has taken meanwhile."""
    logger.warning("The lease was lost; nothing was touched", extra=log_facts(attempt.record))
    return Outcome.LOST


def _stop(attempt: Attempt) -> None:
    with contextlib.suppress(DatabaseError):
        ledger.retry(attempt.record, ErrorKind.PASSING, "the worker was told to stop", ledger.AT_ONCE, counted=False)
        ledger.log_attempt(attempt.record, Outcome.STOPPED, size=attempt.bytes)


def _give_back(attempt: Attempt, error: Exception) -> Outcome:
    record, storage = attempt.record, attempt.storage
    options = (storage.local_options, storage.remote_options) if storage else ()
    text = describe(error, *options)
    if isinstance(error, RemoteDownError):
        with attempt.turn():
            return _wait(record)
    kind = sort_error(error, _remote_of(storage))
    attempt.ended = str(kind.value), text
    with attempt.turn():
        settled = settling.write(record, kind, text, size=attempt.bytes)
        attempt.tell(settled)
        # An error of our own making says nothing about the remote.
        if kind in health.SUSPICIOUS and not isinstance(error, TransferError):
            health.failed(record, kind, text)
    if isinstance(error, TransferResultError):
        raise error
    return settled.outcome


def _wait(record: TransferRecord) -> Outcome:
    # As it was before the claim: neither counted nor logged as an attempt, and due with the others.
    kind = ErrorKind(record.error_kind) if record.error_kind else ErrorKind.PASSING
    error = record.error or str(RemoteDownError())
    given_back = ledger.retry(record, kind, error, ledger.AT_ONCE, counted=False)
    return Outcome.RETRY if given_back else Outcome.LOST


def _remote_of(storage: StoragePair | None) -> Any:
    with contextlib.suppress(Exception):
        return storage.remote if storage is not None else None
    return None
