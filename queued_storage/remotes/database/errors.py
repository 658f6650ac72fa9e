"""What the errors of the databases mean."""

from __future__ import annotations

from django.db import DataError, Error as DatabaseError, InterfaceError, OperationalError, ProgrammingError
from django.utils.connection import ConnectionDoesNotExist

from queued_storage.exceptions import ErrorKind, TransferError

# PostgreSQL: classes 28 (login) and 42501 (rights); MySQL and MariaDB: login, database, table, column.
DENIED_STATES = ("28", "42501")
DENIED_NUMBERS = {1044, 1045, 1142, 1143, 1227, 1698}
DENIED_WORDS = ("password authentication failed", "no password supplied", "no pg_hba.conf entry", "permission denied")


def kind_of(error: BaseException) -> ErrorKind | None:
    """Return the kind of a database error, ``None`` for any other."""
    if isinstance(error, TransferError):
        return error.kind
    if isinstance(error, ConnectionDoesNotExist):
        return ErrorKind.SETTINGS
    if not isinstance(error, DatabaseError):
        return None
    if _is_denied(error):
        return ErrorKind.DENIED
    if isinstance(error, DataError):
        return ErrorKind.REFUSED
    # Mostly a table that is not there: the app is not installed or not migrated.
    if isinstance(error, ProgrammingError) or "no such table" in str(error):
        return ErrorKind.SETTINGS
    return ErrorKind.PASSING


def is_of_the_connection(error: BaseException) -> bool:
    """Return whether a statement may have been carried out although it failed."""
    return isinstance(error, (OperationalError, InterfaceError))


def _is_denied(error: BaseException) -> bool:
    state = str(getattr(error.__cause__, "sqlstate", None) or "")
    number = error.args[0] if error.args else None
    return state.startswith(DENIED_STATES) or number in DENIED_NUMBERS or any(w in str(error) for w in DENIED_WORDS)
