"""From each released schema to the newest one with rows in every state, and back: nothing may change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import DatabaseError, connection, models, transaction
from django.db.migrations.executor import MigrationExecutor

from migrations_check import rows, schema
from migrations_check.project import LABELS
from migrations_check.releases import Release


def upgrade(release: Release) -> tuple[list[str], int]:
    """Fill the schema of ``release``, migrate on and back, and return what changed and the number of rows.

    Then the models of the release read, write and delete on the newest schema, as its processes do while a new
    release is rolled out. Leaves the newest schema, empty.
    """
    schema.migrate_to_zero()
    for label, name in release.migrations.items():
        schema.migrate(label, name)
    old = _models(release)
    count = rows.fill(old, "before")
    before = rows.snapshot()
    schema.migrate()
    problems = _changes(before, rows.snapshot(), release.changed, "by migrating to the newest")
    problems += _rolling(old, release.version)
    for label in reversed(LABELS):
        schema.migrate(label, release.migrations.get(label, "zero"))
    problems += _changes(before, rows.snapshot(), release.changed, "by migrating to the newest and back")
    schema.migrate_to_zero()
    schema.migrate()
    return problems, count


def _models(release: Release) -> list[type[models.Model]]:
    loader = MigrationExecutor(connection).loader
    state = loader.project_state([*release.migrations.items()])
    return [model for model in state.apps.get_models() if model._meta.app_label in LABELS]


def _changes(
    before: rows.Snapshot, after: rows.Snapshot, changed: Mapping[str, frozenset[str]], when: str
) -> list[str]:
    problems = []
    for table, old_rows in before.items():
        new_rows = after.get(table, {})
        if lost := sorted({*old_rows} - {*new_rows}):
            problems.append(f"{table}: rows lost {when}: {', '.join(map(str, lost))}")
        if added := sorted({*new_rows} - {*old_rows}):
            problems.append(f"{table}: rows added {when}: {', '.join(map(str, added))}")
        for pk in sorted({*old_rows} & {*new_rows}):
            problems += _row_changes(table, pk, old_rows[pk], new_rows[pk], changed.get(table, frozenset()), when)
    return problems


def _row_changes(
    table: str, pk: Any, old: dict[str, Any], new: dict[str, Any], changed: frozenset[str], when: str
) -> list[str]:
    return [
        f"{table}: row {pk}: {column} was {value!r}, is {new.get(column, 'gone')!r} {when}"
        for column, value in old.items()
        if column not in changed and (column not in new or new[column] != value)
    ]


def _rolling(old: list[type[models.Model]], version: str) -> list[str]:
    try:
        with transaction.atomic():
            rows.fill(old, "beside")
            for model in old:
                for instance in model._default_manager.order_by("pk"):
                    instance.save(force_update=True)
            transaction.set_rollback(True)
    except DatabaseError as error:
        return [f"the models of {version} cannot work on the newest schema: {error}"]
    return []
