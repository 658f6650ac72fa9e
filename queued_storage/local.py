"""A file system storage that cannot lose a file.

A file is written under a random name into ``<location>/.queued_storage/staging/``, which only the owner may enter,
and becomes visible complete, in one step, by a hard link that fails where anything sits already. The location must
therefore lie on one file system that has hard links. Below the location no symbolic link is ever followed, whoever
planted it; the location itself may be one.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from django.conf import settings
from django.core.files import File
from django.core.files.storage import FileSystemStorage
from django.utils.deconstruct import deconstructible

from queued_storage import handles
from queued_storage.exceptions import StorageConfigurationError
from queued_storage.names import STAGING_DIRECTORY, alternative_name, clean_directory, clean_name, escape, fit
from queued_storage.staging import StagedFile, collect, staged_file, upload_path

_TRIES = 100
_MAX_SYNCED = 10_000


@dataclass(frozen=True, slots=True)
class Stored:
    """What ``store()`` did: the name that the file got, its size in bytes, its digests in lower-case hexadecimal."""

    name: str
    size: int
    digests: Mapping[str, str]


@deconstructible(path="queued_storage.local.LocalStorage")
class LocalStorage(FileSystemStorage):
    """Django's ``FileSystemStorage``, hardened.

    When ``save()`` returns, the whole file is on the disk under the returned name, which nobody else was given; when
    it raises, no file is visible. Nothing is ever written over. ``durable=False`` leaves out every fsync: faster, and
    a killed process still loses nothing, but after a power cut or a crash of the kernel the files of the last seconds
    may be missing, short or empty although ``save()`` returned.

    Every method refuses names as ``queued_storage.names`` says. Raises ``StorageConfigurationError`` on Windows, and
    when saving where there are no hard links.
    """

    def __init__(
        self,
        location: str | os.PathLike[str] | None = None,
        base_url: str | None = None,
        file_permissions_mode: int | None = None,
        directory_permissions_mode: int | None = None,
        *,
        durable: bool = True,
    ) -> None:
        if not handles.SUPPORTED:
            raise StorageConfigurationError("LocalStorage needs a POSIX system: use FileSystemStorage here.")
        super().__init__(location, base_url, file_permissions_mode, directory_permissions_mode)
        self.durable = durable
        # Directories whose entry this process has fsynced: another one may have died between mkdir and fsync.
        self._synced: set[str] = set()

    def save(self, name: Any, content: Any, max_length: int | None = None) -> str:
        """Save ``content`` under ``name`` or, where that is taken or too long, another one; return the name used.

        ``content`` is anything with ``chunks()`` or ``read()``, in ``bytes`` or in ``str``, which is saved as UTF-8.
        Raises ``SuspiciousFileOperation`` for a name that is refused or cannot be made to fit ``max_length``, and
        ``OSError`` where the disk does.
        """
        wanted = fit(getattr(content, "name", None) if name is None else name)
        content = content if hasattr(content, "chunks") else File(content, wanted)
        available = clean_name(self.get_available_name(wanted, max_length=max_length))
        # _save() of a subclass comes first, but has no max_length for the case that the name is taken meanwhile.
        if type(self)._save is LocalStorage._save:
            return self.store(available, content, max_length=max_length).name
        return clean_name(self._save(available, content))

    def store(self, name: str, content: File[Any], max_length: int | None = None) -> Stored:
        """Save ``content`` under ``name``, or another one if that is taken, and say what was stored.

        A temporary upload is moved, as Django does it: linked where it lies on the same file system, else copied and
        counted. It must have no other writer by then. Raises as ``save()`` does.
        """
        name = clean_name(name)
        content = content if hasattr(content, "chunks") else File(content)
        upload = upload_path(content)
        with self._root() as root, staged_file(root, self.file_permissions_mode, self.durable) as staged:
            staged.fill(content, upload)
            name = self._publish(name, max_length, root, staged)
        if upload:
            with suppress(OSError):
                os.unlink(upload)
        return Stored(name, staged.hasher.size, staged.hasher.digests)

    def get_available_name(self, name: Any, max_length: int | None = None) -> str:
        """Return ``name`` if it is free, else another one; ``save()`` stays right if that is taken meanwhile.

        Raises ``SuspiciousFileOperation`` if no name fits ``max_length`` and ``FileExistsError`` after 100 tries.
        """
        wanted = available = fit(name)
        for _ in range(_TRIES):
            if self.is_name_available(available, max_length=max_length):
                return available
            available = clean_name(alternative_name(wanted, self.get_alternative_name, max_length))
        raise _no_place(wanted)

    def generate_filename(self, filename: Any) -> str:
        """Return the name to save ``filename`` under, as Django does, with over-long components cut."""
        return fit(super().generate_filename(filename))

    def exists(self, name: Any) -> bool:
        """Return whether anything, be it a link or a directory, sits under ``name``; raise if that cannot be told."""
        try:
            with self._parent(name) as (parent, base):
                os.stat(base, dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def delete(self, name: Any) -> None:
        """Delete the file, the link itself or the empty directory ``name``; do nothing if it is not there."""
        with suppress(FileNotFoundError, NotADirectoryError), self._parent(name) as (parent, base):
            handles.remove(parent, base)
            if self.durable:
                os.fsync(parent)

    def listdir(self, path: Any) -> tuple[list[str], list[str]]:
        """Return the directories and the regular files in ``path``; staging, links and devices are left out.

        Names are those on the disk; one that others put there may be refused by the other methods.
        """
        directory = clean_directory(path)
        directories, files = [], []
        with handles.descend(self._place, directory) as handle, os.scandir(handle) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    files.append(entry.name)
                elif entry.is_dir(follow_symlinks=False) and (directory or entry.name != STAGING_DIRECTORY):
                    directories.append(entry.name)
        return directories, files

    def path(self, name: Any) -> str:
        """Return the absolute path of ``name``; whoever opens it himself follows symbolic links."""
        return os.path.join(self._place, clean_name(name))

    def size(self, name: Any) -> int:
        """Return the size of the regular file ``name`` in bytes."""
        return self._stat(name).st_size

    def url(self, name: Any) -> str:
        """Return the quoted URL of ``name``, always below ``base_url``."""
        return super().url(clean_name(name))

    def get_accessed_time(self, name: Any) -> datetime:
        """Return when the regular file ``name`` was last read."""
        return _time(self._stat(name).st_atime)

    def get_created_time(self, name: Any) -> datetime:
        """Return when the regular file ``name`` got its present content, mode or place."""
        return _time(self._stat(name).st_ctime)

    def get_modified_time(self, name: Any) -> datetime:
        """Return when the regular file ``name`` was last written."""
        return _time(self._stat(name).st_mtime)

    def collect_staging(self, older_than: timedelta) -> int:
        """Remove what killed processes left in staging longer than ``older_than`` ago; return the count.

        The age counts from the last write. A saver that stood still for longer raises when it goes on, and nothing
        of it becomes visible.
        """
        return collect(self._place, older_than)

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        if not set(mode) <= set("rbt"):
            raise io.UnsupportedOperation(f"{type(self).__name__} opens files for reading only; write with save().")
        return File(open(self.path(name), mode, opener=lambda path, flags: self._open_regular(name)))

    def _open_regular(self, name: str) -> int:
        with self._parent(name) as (parent, base):
            return handles.open_regular(parent, base)

    def _save(self, name: str, content: File[Any]) -> str:
        return self.store(name, content).name

    def _publish(self, name: str, max_length: int | None, root: int, staged: StagedFile) -> str:
        for _ in range(_TRIES):
            another = self._try(name, max_length, root, staged)
            if another is None:
                return name
            name = clean_name(another)
        raise _no_place(name)

    def _try(self, name: str, max_length: int | None, root: int, staged: StagedFile) -> str | None:
        # None: done; else the name to try next.
        try:
            self._link(name, root, staged)
        except FileExistsError:
            return self.get_available_name(name, max_length=max_length)
        except _BlockedError as blocked:
            room = max_length and max(max_length - len(blocked.rest), 1)
            return alternative_name(blocked.path, self.get_alternative_name, room) + blocked.rest
        except FileNotFoundError:
            # Somebody removed an empty directory on our way, or else, and then this raises, the staged file.
            staged.check()
            return name
        return None

    def _link(self, name: str, root: int, staged: StagedFile) -> None:
        *directories, base = name.split("/")
        parent, path = os.dup(root), self._place
        try:
            for depth, part in enumerate(directories, start=1):
                path = f"{path}/{part}"
                try:
                    child, made = handles.enter_or_make(parent, part, self.directory_permissions_mode)
                except NotADirectoryError as error:
                    raise _BlockedError(directories[:depth], [*directories[depth:], base]) from error
                try:
                    self._sync_entry(parent, path, part, made)
                finally:
                    handles.close(parent)
                    parent = child
            staged.link(parent, base)
        finally:
            handles.close(parent)

    def _sync_entry(self, parent: int, path: str, part: str, made: bool) -> None:
        if not self.durable or (not made and path in self._synced):
            return
        try:
            os.fsync(parent)
        except OSError:
            # The kernel may call the next fsync a success; a new directory at least is made anew then.
            if made:
                with suppress(OSError):
                    os.rmdir(part, dir_fd=parent)
            raise
        if len(self._synced) >= _MAX_SYNCED:
            self._synced.clear()
        self._synced.add(path)

    def _stat(self, name: Any) -> os.stat_result:
        with self._parent(name) as (parent, base):
            return handles.stat_regular(parent, base)

    @property
    def _place(self) -> str:
        return str(self.location)

    @contextmanager
    def _parent(self, name: Any) -> Iterator[tuple[int, str]]:
        directory, _, base = clean_name(name).rpartition("/")
        with handles.descend(self._place, directory) as handle:
            yield handle, base

    @contextmanager
    def _root(self) -> Iterator[int]:
        try:
            handle = os.open(self._place, handles.DIRECTORY)
        except FileNotFoundError:
            handles.make(self._place, self.directory_permissions_mode, self.durable)
            handle = os.open(self._place, handles.DIRECTORY)
        try:
            yield handle
        finally:
            handles.close(handle)


class _BlockedError(Exception):
    """Something that is not a directory sits where one is needed."""

    def __init__(self, path: list[str], rest: list[str]) -> None:
        super().__init__()
        self.path, self.rest = "/".join(path), "/" + "/".join(rest)


def _time(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, tz=timezone.utc if settings.USE_TZ else None)


def _no_place(name: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, f"No free name found in {_TRIES} tries", escape(name))
