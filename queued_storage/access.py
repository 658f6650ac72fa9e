"""How the ledger is reached and read: its database, its clock, its connection, and what is asked of it.

Reads and writes go to the database that ``db_for_write`` names, never to a replica: a row that a replica does not
show yet must not count as missing. Times come from the database's clock.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone as datetime_timezone
from typing import Any, NamedTuple, TypeVar

from django.db import InterfaceError, OperationalError, connections, router
from django.db.models import DateTimeField, Expression, ExpressionWrapper, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from queued_storage.conf import settings
from queued_storage.exceptions import ErrorKind
from queued_storage.models import State, TransferAttempt, TransferRecord

UTC = datetime_timezone.utc
T = TypeVar("T")
AT_ONCE = timedelta(0)

# Pauses before a statement is tried again after a dead connection, a deadlock or a lock time-out, in seconds.
PAUSES = (0.0, 0.05, 0.25)


class DatabaseNow(Now):
    """The database's clock in UTC, also where its session runs in another time zone."""

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Ask for UTC: the session of MySQL and MariaDB may run in another time zone."""
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **context)


def after(delay: timedelta) -> Expression:
    """Return the moment ``delay`` from now by the database's clock."""
    return ExpressionWrapper(DatabaseNow() + delay, output_field=DateTimeField())


def now() -> datetime:
    """Return the moment by the database's clock, for rows that are written by the hundred."""
    connection = connections[using()]
    expression = DatabaseNow(output_field=DateTimeField())

    def ask() -> Any:
        compiler = TransferRecord.objects.using(using()).query.get_compiler(using())
        statement, params = compiler.compile(expression)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {statement}", params)
            return cursor.fetchone()[0]

    value = persist(ask)
    for convert in (*connection.ops.get_db_converters(expression), *expression.get_db_converters(connection)):
        value = convert(value, expression, connection)
    return value  # type: ignore[no-any-return]


def local_time(value: datetime) -> datetime:
    """Return a time of the ledger as Django gives it to people: with USE_TZ=False naive, in the current time zone."""
    if timezone.is_naive(value) and connections[using()].vendor != "postgresql":
        return timezone.make_naive(value.replace(tzinfo=UTC))
    return value


def using() -> str:
    """Return the alias of the database that holds the ledger."""
    return router.db_for_write(TransferRecord)


def records() -> QuerySet[TransferRecord]:
    """Return all records, read from the database that is written to."""
    return TransferRecord.objects.using(using())


def unfinished() -> QuerySet[TransferRecord]:
    """Return the records that are not transferred, in words that each database knows for those of its partial index.

    SQLite does not see that a state that is ``queued`` is not ``transferred``, and would read the whole table.
    """
    return records().filter(~Q(state=State.TRANSFERRED))


def attempts() -> QuerySet[TransferAttempt]:
    """Return the history of attempts, read from the database that is written to."""
    return TransferAttempt.objects.using(using())


def persist(statement: Callable[[], T]) -> T:
    """Run one idempotent statement, again on a new connection where the old one died meanwhile.

    Inside the caller's transaction it runs once: that transaction has died with the connection.
    """
    connection = connections[using()]
    for pause in PAUSES:
        try:
            return statement()
        except (OperationalError, InterfaceError):
            if connection.in_atomic_block:
                raise
            connection.close()
            time.sleep(pause)
    return statement()


class Place(NamedTuple):
    """What a record says of where its bytes are: a third of its columns, for those who ask in a request."""

    key: uuid.UUID
    state: str
    local_name: str
    remote_name: str
    size: int | None
    digest: str
    node: str


def places(keys: Iterable[uuid.UUID]) -> dict[uuid.UUID, Place]:
    """Return where the bytes of the records are that hold any of ``keys``, by key, with one query."""
    rows = records().filter(key__in=list(keys)).values_list(*Place._fields)
    return persist(lambda: {row[0]: Place._make(row) for row in rows.all()})


def lookup(key: uuid.UUID) -> TransferRecord | None:
    """Return the record that holds ``key``, in whatever state."""
    return persist(lambda: records().filter(key=key).first())


def lookup_many(keys: Iterable[uuid.UUID]) -> dict[uuid.UUID | None, TransferRecord]:
    """Return the records that hold any of ``keys``, by key, with one query."""
    wanted = list(keys)
    return persist(lambda: {record.key: record for record in records().filter(key__in=wanted)})


def get(pk: int) -> TransferRecord | None:
    """Return the record with this id, or ``None``."""
    return persist(lambda: records().filter(pk=pk).first())


def due() -> QuerySet[TransferRecord]:
    """Return the rows that the sweep must look at now, longest due first."""
    return records().filter(due_at__lte=DatabaseNow()).order_by("due_at", "id")


def due_states() -> set[str]:
    """Return the states of all rows that are due, with one query."""
    return persist(lambda: set(due().order_by().values_list("state", flat=True).distinct()))


def stalled() -> QuerySet[TransferRecord]:
    """Return the queued rows that have used up their retries."""
    return unfinished().filter(state=State.QUEUED, retries__gt=settings.QUEUED_STORAGE_RETRIES)


def held(age: timedelta) -> QuerySet[TransferRecord]:
    """Return the rows that are held without an end and were saved longer than ``age`` ago."""
    since = ExpressionWrapper(DatabaseNow() - age, output_field=DateTimeField())
    return unfinished().filter(state=State.DELAYED, due_at__isnull=True, created_at__lte=since).order_by("id")


def strikes(record: TransferRecord, kind: ErrorKind) -> int:
    """Return how many attempts in a row before this one ended with ``kind``, since the last retry by hand."""
    kinds = record.attempts.using(using()).order_by("-pk").values_list("error_kind", flat=True)
    count = 0
    for other in persist(lambda: list(kinds[: max(record.retries - 1, 0)])):
        if other != kind:
            break
        count += 1
    return count
