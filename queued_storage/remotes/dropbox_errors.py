"""What the errors of Dropbox's client mean."""

from __future__ import annotations

from typing import Any

import requests
import urllib3
from dropbox import exceptions

from queued_storage.exceptions import ErrorKind, TransferError

# By the tags that Dropbox's answers carry, at any depth. The first kind that knows one has it.
TAGS = {
    ErrorKind.MISMATCH: {"content_hash_mismatch", "incorrect_offset"},
    ErrorKind.THROTTLED: {"too_many_write_operations", "too_many_requests"},
    ErrorKind.DENIED: {"no_write_permission", "access_error", "email_not_verified", "team_folder", "no_permission"},
    ErrorKind.REFUSED: {
        "file_ancestor",
        "disallowed_name",
        "malformed_path",
        "payload_too_large",
        "too_large",
        "unsupported_file",
    },
    ErrorKind.PASSING: {"insufficient_space", "not_found", "closed", "concurrent_session_data_not_allowed"},
}


def sort_error(error: BaseException) -> ErrorKind | None:
    """Return the kind of an error raised by Dropbox's client, or ``None`` when it is not one of its own."""
    if isinstance(error, TransferError):
        return error.kind
    if isinstance(error, (exceptions.AuthError, exceptions.PathRootError)):
        return ErrorKind.DENIED
    if isinstance(error, exceptions.RateLimitError):
        return ErrorKind.THROTTLED
    if isinstance(error, exceptions.ApiError):
        found = tags_of(error)
        return next((kind for kind, known in TAGS.items() if found & known), None)
    if isinstance(error, exceptions.BadInputError):
        return ErrorKind.DENIED if "oauth" in str(error).lower() else None
    if isinstance(error, exceptions.HttpError):
        return ErrorKind.PASSING if error.status_code >= 500 else None
    # Reading a body meets urllib3's own errors.
    passing = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError)
    return ErrorKind.PASSING if isinstance(error, passing) else None


def tags_of(error: exceptions.ApiError) -> set[str]:
    """Return the tags in an answer: that of the error, of the reason inside of it, and so on."""
    tags: set[str] = set()
    value: Any = error.error
    while value is not None:
        tags.add(str(getattr(value, "_tag", "")))
        value = getattr(value, "_value", None) or getattr(value, "reason", None)
    return tags - {""}


def is_missing(error: exceptions.ApiError) -> bool:
    """Return whether the answer says that nothing lies under a path."""
    return {"path", "not_found"} <= tags_of(error) or {"path_lookup", "not_found"} <= tags_of(error)


def is_taken(error: exceptions.ApiError) -> bool:
    """Return whether the answer says that something lies under a path already."""
    # A file where a folder is wanted takes every name below it.
    return "conflict" in tags_of(error) and "file_ancestor" not in tags_of(error)
