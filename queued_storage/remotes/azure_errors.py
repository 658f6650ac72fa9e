"""What the errors of Azure's client mean."""

from __future__ import annotations

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from queued_storage.exceptions import ErrorKind, TransferError

# The first kind that knows a code has it.
CODES = {
    ErrorKind.MISMATCH: {"Md5Mismatch", "Crc64Mismatch", "InvalidMd5"},
    ErrorKind.THROTTLED: {"ServerBusy", "TooManyRequests"},
    ErrorKind.PASSING: {"OperationTimedOut", "InternalError", "InvalidBlockList", "LeaseIdMissing"},
    ErrorKind.REFUSED: {"BlobArchived", "InvalidBlobType", "InvalidResourceName", "RequestBodyTooLarge"},
    ErrorKind.DENIED: {"AccountIsDisabled", "AuthenticationFailed", "AuthorizationFailure", "ContainerNotFound"},
}


def sort_error(error: BaseException) -> ErrorKind | None:
    """Return the kind of an error raised by Azure's client, or ``None`` when it is not one of its own."""
    if isinstance(error, TransferError):
        return error.kind
    if isinstance(error, HttpResponseError):
        return _sort_answer(error)
    if isinstance(error, (ServiceRequestError, ServiceResponseError)):
        return ErrorKind.PASSING
    return ErrorKind.PASSING if isinstance(error, AzureError) else None


def code_of(error: BaseException) -> str:
    """Return Azure's own name for an error, empty if the answer had none."""
    code = getattr(error, "error_code", None) or ""
    return str(getattr(code, "value", code))


def _sort_answer(error: HttpResponseError) -> ErrorKind | None:
    code = code_of(error)
    for kind, codes in CODES.items():
        if code in codes:
            return kind
    status = int(error.status_code or 0)
    # Azurite has no code of its own for it.
    if status == 400 and "md5" in str(error).lower():
        return ErrorKind.MISMATCH
    if isinstance(error, ClientAuthenticationError) or status in {401, 403}:
        return ErrorKind.DENIED
    if status in {429, 503}:
        return ErrorKind.THROTTLED
    if status == 413:
        return ErrorKind.REFUSED
    return ErrorKind.PASSING if status >= 500 or not status else None
