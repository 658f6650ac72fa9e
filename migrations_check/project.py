"""The smallest project that has the migrations: two apps and one database."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import django
from django.conf import settings

#: The apps whose migrations are checked, by their labels.
LABELS = ("queued_storage", "queued_storage_database")
LINTER = "django_migration_linter"


def configure(database: Mapping[str, Any], migrations: Mapping[str, str]) -> None:
    """Set Django up on ``database``; ``migrations`` names modules to be taken in place of an app's own migrations."""
    apps = ["queued_storage", "queued_storage.remotes.database"]
    if importlib.util.find_spec(LINTER):
        apps.append(LINTER)
    settings.configure(
        DATABASES={"default": dict(database)},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=apps,
        MIGRATION_MODULES=dict(migrations),
        SECRET_KEY="for the check of migrations only",
        USE_TZ=True,
    )
    django.setup()
