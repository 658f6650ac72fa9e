from __future__ import annotations

from django.apps import AppConfig


class TestAppConfig(AppConfig):
    """A small project's app: its models keep their files on the default, queued storage."""

    name = "tests.app"
    label = "testapp"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import the Celery app, which makes it the current one, as a project's own ``__init__`` does."""
        from tests import celeryapp  # noqa: F401
