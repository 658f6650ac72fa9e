"""What the errors of boto3 mean."""

from __future__ import annotations

from botocore.exceptions import BotoCoreError, ClientError

from queued_storage.exceptions import ErrorKind, TransferError

# The first kind that knows a code has it.
CODES = {
    ErrorKind.MISMATCH: {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"},
    ErrorKind.THROTTLED: {
        *("429", "503", "RequestLimitExceeded", "ServiceUnavailable", "SlowDown"),
        *("Throttling", "ThrottlingException", "TooManyRequests"),
    },
    ErrorKind.PASSING: {
        *("408", "ConditionalRequestConflict", "IncompleteBody", "InternalError", "NoSuchUpload"),
        *("OperationAborted", "RequestTimeout", "RequestTimeTooSkewed"),
    },
    ErrorKind.REFUSED: {
        *("EntityTooLarge", "EntityTooSmall", "InvalidObjectState", "InvalidTag"),
        *("KeyTooLongError", "MetadataTooLarge"),
    },
    ErrorKind.DENIED: {
        *("AccessDenied", "AccountProblem", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId"),
        *("InvalidToken", "NoSuchBucket", "NotSignedUp", "PermanentRedirect", "SignatureDoesNotMatch"),
        *("TokenRefreshRequired", "UnauthorizedAccess"),
    },
}
# Errors of the client itself, by the beginning of their class's name or of a parent's.
CLASSES = {
    ErrorKind.DENIED: ("NoCredentials", "PartialCredentials", "CredentialRetrieval", "TokenRetrieval", "SSOError"),
    ErrorKind.MISMATCH: ("ChecksumError", "FlexibleChecksumError"),
    ErrorKind.SETTINGS: ("ParamValidation", "NoRegion", "ProfileNotFound", "InvalidEndpoint", "ConfigNotFound"),
}


def sort_error(error: BaseException) -> ErrorKind | None:
    """Return the kind of an error raised by boto3, or ``None`` when it is not one of boto3's."""
    if isinstance(error, TransferError):
        return error.kind
    if isinstance(error, ClientError):
        return _sort_answer(error)
    names = [base.__name__ for base in type(error).__mro__]
    for kind, prefixes in CLASSES.items():
        if any(name.startswith(prefixes) for name in names):
            return kind
    return ErrorKind.PASSING if isinstance(error, BotoCoreError) else None


def is_missing(error: ClientError) -> bool:
    """Return whether the answer says that there is no such object; a missing bucket is something else."""
    return _code(error) in {"404", "NoSuchKey"}


def is_not_implemented(error: ClientError) -> bool:
    """Return whether the server does not know what it was asked for."""
    return _code(error) in {"NotImplemented", "501"} or status_of(error) == 501


def status_of(error: ClientError) -> int:
    """Return the HTTP status of the answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def _code(error: ClientError) -> str:
    # HEAD answers have no body, so their code is the bare status.
    return str(error.response.get("Error", {}).get("Code", ""))


def _sort_answer(error: ClientError) -> ErrorKind | None:
    code = _code(error)
    for kind, codes in CODES.items():
        if code in codes:
            return kind
    status = status_of(error)
    if code.startswith("KMS") or status in {401, 403}:
        return ErrorKind.DENIED
    if status in {429, 503}:
        return ErrorKind.THROTTLED
    return ErrorKind.PASSING if status >= 500 else None
