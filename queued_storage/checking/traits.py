"""What can be told of a storage by its attributes alone, without asking its server."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.files.storage import FileSystemStorage, InMemoryStorage, Storage

from queued_storage import links
from queued_storage.pairs import StoragePair


def remote_place(pair: StoragePair) -> tuple[Any, ...] | None:
    """Return what is equal for two pairs that write to one remote place; ``None`` where that cannot be told."""
    place = place_of(pair.remote)
    if place is None and not isinstance(pair.remote, InMemoryStorage):
        place = (pair.remote_path, pair.remote_options)
    return place


def place_of(storage: Storage) -> tuple[Any, ...] | None:
    """Return the place of a file system, a bucket or a container; ``None`` for other storages."""
    if isinstance(storage, FileSystemStorage):
        return ("directory", os.path.realpath(storage.location))
    for kind in ("bucket_name", "azure_container"):
        if bucket := getattr(storage, kind, None):
            server = getattr(storage, "endpoint_url", None) or getattr(storage, "account_name", None)
            return (kind, server, bucket, str(getattr(storage, "location", None) or "").strip("/"))
    return None


def share_a_place(one: Storage, other: Storage) -> bool:
    """Tell whether one storage lies in the other one."""
    places = place_of(one), place_of(other)
    if None in places or places[0][:-1] != places[1][:-1]:  # type: ignore[index]
        return False
    paths = [f"{place[-1]}/".lstrip("/") for place in places]  # type: ignore[index]
    return paths[0].startswith(paths[1]) or paths[1].startswith(paths[0])


def overwriting_option(storage: Storage) -> str | None:
    """Return the option by which a storage overwrites files, or ``None`` if it does not."""
    attributes = ("file_overwrite", "overwrite_files", "_allow_overwrite")
    return next((name.strip("_") for name in attributes if getattr(storage, name, False) is True), None)


def public_url(storage: Storage) -> str | None:
    """Return the URL under which a file system storage serves its files to everybody, or ``None``.

    Files outside of MEDIA_ROOT are not public where the links of this package are there to give them out.
    """
    if not isinstance(storage, FileSystemStorage):
        return None
    media = os.path.join(os.path.realpath(settings.MEDIA_ROOT), "")
    inside = os.path.join(os.path.realpath(storage.location), "").startswith(media)
    return storage.base_url if inside or not links.installed() else None
