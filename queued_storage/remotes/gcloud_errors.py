"""What the errors of Google's client mean."""

from __future__ import annotations

import requests
from google.api_core.exceptions import GoogleAPICallError, NotFound
from google.auth import exceptions as auth_errors

from queued_storage.exceptions import ErrorKind, TransferError

STATUS_KINDS = {
    **dict.fromkeys([401, 403, 404], ErrorKind.DENIED),
    **dict.fromkeys([429, 503], ErrorKind.THROTTLED),
    **dict.fromkeys([408, 409, 410, 412], ErrorKind.PASSING),
    **dict.fromkeys([413], ErrorKind.REFUSED),
}


def sort_error(error: BaseException) -> ErrorKind | None:
    """Return the kind of an error raised by Google's client, or ``None`` when it is not one of its own."""
    if isinstance(error, TransferError):
        return error.kind
    # Defined in another package in each version of the client.
    names = {base.__name__ for base in type(error).__mro__}
    if "DataCorruption" in names:
        return ErrorKind.MISMATCH
    if isinstance(error, GoogleAPICallError):
        return _sort_status(int(error.code or 0), str(error))
    if "InvalidResponse" in names:
        return _sort_status(int(getattr(getattr(error, "response", None), "status_code", 0)), str(error))
    if isinstance(error, (auth_errors.TransportError, requests.exceptions.RequestException)):
        return ErrorKind.PASSING
    return ErrorKind.DENIED if isinstance(error, auth_errors.GoogleAuthError) else None


def is_bucket_missing(error: NotFound) -> bool:
    """Return whether the answer says that there is no such bucket, as opposed to no such object."""
    return "bucket does not exist" in str(error).lower() or "bucket not found" in str(error).lower()


def _sort_status(status: int, text: str) -> ErrorKind | None:
    # A digest that does not fit is answered as a bad request, in words.
    if status == 400 and any(word in text for word in ("md5", "MD5", "crc32c", "CRC32C")):
        return ErrorKind.MISMATCH
    return STATUS_KINDS.get(status, ErrorKind.PASSING if status >= 500 or not status else None)
