"""What the errors of obstore mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore import exceptions

from queued_storage.exceptions import ErrorKind, StorageConfigurationError, TransferError
from queued_storage.redaction import redact

STATUS = re.compile(r"status code: (\d{3})")
CODE = re.compile(r"<Code>([\w.]{1,80})</Code>")
# The first kind that knows a code or a status has it; everything else may pass.
KINDS = {
    ErrorKind.MISMATCH: {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "Md5Mismatch"},
    ErrorKind.PASSING: {"RequestTimeTooSkewed", "RequestTimeout", "OperationTimedOut", "InternalError"},
    ErrorKind.THROTTLED: {"SlowDown", "ServerBusy", "429", "503"},
    ErrorKind.REFUSED: {"EntityTooLarge", "RequestBodyTooLarge", "KeyTooLongError", "InvalidObjectState", "413"},
    ErrorKind.DENIED: {"NoSuchBucket", "ContainerNotFound", "ExpiredToken", "AccountIsDisabled", "401", "403"},
}
CLASSES: dict[type[BaseException], ErrorKind] = {
    exceptions.PermissionDeniedError: ErrorKind.DENIED,
    exceptions.UnauthenticatedError: ErrorKind.DENIED,
    exceptions.InvalidPathError: ErrorKind.REFUSED,
    exceptions.NotSupportedError: ErrorKind.SETTINGS,
    exceptions.UnknownConfigurationKeyError: ErrorKind.SETTINGS,
}


class ObjectStoreError(TransferError):
    """The object store refused or did not answer."""


class ForkedError(StorageConfigurationError):
    """This process was forked from one that had used an object store, and every call would hang here for ever.

    Let the parent keep away from the storage (no preloading that touches files, no sweep in a prefork parent), or run
    the workers as threads or with the start method "spawn".
    """

    def __init__(self) -> None:
        super().__init__(" ".join((self.__doc__ or "").split()))


@contextmanager
def translated() -> Iterator[None]:
    """Turn obstore's errors into ``ObjectStoreError``, without secrets; a missing or taken name stays what it is."""
    try:
        yield
    except exceptions.AlreadyExistsError:
        raise
    except exceptions.BaseError as error:
        # What follows the first paragraph is the client's inner life, addresses with signatures included.
        text = redact(str(error).partition("\n\nDebug source")[0])
        raise ObjectStoreError(text, _kind(error)) from None


def kind_of(error: BaseException) -> ErrorKind | None:
    """Return the kind of an error of this storage, ``None`` for any other."""
    if isinstance(error, ForkedError):
        return ErrorKind.SETTINGS
    return error.kind if isinstance(error, TransferError) else None


def _kind(error: BaseException) -> ErrorKind:
    text = str(error)
    words = {match[1] for pattern in (CODE, STATUS) if (match := pattern.search(text))}
    for kind, known in KINDS.items():
        if words & known:
            return kind
    return CLASSES.get(type(error), ErrorKind.PASSING)
