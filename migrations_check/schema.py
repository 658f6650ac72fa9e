"""Whether the migrations make what the models ask for, on this database, and take it away again."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

from django.core.management import CommandError, call_command
from django.db import connection

from migrations_check import catalog
from migrations_check.project import LABELS


def migrate(*target: str) -> None:
    """Migrate the checked apps, or one of them to ``target`` (label, migration)."""
    if target:
        call_command("migrate", *target, verbosity=0, skip_checks=True)
        return
    for label in LABELS:
        call_command("migrate", label, verbosity=0, skip_checks=True)


def migrate_to_zero() -> None:
    """Take everything back."""
    for label in reversed(LABELS):
        migrate(label, "zero")


def missing_migrations() -> list[str]:
    """Return what the models have and no migration makes, as ``makemigrations`` tells it."""
    output = io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(output):
            call_command("makemigrations", *LABELS, check_changes=True, dry_run=True, skip_checks=True, stdout=output)
    except SystemExit:
        return [line for line in output.getvalue().splitlines() if line.strip()]
    except CommandError as error:
        return [str(error)]
    return []


def round_trip() -> list[str]:
    """Migrate from zero to the newest and back, twice; return what was left, or is not as it was."""
    migrate()
    first = catalog.read()
    problems = [f"not made: {table}" for table in catalog.tables() if table not in first]
    migrate_to_zero()
    if left := _tables():
        return [*problems, *(f"left behind at zero: {name}" for name in left)]
    migrate()
    return problems + catalog.differences(first, catalog.read(), "at first", "after zero and back")


def _tables() -> list[str]:
    with connection.cursor() as cursor:
        names = connection.introspection.table_names(cursor)
    return [name for name in names if name != "django_migrations"]


def compare_with_models() -> list[str]:
    """Compare what the migrations make with what the models make without them; return the differences.

    Expects and leaves the newest schema.
    """
    migrated = catalog.read()
    problems = _unfulfilled()
    migrate_to_zero()
    made = catalog.checked_models()
    with connection.schema_editor() as editor:
        for model in made:
            editor.create_model(model)
    modelled = catalog.read()
    with connection.schema_editor() as editor:
        for model in reversed(made):
            editor.delete_model(model)
    migrate()
    return problems + catalog.differences(migrated, modelled, "migrated", "in the models")


def _unfulfilled() -> list[str]:
    # Whatever both ways of making a table might leave out alike: every index and constraint that has a name.
    problems = []
    partial = connection.features.supports_partial_indexes
    for model in catalog.checked_models():
        table = model._meta.db_table
        with connection.cursor() as cursor:
            found = connection.introspection.get_constraints(cursor, table)
        text = "\n".join(catalog.read().get(table, []))
        names = [named.name for named in (*model._meta.indexes, *model._meta.constraints)]
        problems += [f"{table}: {name} is not there" for name in names if name not in found]
        for index in model._meta.indexes:
            condition = getattr(index, "where", None) or index.condition
            if condition is not None and partial and not _has_condition(text, index.name):
                problems.append(f"{table}: {index.name} has no condition")
    return problems


def _has_condition(text: str, name: str) -> bool:
    return any("INDEX" in line and name in line and " WHERE " in line for line in text.splitlines())
