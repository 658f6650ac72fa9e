"""Checks that ask the ledger; Django runs them for ``check --database`` and before ``migrate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from celery import current_app
from django.apps import apps
from django.core.checks import CheckMessage
from django.db import DatabaseError, connections
from django.db.models import Count

from queued_storage import ledger, schedule
from queued_storage.checking import messages
from queued_storage.pairs import aliases


def check_ledger(databases: Sequence[str]) -> Iterator[CheckMessage]:
    """Yield what is wrong with the tables of the ledger and with what is in them."""
    alias = ledger.using()
    if alias not in databases:
        return
    wanted = {model._meta.db_table for model in apps.get_app_config("queued_storage").get_models()}
    if not wanted <= set(connections[alias].introspection.table_names()):
        yield messages.w013(alias)
        return
    try:
        yield from _check_aliases()
    except DatabaseError:
        # A table of another release: Django itself tells of migrations that are still to be applied.
        return


def _check_aliases() -> Iterator[CheckMessage]:
    rows = ledger.records().exclude(storage__in=aliases()).values("storage", "state").order_by("storage", "state")
    counts: dict[str, list[str]] = {}
    for row in rows.annotate(files=Count("pk")):
        counts.setdefault(row["storage"], []).append(f"{row['files']} {row['state']}")
    for storage, texts in counts.items():
        yield messages.w008(storage, ", ".join(texts))


def check_schedule(databases: Sequence[str]) -> Iterator[CheckMessage]:
    """Yield a warning where django-celery-beat is installed and does not run the sweep."""
    if not schedule.available() or schedule.database() not in databases:
        return
    scheduled = {entry.get("task") for entry in (current_app.conf.beat_schedule or {}).values()}
    if schedule.TASK not in scheduled and schedule.migrated() and not schedule.enabled():
        yield messages.w014()
