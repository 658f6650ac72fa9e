"""What the errors of pymongo mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from traceback import clear_frames
from typing import ParamSpec, TypeVar

from gridfs.errors import CorruptGridFile
from pymongo.errors import (
    ConfigurationError,
    DocumentTooLarge,
    ExecutionTimeout,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from queued_storage.exceptions import ErrorKind, TransferError

P = ParamSpec("P")
T = TypeVar("T")

CODES = {
    # UserNotFound, Unauthorized, AuthenticationFailed, AtlasError.
    **dict.fromkeys([11, 13, 18, 8000], ErrorKind.DENIED),
    # BSONObjectTooLarge, KeyTooLong.
    **dict.fromkeys([10334, 17280], ErrorKind.REFUSED),
    # IngressRequestRateLimitExceeded, and Cosmos' RequestRateTooLarge.
    **dict.fromkeys([462, 16500], ErrorKind.THROTTLED),
}


def forgetful(call: Callable[P, T]) -> Callable[P, T]:
    """Let an error of pymongo out of ``call`` without the variables of its frames: one of them holds the password."""

    @wraps(call)
    def forgetting(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except PyMongoError as error:
            clear_frames(error.__traceback__)
            raise

    return forgetting


def kind_of(error: BaseException) -> ErrorKind | None:
    """Return the kind of an error of pymongo, ``None`` for any other."""
    if isinstance(error, TransferError):
        return error.kind
    if isinstance(error, CorruptGridFile):
        return ErrorKind.MISMATCH
    if isinstance(error, DocumentTooLarge):
        return ErrorKind.REFUSED
    if isinstance(error, (ConfigurationError, InvalidURI)):
        return ErrorKind.SETTINGS
    if isinstance(error, OperationFailure) and not isinstance(error, ExecutionTimeout):
        if "quota" in str(error):
            return ErrorKind.PASSING
        return CODES.get(error.code or 0, ErrorKind.PASSING)
    if isinstance(error, ServerSelectionTimeoutError) and "AuthenticationFailed" in str(error):
        # After a refused login the driver takes the server for one that is away.
        return ErrorKind.DENIED
    return ErrorKind.PASSING if isinstance(error, PyMongoError) else None
