"""What each statement of a migration locks, as PostgreSQL itself tells it while the statement's transaction is open."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from migrations_check import schema
from migrations_check.project import LABELS

# From weak to strong; under the last four nobody can write to the table.
MODES = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
]
BLOCKING = set(MODES[4:])

_LOCKS = """
    SELECT c.relname, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
    WHERE l.pid = pg_backend_pid() AND l.granted AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"""
# What a table was stored in, and how often this transaction has read all of it.
_TABLES = """
    SELECT c.relname, c.relfilenode, pg_stat_get_xact_numscans(c.oid) FROM pg_class c
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"""


@dataclass(frozen=True)
class Held:
    """The strongest lock that one statement added on one table; ``old``: it was there before the migration began."""

    migration: str
    statement: str
    table: str
    mode: str
    old: bool
    rewrites: bool
    scans: bool

    @property
    def harmful(self) -> bool:
        """Whether everybody who writes waits for as long as it takes to go through the whole table."""
        return self.old and self.mode in BLOCKING and (self.rewrites or self.scans)

    def __str__(self) -> str:
        notes = [note for note, true in (("rewrites it", self.rewrites), ("reads all of it", self.scans)) if true]
        table = self.table if self.old else f"{self.table} (new)"
        return f"{self.mode} on {table}{''.join(f', {note}' for note in notes)}: {self.statement}"


class Watch:
    """An execution wrapper that asks after each statement which locks its transaction has come to hold."""

    def __init__(self) -> None:
        self.held: list[Held] = []
        self._asking = False
        self.begin("")

    def begin(self, migration: str) -> None:
        """Take note of the tables that are there before ``migration``."""
        self.migration = migration
        self._locks: set[tuple[str, str]] = set()
        self._tables = self._old = self._ask_tables()

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        """Run a statement and look."""
        result = execute(sql, params, many, context)
        if not self._asking and "django_migrations" not in sql:
            self._look(sql)
        return result

    def _look(self, sql: str) -> None:
        tables, locks = self._ask_tables(), set(self._ask(_LOCKS))
        for table in sorted({table for table, _ in locks} - {"django_migrations"}):
            old, (node, scans) = table in self._old, tables.get(table, (0, 0))
            node_before, scans_before = self._tables.get(table, (node, 0))
            rewrites, read = old and node != node_before, old and scans > scans_before
            # A transaction keeps its locks: one that is repeated here shows only by what it does to the table.
            added = {mode for name, mode in (locks if rewrites or read else locks - self._locks) if name == table}
            if added:
                mode = max(added, key=MODES.index)
                self.held.append(Held(self.migration, shortened(sql), table, mode, old, rewrites, read))
        self._tables, self._locks = tables, self._locks | locks

    def _ask_tables(self) -> dict[str, tuple[int, int]]:
        return {name: (node, scans) for name, node, scans in self._ask(_TABLES)}

    def _ask(self, query: str) -> list[Any]:
        self._asking = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return list(cursor.fetchall())
        finally:
            self._asking = False


def shortened(sql: str) -> str:
    """Return the beginning of a statement, on one line."""
    text = re.sub(r"\s+", " ", sql).strip()
    return text if len(text) <= 100 else f"{text[:97]}..."


def locks() -> list[Held]:
    """Migrate from zero, migration by migration, and return every lock that is taken."""
    schema.migrate_to_zero()
    watch = Watch()
    targets = [node for node in MigrationExecutor(connection).loader.graph.leaf_nodes() if node[0] in LABELS]
    with connection.execute_wrapper(watch):
        while plan := MigrationExecutor(connection).migration_plan(targets):
            migration = plan[0][0]
            executor = MigrationExecutor(connection)
            watch.begin(f"{migration.app_label} {migration.name}")
            executor.migrate([(migration.app_label, migration.name)])
    return watch.held
