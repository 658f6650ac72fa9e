"""Checks of the configured storages, one by one and beside each other. No server is asked anything."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from celery import Task, current_app
from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import FileSystemStorage, Storage
from django.utils.translation import gettext as _

from queued_storage import links, nodes, tasks
from queued_storage.checking import messages, traits
from queued_storage.conf import SettingError, settings as ours
from queued_storage.discovery import Broken, Found
from queued_storage.local import LocalStorage
from queued_storage.pairs import StoragePair, discover, load
from queued_storage.redaction import describe, redact

Queued: TypeAlias = Found[StoragePair]

_CONFIGURATION = ("class", "local", "remote", "local_options", "remote_options", "cache_prefix")
_EXTRA = re.compile(r"django-queued-storage\[(\w+)\]")
# Beside its configuration, what a worker reads from the storage that it finds under the alias.
_RULES = ("task_path", "keep_local", "queue", "overwrite", "verify", "staleness", "links")
# And what all must agree on, or one would tell again and again of what the other takes back.
_LIMITS = ("max_owed_files", "max_owed_bytes", "when_full")


def check_storages() -> Iterator[CheckMessage]:
    """Yield what is wrong with each storage, then with any two of them."""
    whole: list[Queued] = []
    for found in discover():
        if isinstance(found, Broken):
            yield messages.e002(found.place, _("The storage"), _text(found.error))
            continue
        problems = list(_check_sides(found)) or list(_check_place(found))
        yield from problems
        yield from _check_name(found)
        yield from _check_task(found)
        yield from _check_queue(found)
        if not any(problem.is_serious() for problem in problems):
            whole.append(found)
    yield from _check_aliases(whole)
    yield from _check_remote_places(whole)


def check_deployed_storages() -> Iterator[CheckMessage]:
    """Yield what is good enough for development only."""
    for found in discover():
        if isinstance(found, Broken):
            continue
        local = _side(found.storage, "local")
        if isinstance(local, FileSystemStorage) and not isinstance(local, LocalStorage):
            yield messages.w010(found.place, found.storage.local_path)


def _side(storage: StoragePair, side: str) -> Storage | Exception:
    try:
        built: Storage = getattr(storage, side)
    except Exception as error:
        return error
    return built


def _import_error(path: str) -> Exception | None:
    try:
        load(path)
    except Exception as error:
        return error
    return None


def _text(error: Exception, *options: Mapping[str, Any]) -> str:
    # A sentence that was written for people needs no class in front of it.
    return redact(error, *options) if isinstance(error, ImproperlyConfigured) else describe(error, *options)


def _check_sides(found: Queued) -> Iterator[CheckMessage]:
    storage = found.storage
    for side in ("local", "remote"):
        path: str = getattr(storage, f"{side}_path")
        built = _side(storage, side)
        if path not in settings.STORAGES and (error := _import_error(path)) is not None:
            extra = _EXTRA.search(str(error))
            yield messages.e001(found.place, side, path, redact(error.__cause__ or error), extra and extra[1])
        elif isinstance(built, Exception):
            text = _text(built, storage.local_options, storage.remote_options)
            what = _("The %(side)s storage %(path)r")
            yield messages.e002(found.place, what % {"side": side, "path": path}, text)
        elif isinstance(built, StoragePair):
            yield messages.e012(found.place, side)


def _check_place(found: Queued) -> Iterator[CheckMessage]:
    local, remote = found.storage.local, found.storage.remote
    if traits.share_a_place(local, remote):
        yield messages.e010(found.place, str(traits.place_of(local)[-1]), str(traits.place_of(remote)[-1]))  # type: ignore[index]
    if links.signs_urls(remote) and (url := traits.public_url(local)) is not None:
        yield messages.e011(found.place, url)
    if (option := traits.overwriting_option(remote)) is not None:
        yield messages.w003(found.place, option)


def _check_name(found: Queued) -> Iterator[CheckMessage]:
    if not found.storage.named:
        yield messages.w002(found.place, found.storage.alias)


def _check_task(found: Queued) -> Iterator[CheckMessage]:
    path: Any = found.storage.task_path
    module = path.rpartition(".")[0] if isinstance(path, str) else ""
    # Asked before resolving, which imports it: what Django has imported here it imports in a worker as well.
    imported = module in sys.modules
    try:
        task = tasks.resolve(path)
    except Exception as error:
        yield messages.e003(found.place, _text(error))
        return
    if not isinstance(task, Task):
        return
    if task.name not in current_app.tasks:
        yield messages.e004(found.place, task.name, current_app.main or "default")
    elif not imported and not _workers_import(module):
        yield messages.w011(found.place, task.name, module)


def _check_queue(found: Queued) -> Iterator[CheckMessage]:
    try:
        node, queue = ours.QUEUED_STORAGE_NODE, nodes.queue_pattern(found.storage)
    except SettingError:
        return
    follows = nodes.PLACEHOLDER in (queue or "")
    if node and not follows:
        yield messages.w015(found.place, node, queue or current_app.conf.task_default_queue)
    elif follows and not node:
        yield messages.w016(found.place, queue or "")


def _workers_import(module: str) -> bool:
    found = {f"{config.name}.tasks" for config in apps.get_app_configs()}.union(current_app.loader.default_modules)
    return any(module == name or module.startswith(f"{name}.") for name in found)


def _check_aliases(whole: list[Queued]) -> Iterator[CheckMessage]:
    first: dict[str, Queued] = {}
    for found in whole:
        alias = found.storage.alias
        other = first.setdefault(alias, found)
        if differences := _differences(found.storage, other.storage):
            yield messages.e008(found.place, other.place, alias, differences)


def _differences(one: StoragePair, other: StoragePair) -> list[str]:
    pairs = zip(_CONFIGURATION, one.configuration(), other.configuration(), strict=True)
    differing = [name for name, mine, its in pairs if mine != its]
    return differing + [name for name in (*_RULES, *_LIMITS) if getattr(one, name) != getattr(other, name)]


def _check_remote_places(whole: list[Queued]) -> Iterator[CheckMessage]:
    taken: list[tuple[Any, Queued]] = []
    for found in whole:
        place = traits.remote_place(found.storage)
        other = next((other for its, other in taken if place is not None and its == place), None)
        if other is None:
            taken.append((place, found))
        elif found.storage.alias != other.storage.alias:
            yield messages.e009(found.place, other.place, found.storage.alias, other.storage.alias)
