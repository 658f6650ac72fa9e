"""Operations that an old release's processes cannot live with, or that hold up a large table."""

from __future__ import annotations

import importlib.util
import io
from contextlib import redirect_stdout

from migrations_check.project import LABELS, LINTER


def available() -> bool:
    """Tell whether django-migration-linter is installed."""
    return importlib.util.find_spec(LINTER) is not None


def lint() -> list[str]:
    """Return what django-migration-linter, its warnings included, says against the migrations on this database."""
    from django_migration_linter import MigrationLinter

    output = io.StringIO()
    with redirect_stdout(output):
        linter = MigrationLinter(include_apps=LABELS, no_cache=True, all_warnings_as_errors=True)
        linter.lint_all_migrations()
    return [" ".join(output.getvalue().split())] if linter.has_errors else []
