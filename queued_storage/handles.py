"""Files by directory handle: nobody can put a symbolic link in the way between a check and its use. POSIX only."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from queued_storage.names import escape

# Windows has none of these; there this module can be imported but not used.
NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
DIRECTORY: int = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
READ: int = os.O_RDONLY | NOFOLLOW | getattr(os, "O_NONBLOCK", 0)
CREATE: int = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOFOLLOW
SUPPORTED: bool = bool(NOFOLLOW) and os.link in os.supports_dir_fd


def enter(parent: int, base: str) -> int:
    """Open the directory ``base``; raises ``NotADirectoryError`` for a link and whatever else is there."""
    try:
        return os.open(base, DIRECTORY | NOFOLLOW, dir_fd=parent)
    except OSError as error:
        # What Linux calls "not a directory" here is a loop elsewhere: a symbolic link.
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), escape(base)) from error
        raise


def enter_or_make(parent: int, base: str, mode: int | None) -> tuple[int, bool]:
    """Open the directory ``base``, made with exactly ``mode`` if it is missing; return whether it was made here.

    ``None`` leaves the mode to the umask. Raises as ``enter()`` does.
    """
    try:
        return enter(parent, base), False
    except FileNotFoundError:
        pass
    try:
        os.mkdir(base, 0o777 if mode is None else mode, dir_fd=parent)
    except FileExistsError:
        return enter(parent, base), False
    handle = enter(parent, base)
    try:
        # The umask had its say in mkdir().
        if mode is not None:
            os.fchmod(handle, mode)
    except BaseException:
        close(handle)
        raise
    return handle, True


def make(path: str, mode: int | None, durable: bool) -> None:
    """Make the directory ``path`` and those above it that are missing, with exactly ``mode``."""
    above, base = os.path.split(path)
    try:
        parent = os.open(above, DIRECTORY)
    except FileNotFoundError:
        if above == path:
            raise
        make(above, mode, durable)
        parent = os.open(above, DIRECTORY)
    try:
        close(enter_or_make(parent, base, mode)[0])
        if durable:
            os.fsync(parent)
    finally:
        close(parent)


@contextmanager
def descend(location: str, path: str) -> Iterator[int]:
    """Give a handle of the directory ``path`` (clean, or empty) below ``location``, which itself may be a link."""
    handle = os.open(location, DIRECTORY)
    try:
        for part in path.split("/") if path else ():
            child = enter(handle, part)
            close(handle)
            handle = child
        yield handle
    finally:
        close(handle)


def open_regular(parent: int, base: str) -> int:
    """Open the regular file ``base`` for reading; raises ``OSError`` for anything else that sits there."""
    handle = os.open(base, READ, dir_fd=parent)
    try:
        _check_regular(os.fstat(handle), base)
    except BaseException:
        close(handle)
        raise
    return handle


def stat_regular(parent: int, base: str) -> os.stat_result:
    """Return the status of the regular file ``base``; raises ``OSError`` for anything else that sits there."""
    status = os.stat(base, dir_fd=parent, follow_symlinks=False)
    _check_regular(status, base)
    return status


def remove(parent: int, base: str) -> None:
    """Remove the file, the link itself or the empty directory ``base``."""
    try:
        os.unlink(base, dir_fd=parent)
    except (IsADirectoryError, PermissionError):
        # POSIX lets unlink() of a directory fail with either.
        if not stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
        os.rmdir(base, dir_fd=parent)


def close(handle: int) -> None:
    """Close a handle that was only read: an error here loses nothing and must not undo a save."""
    with suppress(OSError):
        os.close(handle)


def _check_regular(status: os.stat_result, base: str) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), escape(base))
    code = errno.ELOOP if stat.S_ISLNK(status.st_mode) else errno.EINVAL
    raise OSError(code, "Not a regular file, and links are not followed", escape(base))
