from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class QueuedStorageConfig(AppConfig):
    """The ``queued_storage`` app: ledger, system checks, admin."""

    name = "queued_storage"
    verbose_name = _("Queued storage")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from queued_storage import checks

        checks.register()
