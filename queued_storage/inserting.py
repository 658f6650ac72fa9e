"""One INSERT that answers "taken" instead of breaking the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db import IntegrityError, connections, transaction
from django.db.models import sql

from queued_storage.models import TransferRecord

# Error number of a duplicate key in MySQL and MariaDB (ER_DUP_ENTRY).
DUPLICATE_ENTRY = 1062


def insert(record: TransferRecord, using: str) -> bool:
    """Insert ``record`` and set its primary key; False if its ``key`` is taken.

    Django offers an INSERT that ignores conflicts only together with ignoring other errors (SQLite, MySQL) or losing
    the primary key; a savepoint around a plain one costs two more round trips in every save.
    """
    connection = connections[using]
    statement, params = _statement(record, connection)
    record.pk = (
        _on_duplicate_error(connection, statement, params)
        if connection.vendor == "mysql"
        else (_on_conflict_clause(connection, statement, params))
    )
    record._state.adding = record.pk is None
    record._state.db = using
    return record.pk is not None


def insert_many(records: list[TransferRecord], moment: datetime, using: str) -> list[TransferRecord]:
    """Insert ``records``, made at ``moment``, in one transaction; return those whose ``key`` was not taken.

    Primary keys are not set. Not by Django's ``ignore_conflicts``, which ignores a broken CHECK as well on SQLite and
    MySQL, nor by ``bulk_create()``, which takes several times as long.
    """
    for record in records:
        record.created_at = record.updated_at = moment
    if not records:
        return []
    connection = connections[using]
    try:
        with transaction.atomic(using=using), connection.cursor() as cursor:
            cursor.executemany(_statement(records[0], connection)[0], list(_rows(records, connection)))
            return records
    except IntegrityError:
        # Somebody has saved one of the names meanwhile.
        with transaction.atomic(using=using):
            return [record for record in records if insert(record, using)]


def _rows(records: list[TransferRecord], connection: Any) -> Iterator[list[Any]]:
    fields = _fields()
    shared = [getattr(records[0], field.attname) for field in fields]
    prepared = [field.get_db_prep_save(value, connection) for field, value in zip(fields, shared, strict=True)]
    for record in records:
        values = [getattr(record, field.attname) for field in fields]
        # What all of them share is prepared once.
        yield [
            prepared[at] if value is shared[at] else fields[at].get_db_prep_save(value, connection)
            for at, value in enumerate(values)
        ]


def _fields() -> list[Any]:
    fields = TransferRecord._meta.local_concrete_fields
    return [field for field in fields if not field.primary_key and not field.generated]


def _statement(record: TransferRecord, connection: Any) -> tuple[str, tuple[Any, ...]]:
    query = sql.InsertQuery(TransferRecord)
    query.insert_values(_fields(), [record])
    ((statement, params),) = query.get_compiler(connection=connection).as_sql()
    return statement, params


def _on_conflict_clause(connection: Any, statement: str, params: tuple[Any, ...]) -> int | None:
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} ON CONFLICT ({quote('key')}) DO NOTHING RETURNING {quote('id')}", params)
        row = cursor.fetchone()
    return row[0] if row else None


def _on_duplicate_error(connection: Any, statement: str, params: tuple[Any, ...]) -> int | None:
    # A failed statement leaves the transaction of MySQL and MariaDB usable.
    with connection.cursor() as cursor:
        try:
            cursor.execute(statement, params)
        except IntegrityError as error:
            if error.args and error.args[0] == DUPLICATE_ENTRY:
                return None
            raise
        return int(cursor.lastrowid)
