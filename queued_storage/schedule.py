"""The sweep in django-celery-beat's tables, for projects whose beat reads them."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import connections, router, transaction

from queued_storage.conf import BEAT_SCHEDULE
from queued_storage.exceptions import StorageConfigurationError

((NAME, _ENTRY),) = BEAT_SCHEDULE.items()
TASK: str = _ENTRY["task"]


class BeatMissingError(StorageConfigurationError):
    """django-celery-beat is not in use; the message says how to change that."""


_NOT_INSTALLED = (
    "django-celery-beat is not in INSTALLED_APPS. Run: pip install 'django-queued-storage[beat]', add "
    '"django_celery_beat" to INSTALLED_APPS, run: manage.py migrate. Without it, add '
    "**queued_storage.conf.BEAT_SCHEDULE to CELERY_BEAT_SCHEDULE."
)
_NOT_MIGRATED = "The tables of django-celery-beat are missing. Run: manage.py migrate django_celery_beat"


def available() -> bool:
    """Tell whether the project has django-celery-beat in INSTALLED_APPS."""
    return apps.is_installed("django_celery_beat")


def _model(name: str) -> Any:
    if not available():
        raise BeatMissingError(_NOT_INSTALLED)
    return apps.get_model("django_celery_beat", name)


def database() -> str:
    """Return the alias of the database that holds the schedule; raises ``BeatMissingError``."""
    return router.db_for_write(_model("PeriodicTask"))


def migrated() -> bool:
    """Tell whether the tables of django-celery-beat are there; raises ``BeatMissingError``."""
    return _model("PeriodicTask")._meta.db_table in connections[database()].introspection.table_names()


def enabled() -> bool:
    """Tell whether a periodic task for the sweep is there and switched on; raises ``BeatMissingError``."""
    return bool(_model("PeriodicTask").objects.using(database()).filter(task=TASK, enabled=True).exists())


def existing() -> Any:
    """Return the periodic task that runs the sweep, or bears its name, or ``None``; raises ``BeatMissingError``."""
    if not migrated():
        raise BeatMissingError(_NOT_MIGRATED)
    tasks = _model("PeriodicTask").objects.using(database())
    return tasks.filter(task=TASK).order_by("-enabled", "pk").first() or tasks.filter(name=NAME).first()


def install() -> tuple[Any, bool]:
    """Put the sweep into the tables and return its periodic task and whether it is new.

    What stands there is left as it is, whatever an operator made of it. Raises ``BeatMissingError``.
    """
    intervals = _model("IntervalSchedule").objects.using(database())
    facts = {"every": int(_ENTRY["schedule"]), "period": "seconds"}
    with transaction.atomic(using=database()):
        if (task := existing()) is not None:
            return task, False
        # The table allows equal rows, so that get_or_create() could find too many.
        interval = intervals.filter(**facts).first() or intervals.create(**facts)
        defaults = {"task": TASK, "interval": interval, "expire_seconds": _ENTRY["options"]["expires"]}
        task, created = _model("PeriodicTask").objects.using(database()).get_or_create(name=NAME, defaults=defaults)
        return task, created
