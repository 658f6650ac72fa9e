"""What can go wrong, in two vocabularies: exceptions for callers, kinds for the ledger."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.utils.translation import gettext_lazy as _


class ErrorKind(models.TextChoices):
    """Why an attempt ended without the file on the remote; each kind has its own way on.

    ``missing``: the local bytes are gone; ``failed`` at once.
    ``throttled``: the remote asked for patience; waits, is not counted as a retry.
    ``passing``: network, time-out, server error; retried for ever with growing delays.
    ``denied``: credentials, permissions or bucket; a matter of the whole storage, retried like ``passing``.
    ``refused``: the remote will never take this file; ``failed`` at once.
    ``mismatch``: other bytes than were saved, on either side; ``failed`` after three in a row.
    ``lost``: the worker died or stood still with the file in hand; ``failed`` after three in a row.
    ``settings``: the record's storage cannot be built from this process's settings; retried like ``passing``.
    ``elsewhere``: the bytes lie on the disk of another host; sent on, not counted as a retry.
    """

    MISSING = "missing", _("local file missing")
    THROTTLED = "throttled", _("throttled by the remote")
    PASSING = "passing", _("temporary error")
    DENIED = "denied", _("access denied by the remote")
    REFUSED = "refused", _("refused by the remote")
    MISMATCH = "mismatch", _("bytes differ")
    LOST = "lost", _("worker lost")
    SETTINGS = "settings", _("storage not configured")
    ELSEWHERE = "elsewhere", _("on another host")


class QueuedStorageError(Exception):
    """A queued_storage operation failed; see the subclass for what to do."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").split("\n")[0])


class StorageConfigurationError(ImproperlyConfigured):
    """A storage is configured wrongly; the message says what to write instead."""


class TransferError(QueuedStorageError):
    """An attempt to transfer a file failed; ``kind`` says what happens next."""

    kind: ErrorKind = ErrorKind.PASSING

    def __init__(self, message: str | None = None, kind: ErrorKind | None = None) -> None:
        super().__init__(message)
        if kind is not None:
            self.kind = kind


class SourceMissingError(TransferError):
    """The local copy is gone: restore the file under its local name and retry, or delete the record."""

    kind = ErrorKind.MISSING


class MismatchError(TransferError):
    """The bytes differ from those that were saved: compare both copies, then retry or delete the record."""

    kind = ErrorKind.MISMATCH


class LeaseLostError(QueuedStorageError):
    """The lease of this attempt has ended or passed to somebody else; stop and touch nothing."""


class SaveUnknownError(QueuedStorageError):
    """The database went away while the save was being committed: look for the file before saving it again."""


class TemporarilyUnavailableError(QueuedStorageError, OSError):
    """The file exists but cannot be read from here at this moment; try again."""


class BacklogFullError(QueuedStorageError, OSError):
    """A storage owes its remote as much as it may, and the save was refused: nothing was written."""

    @classmethod
    def of(cls, storage: str, files: int, size: int, more: str = "and the save is refused") -> BacklogFullError:
        """Return the error of a storage that owes so much."""
        return cls(
            f"The storage {storage} owes its remote {files} files, {size} bytes, as much as it may, {more}: save again "
            "later, start more workers, or raise max_owed_files or max_owed_bytes."
        )


class RemoteDownError(TransferError):
    """The storage waits: its remote is down and probed with another file, or an operator has paused it."""


class TransferResultError(TransferError, ValueError):
    """A task's ``transfer()`` must return True or False."""

    def __init__(self, task: str, result: object) -> None:
        super().__init__(f"{task}.transfer() must return True or False, not {type(result).__name__}")
