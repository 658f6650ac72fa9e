"""The system checks: what is wrong with a project, and what to type to put it right.

``check --deploy`` adds what is good enough for development only, ``check --database default`` what only the ledger can
tell. All but the latter carry the tag ``queued_storage``. The messages are in ``queued_storage.checking.messages``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, register as register_check

from queued_storage.checking import database, project, storages

TAG = "queued_storage"

Check = Callable[[], Iterator[CheckMessage]]

CHECKS: list[Check] = [project.check_settings, project.check_celery, storages.check_storages]
DEPLOYMENT_CHECKS: list[Check] = [
    project.check_deployed_cache,
    project.check_deployed_celery,
    storages.check_deployed_storages,
]
DATABASE_CHECKS = [database.check_ledger, database.check_schedule]


def check_project(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    """Return what is wrong wherever the project runs."""
    return [message for check in CHECKS for message in check()]


def check_deployment(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    """Return what is wrong in production only."""
    return [message for check in DEPLOYMENT_CHECKS for message in check()]


def check_databases(app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Return what is wrong in ``databases``, of which Django names none unless it was asked to."""
    return [message for check in DATABASE_CHECKS for message in check(databases or ())]


def register() -> None:
    """Register the checks with Django; for ``AppConfig.ready()``."""
    register_check(check_project, TAG, Tags.files)
    register_check(check_deployment, TAG, Tags.files, deploy=True)
    # Without our tag: Django 6.1 takes the choice of a tag for the wish to have every database asked.
    register_check(check_databases, Tags.database)
