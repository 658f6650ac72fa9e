"""Walk through the files of one side, without holding them all in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from django.core.files.storage import FileSystemStorage, Storage

from queued_storage.local import LocalStorage
from queued_storage.names import STAGING_DIRECTORY

# Modules with a ``scan(storage, prefix)`` for storages that can list with sizes, by the class that they are for.
SCANNERS = {"storages.backends.s3.S3Storage": "queued_storage.remotes.s3_listing"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a listing shows it: its size in bytes and when it was last touched (POSIX time), where that is told."""

    name: str
    size: int | None = None
    touched: float | None = None


def walk(storage: Storage, prefix: str = "") -> Iterator[Entry]:
    """Yield every file whose name begins with ``prefix``; links, devices and unfinished writes are left out.

    Names are those of the storage, be they ones that other methods refuse. Raises what the storage raises.
    """
    scan = _scanner(storage)
    if scan is not None:
        yield from scan(storage, prefix)
        return
    yield from (entry for entry in _by_directories(storage, prefix.rpartition("/")[0]) if entry.name.startswith(prefix))


def _scanner(storage: Storage) -> Callable[[Any, str], Iterator[Entry]] | None:
    if isinstance(storage, FileSystemStorage):
        plain = type(storage).listdir in (FileSystemStorage.listdir, LocalStorage.listdir)
        return _scan_folder if plain else None
    for cls in type(storage).__mro__:
        module = SCANNERS.get(f"{cls.__module__}.{cls.__qualname__}")
        if module is not None:
            return import_module(module).scan  # type: ignore[no-any-return]
    return None


def _by_directories(storage: Storage, top: str) -> Iterator[Entry]:
    todo = [top]
    while todo:
        directory = todo.pop()
        try:
            directories, files = storage.listdir(directory)
        except FileNotFoundError:
            # Removed meanwhile, or never there.
            continue
        below = f"{directory}/" if directory else ""
        yield from (Entry(f"{below}{name}") for name in files if name)
        todo.extend(f"{below}{name}" for name in directories if name)


def _scan_folder(storage: FileSystemStorage, prefix: str) -> Iterator[Entry]:
    top = prefix.rpartition("/")[0]
    todo = [f"{top}/" if top else ""]
    while todo:
        below = todo.pop()
        try:
            entries = os.scandir(os.path.join(storage.location, below))
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                name = below + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if (f"{name}/".startswith(prefix) or prefix.startswith(f"{name}/")) and name != STAGING_DIRECTORY:
                        todo.append(f"{name}/")
                elif name.startswith(prefix) and entry.is_file(follow_symlinks=False):
                    yield from _entry(entry, name)


def _entry(entry: os.DirEntry[str], name: str) -> Iterator[Entry]:
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    # A link or a move changes ctime alone.
    yield Entry(name, found.st_size, max(found.st_mtime, found.st_ctime))
