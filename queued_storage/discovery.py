"""Find the storages of a kind in a project's settings and models, also while some of them cannot be built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.apps import apps
from django.conf import settings
from django.core.files.storage import DefaultStorage, Storage, storages
from django.db.models import FileField
from django.utils.module_loading import import_string

S = TypeVar("S", bound=Storage)


@dataclass(frozen=True)
class Found(Generic[S]):
    """A storage and the place that configures it: an entry of STORAGES or a model field."""

    place: str
    #: Its alias in STORAGES, or "" for that of a field.
    entry: str
    storage: S


@dataclass(frozen=True)
class Broken:
    """An entry of STORAGES that is, or may be, a storage of the kind and cannot be built."""

    place: str
    entry: str
    error: Exception


def discover(kind: type[S]) -> Iterator[Found[S] | Broken]:
    """Yield every storage of ``kind`` once; an instance that several places share has the first one."""
    seen: set[int] = set()
    for found in (*in_settings(kind), *on_fields(kind)):
        if isinstance(found, Broken):
            yield found
        elif id(found.storage) not in seen:
            seen.add(id(found.storage))
            yield found


def in_settings(kind: type[S]) -> Iterator[Found[S] | Broken]:
    """Yield the entries of STORAGES that are of ``kind``; one that is broken does not stand in the way of others."""
    for alias, entry in settings.STORAGES.items():
        place = f'STORAGES["{alias}"]'
        try:
            if names(entry.get("BACKEND"), kind):
                storage = storages[alias]
                assert isinstance(storage, kind)
                yield Found(place, alias, storage)
        except Exception as error:
            yield Broken(place, alias, error)


def names(backend: Any, kind: type[Storage]) -> bool:
    """Tell whether the ``BACKEND`` of an entry is of ``kind``; raises if one of this package cannot be imported."""
    try:
        cls = import_string(backend) if isinstance(backend, str) else backend
    except Exception:
        # Whose storage it was meant to be cannot be known, but for those that bear our name.
        if str(backend).startswith("queued_storage.backends."):
            raise
        return False
    return isinstance(cls, type) and issubclass(cls, kind)


def on_fields(kind: type[S]) -> Iterator[Found[S]]:
    """Yield the storages of ``kind`` that model fields name themselves."""
    for model in apps.get_models():
        for field in model._meta.get_fields():
            storage: Any = field.storage if isinstance(field, FileField) else None
            # Only to ask for the class of the default storage would build it, and it may be the broken one.
            if type(storage) is not DefaultStorage and isinstance(storage, kind):
                yield Found(f"{model._meta.label}.{field.name}", "", storage)
