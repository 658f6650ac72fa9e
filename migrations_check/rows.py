"""Rows in every state, and with what is unusual in each column; written through the models of any migration."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from django.db import connection, models

NOON = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=timezone.utc)
LATER = NOON + timedelta(hours=6)
LONG = "d" * 200 + "/" + "ü" * 200 + ".bin"
ODD = "a folder/it's \U0001f600 100% \\ <b>&amp;.txt"
DIGEST = f"sha256:{'0f' * 32} crc32:0000ffff"

# Beside a queued record, what makes the difference.
STATES: dict[str, dict[str, Any]] = {
    "delayed": {"state": "delayed", "due_at": None},
    "delayed until": {"state": "delayed", "due_at": LATER},
    "queued": {},
    "queued, adopted": {"size": None, "digest": "", "content_type": ""},
    "queued, stalled": {"retries": 12, "error_kind": "passing", "error": "TimeoutError: no answer\nafter 30 s"},
    "queued, on another host": {"node": "web-2", "error_kind": "elsewhere", "error": ODD},
    "transferring": {"state": "transferring", "lease": uuid.UUID(int=7), "worker": "web-1:4711", "retries": 1},
    "transferred": {"state": "transferred", "due_at": None, "transferred_at": LATER},
    "transferred, to be evicted": {"state": "transferred", "transferred_at": LATER, "size": 2**40},
    "transferred, evicted": {"state": "transferred", "due_at": None, "transferred_at": NOON, "local_copy": False},
    "transferred, looked at again": {"state": "transferred", "transferred_at": NOON, "checked_at": LATER},
    "failed": {"state": "failed", "due_at": None, "retries": 3, "error_kind": "refused", "error": "x" * 2048},
    "deleted": {"state": "deleted", "deleted_at": LATER},
    "deleted, removed": {"state": "deleted", "deleted_at": NOON, "local_copy": False},
    "superseded": {"state": "deleted", "deleted_at": NOON, "key": None, "transferred_at": NOON, "size": 0},
    "second generation": {"generation": 2, "remote_name": "second.g2.txt", "name": ODD},
    "long names": {"name": LONG, "local_name": LONG, "remote_name": LONG},
}


def _records(prefix: str) -> Iterator[dict[str, Any]]:
    for number, (title, facts) in enumerate(STATES.items()):
        name = f"{prefix}/{title}.txt"
        yield {
            "storage": "default",
            "name": name,
            "key": uuid.uuid5(uuid.NAMESPACE_URL, f"{prefix}{number}"),
            "generation": 1,
            "state": "queued",
            "local_name": name,
            "remote_name": name,
            "size": 19,
            "digest": DIGEST,
            "content_type": "text/plain",
            "retries": 0,
            "due_at": NOON,
            "local_copy": True,
            "created_at": NOON,
            "updated_at": NOON,
        } | facts


def _attempts(prefix: str) -> Iterator[dict[str, Any]]:
    for outcome in ("transferred", "retry", "failed", "stopped", "lost"):
        error = {} if outcome == "transferred" else {"error_kind": "passing", "error": ODD}
        facts = {"worker": f"{prefix}:1", "outcome": outcome, "bytes": 2**33}
        yield {"started_at": NOON, "finished_at": LATER, **facts, **error}


def _health(prefix: str) -> Iterator[dict[str, Any]]:
    down = {"down_since": NOON, "probe_at": LATER, "probe": 2**40, "error_kind": "passing", "error": ODD}
    for storage, facts in (("up", {}), ("down", down)):
        yield {"storage": f"{prefix} {storage}", "failures": 3, "last_record": 1, "updated_at": NOON, **facts}


def _heartbeats(prefix: str) -> Iterator[dict[str, Any]]:
    yield {"duty": f"{prefix} sweep", "seen_at": NOON}


def _samples(prefix: str) -> Iterator[dict[str, Any]]:
    for node in ("", "host"):
        yield {"storage": f"{prefix} media", "node": node, "taken_at": NOON, "free": 2**40}


def _files(prefix: str) -> Iterator[dict[str, Any]]:
    sizes = {"size": 3, "chunk_size": 262144, "sha256": "0f" * 32, "content_type": "text/plain", "created_at": NOON}
    yield {"key": f"{prefix:f>32}", "name": ODD, "upload": f"{prefix:u>32}", **sizes}


def _chunks(prefix: str) -> Iterator[dict[str, Any]]:
    for number, data in enumerate((b"", bytes(range(256)))):
        yield {"upload": f"{prefix:u>32}", "number": number, "data": data, "created_at": NOON}


# By label and name of the model.
ROWS = {
    "queued_storage.transferrecord": _records,
    "queued_storage.storagehealth": _health,
    "queued_storage.transferattempt": _attempts,
    "queued_storage.heartbeat": _heartbeats,
    "queued_storage.disksample": _samples,
    "queued_storage_database.storedfile": _files,
    "queued_storage_database.storedchunk": _chunks,
}


class UnknownTableError(Exception):
    """A release has a table that ``ROWS`` says nothing of: add its rows."""


def fill(historical: list[type[models.Model]], prefix: str) -> int:
    """Write every kind of row that ``historical`` models have, and return how many; columns of later are left out."""
    known = {model._meta.label_lower: model for model in historical}
    if unknown := sorted({*known} - {*ROWS}):
        raise UnknownTableError(f"{', '.join(unknown)}: add the rows to migrations_check/rows.py")
    count = 0
    for label, rows in ROWS.items():
        model = known.get(label)
        for facts in rows(prefix) if model is not None else ():
            _write(model, facts)
            count += 1
    return count


def _write(model: Any, facts: dict[str, Any]) -> None:
    names = {field.name for field in model._meta.concrete_fields}
    values = {name: value for name, value in facts.items() if name in names}
    if "record" in names:
        values["record"] = model._meta.get_field("record").remote_field.model.objects.order_by("pk").last()
    model.objects.create(**values)


Snapshot = dict[str, dict[Any, dict[str, Any]]]


def snapshot() -> Snapshot:
    """Return every row of every table there is, column by column as the database gives them, by primary key."""
    with connection.cursor() as cursor:
        names = [name for name in connection.introspection.table_names(cursor) if name != "django_migrations"]
        return {name: _rows(cursor, name) for name in names}


def _rows(cursor: Any, table: str) -> dict[Any, dict[str, Any]]:
    cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
    columns = [column[0] for column in cursor.description]
    rows = [dict(zip(columns, map(_plain, row), strict=True)) for row in cursor.fetchall()]
    return {row["id"]: row for row in rows}


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value
