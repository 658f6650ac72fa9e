"""A file on its way: written, counted, hashed and fsynced in a private directory, then linked into place."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from django.core.files import File

from queued_storage.digests import Hasher
from queued_storage.exceptions import StorageConfigurationError
from queued_storage.handles import CREATE, READ, close, descend, enter_or_make
from queued_storage.names import STAGING_DIRECTORY, escape

_INNER = "staging"
_READ_SIZE = 1 << 20
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV}


class StagedFile:
    """One file in the staging directory below ``root``, under a name that nobody else has.

    ``mode`` is its exact mode, or ``None`` to leave it to the umask.
    """

    def __init__(self, root: int, staging: int, mode: int | None, durable: bool) -> None:
        self.root, self.staging, self.mode, self.durable = root, staging, mode, durable
        self.base = secrets.token_hex(16)
        self.hasher = Hasher()

    def fill(self, content: File[Any], upload: str | None) -> None:
        """Write ``content``, or link its temporary file ``upload`` where that can be done, and settle it on the disk.

        Raises ``OSError`` if the disk does, or if the temporary file has another size than was read.
        """
        if not (upload and self._adopt(upload)):
            self.hasher = Hasher()
            self._copy(content, upload)

    def link(self, parent: int, base: str) -> None:
        """Make the file visible as ``base``, complete and at once; afterwards it is there or it is not.

        Raises ``FileExistsError`` if anything sits there, ``StorageConfigurationError`` where the file system has no
        hard links, and ``OSError`` where it fails; a failed fsync takes the name back.
        """
        try:
            self._link(parent, base)
            if self.durable:
                os.fsync(parent)
        except FileExistsError:
            raise
        except BaseException:
            with suppress(OSError):
                if self._is_at(parent, base):
                    os.unlink(base, dir_fd=parent)
            raise

    def check(self) -> None:
        """Raise ``FileNotFoundError`` if somebody took the staged file away."""
        os.stat(self.base, dir_fd=self.staging, follow_symlinks=False)

    def discard(self) -> None:
        """Remove the name in staging; what cannot be removed is left to ``collect()``."""
        with suppress(OSError):
            os.unlink(self.base, dir_fd=self.staging)

    def _copy(self, content: File[Any], upload: str | None) -> None:
        handle = os.open(self.base, CREATE, 0o666 if self.mode is None else 0o600, dir_fd=self.staging)
        try:
            for chunk in content.chunks():
                data = memoryview(chunk.encode() if isinstance(chunk, str) else chunk).cast("B")
                _write(handle, data)
                self.hasher.update(data)
            if upload and os.path.exists(upload) and os.path.getsize(upload) != self.hasher.size:
                raise _changed(upload)
            self._settle(handle)
        finally:
            # An error here counts: on NFS it is the last chance to hear of a full disk.
            os.close(handle)

    def _adopt(self, upload: str) -> bool:
        # Whatever stands against a link (another device, owner or kind of file), a copy is still possible.
        try:
            handle = os.open(upload, READ)
        except OSError:
            return False
        try:
            try:
                os.link(upload, self.base, dst_dir_fd=self.staging, follow_symlinks=False)
            except OSError:
                return False
            self._read(handle, upload)
            self._settle(handle)
        except PermissionError:
            # Somebody else's file that we may link, but not make ours.
            self.discard()
            return False
        finally:
            close(handle)
        return True

    def _read(self, handle: int, upload: str) -> None:
        before = os.fstat(handle)
        while data := os.read(handle, _READ_SIZE):
            self.hasher.update(data)
        after = os.stat(self.base, dir_fd=self.staging, follow_symlinks=False)
        if not os.path.samestat(before, after) or before.st_mtime_ns != after.st_mtime_ns:
            raise _changed(upload)
        if not before.st_size == self.hasher.size == after.st_size:
            raise _changed(upload)

    def _settle(self, handle: int) -> None:
        group = os.fstat(self.root).st_gid
        if os.fstat(handle).st_gid != group:
            with suppress(PermissionError):
                os.fchown(handle, -1, group)
        if self.mode is not None:
            os.fchmod(handle, self.mode)
        if self.durable:
            os.fsync(handle)

    def _link(self, parent: int, base: str) -> None:
        try:
            os.link(self.base, base, src_dir_fd=self.staging, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            # NFS reports this for its own link, too, when the first answer was lost and it asked again.
            if not self._is_at(parent, base):
                raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise StorageConfigurationError(
                f"No hard link can be made for '{escape(base)}' ({error.strerror}): give LocalStorage a location that "
                "lies as a whole on one file system with hard links, or use FileSystemStorage."
            ) from error

    def _is_at(self, parent: int, base: str) -> bool:
        try:
            there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.stat(self.base, dir_fd=self.staging, follow_symlinks=False))


@contextmanager
def staged_file(root: int, mode: int | None, durable: bool) -> Iterator[StagedFile]:
    """Give a file to fill and link; its name in staging is gone afterwards, whatever happened."""
    outer, _ = enter_or_make(root, STAGING_DIRECTORY, 0o700)
    try:
        staging, _ = enter_or_make(outer, _INNER, 0o700)
    finally:
        close(outer)
    staged = StagedFile(root, staging, mode, durable)
    try:
        yield staged
    finally:
        staged.discard()
        close(staging)


def upload_path(content: object) -> str | None:
    """Return the path of a temporary upload with all its bytes written out, or ``None`` if ``content`` has none."""
    if not hasattr(content, "temporary_file_path"):
        return None
    with suppress(AttributeError, ValueError):
        content.flush()  # type: ignore[attr-defined]
    return str(content.temporary_file_path())


def collect(location: str, older_than: timedelta) -> int:
    """Remove staged files below ``location`` that nobody has touched for ``older_than``; return how many."""
    try:
        with descend(location, f"{STAGING_DIRECTORY}/{_INNER}") as staging, os.scandir(staging) as entries:
            found = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
            return sum(_remove_if_old(staging, base, older_than) for base in found)
    except FileNotFoundError:
        return 0


def _remove_if_old(staging: int, base: str, older_than: timedelta) -> bool:
    try:
        # Unlike the time of the last write, a linked upload cannot bring this one along.
        touched = os.stat(base, dir_fd=staging, follow_symlinks=False).st_ctime
        if time.time() - touched < older_than.total_seconds():
            return False
        os.unlink(base, dir_fd=staging)
    except FileNotFoundError:
        return False
    return True


def _write(handle: int, data: memoryview) -> None:
    while data:
        written = os.write(handle, data)
        if written <= 0:
            raise OSError(errno.EIO, "The file system took no bytes")
        data = data[written:]


def _changed(upload: str) -> OSError:
    return OSError(errno.EIO, "The temporary upload changed while it was saved", escape(upload))
