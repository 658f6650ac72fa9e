from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DatabaseRemoteConfig(AppConfig):
    """The optional app with the tables of ``DatabaseStorage``."""

    name = "queued_storage.remotes.database"
    label = "queued_storage_database"
    verbose_name = _("Files in the database")
    default_auto_field = "django.db.models.BigAutoField"
