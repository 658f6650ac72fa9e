"""What a database itself says of its tables: columns, indexes, constraints, each as one line of text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.apps import apps
from django.db import connection, models

from migrations_check.project import LABELS

Schema = dict[str, list[str]]

_POSTGRESQL = {
    "column": """
        SELECT a.attname, format_type(a.atttypid, a.atttypmod),
               CASE WHEN a.attnotnull THEN 'NOT NULL' ELSE 'NULL' END, a.attidentity, a.attgenerated,
               coalesce(pg_get_expr(d.adbin, d.adrelid), ''), coalesce(c.collname, '')
        FROM pg_attribute a
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_collation c ON c.oid = a.attcollation
        WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped""",
    "index": "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass",
    "constraint": """
        SELECT conname, pg_get_constraintdef(oid), convalidated
        FROM pg_constraint WHERE conrelid = %s::regclass AND contype <> 'n'""",
}
_SQLITE = {
    "column": 'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(%s)',
    "index": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = %s AND sql IS NOT NULL",
    "unique": """
        SELECT origin, group_concat(i.name) FROM pragma_index_list(%s) l, pragma_index_info(l.name) i
        WHERE l.origin <> 'c' GROUP BY l.name""",
    "reference": 'SELECT "from", "table", "to", on_delete FROM pragma_foreign_key_list(%s)',
}


def read() -> Schema:
    """Return what the connected database says of every table of the checked apps that is there."""
    with connection.cursor() as cursor:
        present = connection.introspection.table_names(cursor)
        return {table: _READERS[connection.vendor](cursor, table) for table in tables() if table in present}


def tables() -> list[str]:
    """Return the names of the tables that the models ask for."""
    return sorted(model._meta.db_table for model in checked_models())


def checked_models() -> list[type[models.Model]]:
    """Return the models of the checked apps."""
    return [model for label in LABELS for model in apps.get_app_config(label).get_models()]


def _queries(queries: dict[str, str], cursor: Any, table: str) -> list[str]:
    lines = []
    for kind, query in queries.items():
        cursor.execute(query, [table])
        lines += [f"{kind}: {' '.join(str(value) for value in row)}" for row in cursor.fetchall()]
    return sorted(_generic(line) for line in lines)


def _postgresql(cursor: Any, table: str) -> list[str]:
    return _queries(_POSTGRESQL, cursor, table)


def _sqlite(cursor: Any, table: str) -> list[str]:
    # SQLite has no catalog of its CHECK constraints: they stand in the statement that made the table.
    cursor.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = %s", [table])
    (statement,) = cursor.fetchone()
    checks = re.findall(r'CONSTRAINT "\w+" CHECK .*?(?=, CONSTRAINT|, FOREIGN|\)$)', statement)
    generated = re.findall(r'"\w+" \w+(?:\(\d+\))? GENERATED .*? (?:STORED|VIRTUAL)', statement)
    made = [f"constraint: {check}" for check in checks] + [f"column: {column}" for column in generated]
    return sorted([*_queries(_SQLITE, cursor, table), *(_generic(line) for line in made)])


def _mysql(cursor: Any, table: str) -> list[str]:
    cursor.execute(f"SHOW CREATE TABLE {connection.ops.quote_name(table)}")
    lines = cursor.fetchone()[1].splitlines()
    # Without the number that the next row will have.
    return sorted(_generic(re.sub(r" AUTO_INCREMENT=\d+", "", line.strip().rstrip(","))) for line in lines)


def _generic(line: str) -> str:
    # Django ends the names of keys and indexes with a digest, of names that need not be those of the models.
    return re.sub(r"_[0-9a-f]{8}(?=_|\b)", "_########", line)


_READERS: dict[str, Callable[[Any, str], list[str]]] = {
    "postgresql": _postgresql,
    "sqlite": _sqlite,
    "mysql": _mysql,
}


def differences(one: Schema, other: Schema, first: str, second: str) -> list[str]:
    """Return a line for everything that stands in one schema alone; ``first`` and ``second`` name the two."""
    found = []
    for table in sorted({*one, *other}):
        left, right = one.get(table, []), other.get(table, [])
        found += [f"{table}: only {first}: {line}" for line in left if line not in right]
        found += [f"{table}: only {second}: {line}" for line in right if line not in left]
    return found
