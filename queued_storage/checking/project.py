"""Checks of the project around the storages: settings, cache, Celery."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from celery import current_app
from django.apps import apps
from django.conf import settings as django_settings
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage
from django.db import connections
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from queued_storage import ledger
from queued_storage.checking import messages
from queued_storage.conf import SettingError, settings
from queued_storage.schedule import TASK

_PREFIX = "QUEUED_STORAGE_"
_LOCKING = {"IMMEDIATE", "EXCLUSIVE"}
_PICKLES = {"pickle", "application/x-python-serialize"}
_UNSHARED = {
    LocMemCache: _("what one process deletes, the others still believe to be there"),
    DummyCache: _("every question goes to the database"),
}


def check_settings() -> Iterator[CheckMessage]:
    """Yield what is wrong with the QUEUED_STORAGE_* settings and those of Django beside them."""
    known = {setting.name: setting for setting in settings}
    wrong = set()
    for name, setting in known.items():
        try:
            getattr(settings, name)
        except SettingError as error:
            wrong.add(name)
            yield messages.e005(str(error), setting.__doc__ or "")
    yield from _check_names(set(known))
    yield from _check_cache(wrong)
    if not django_settings.USE_TZ:
        yield messages.w009()
    database = connections[ledger.using()]
    if database.vendor == "sqlite" and database.settings_dict["OPTIONS"].get("transaction_mode") not in _LOCKING:
        yield messages.w012(database.alias)


def _check_names(known: set[str]) -> Iterator[CheckMessage]:
    # Compared without what all of them begin with.
    endings = [name.removeprefix(_PREFIX) for name in known]
    for name in sorted(name for name in dir(django_settings) if name.startswith(_PREFIX) and name not in known):
        close = difflib.get_close_matches(name.removeprefix(_PREFIX), endings, n=1)
        yield messages.w001(name, _PREFIX + close[0] if close else None)


def _check_cache(wrong: set[str]) -> Iterator[CheckMessage]:
    if "QUEUED_STORAGE_CACHE" not in wrong:
        alias = settings.QUEUED_STORAGE_CACHE
        if alias is not None and alias not in django_settings.CACHES:
            yield messages.e006(alias, django_settings.CACHES)
    comparable = not wrong & {"QUEUED_STORAGE_CACHE_TIMEOUT", "QUEUED_STORAGE_PRUNE_AFTER"}
    if comparable and settings.QUEUED_STORAGE_CACHE_TIMEOUT >= settings.QUEUED_STORAGE_PRUNE_AFTER:
        yield messages.e007()


def check_deployed_cache() -> Iterator[CheckMessage]:
    """Yield what is wrong with the cache once there are several processes."""
    try:
        alias = settings.QUEUED_STORAGE_CACHE
        backend = import_string(django_settings.CACHES[alias or ""]["BACKEND"])
    except (SettingError, KeyError, ImportError):
        # Off, or reported by another check, or Django's to report.
        return
    for unshared, reason in _UNSHARED.items():
        if isinstance(backend, type) and issubclass(backend, unshared):
            yield messages.w004(alias or "", backend.__name__, str(reason))


def check_celery() -> Iterator[CheckMessage]:
    """Yield what is wrong with the Celery app, but for its broker."""
    if _PICKLES & set(current_app.conf.accept_content or ()):
        yield messages.w005()
    scheduled = {entry.get("task") for entry in (current_app.conf.beat_schedule or {}).values()}
    if TASK not in scheduled and not apps.is_installed("django_celery_beat"):
        yield messages.w007()


def check_deployed_celery() -> Iterator[CheckMessage]:
    """Yield what is wrong with the broker: one in memory is meant for tests."""
    url = current_app.conf.broker_write_url
    if not url or url.startswith("memory"):
        yield messages.w006(current_app.main or "default", url)
