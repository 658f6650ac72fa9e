"""Create one file over SFTP: staged, measured, renamed to a name that is free."""

from __future__ import annotations

import logging
import posixpath
import uuid
from typing import Any

import paramiko
from django.core.files.utils import validate_file_name

from queued_storage.names import STAGING_DIRECTORY
from queued_storage.remotes.streamed import taken
from queued_storage.remotes.streams import Source

logger = logging.getLogger("queued_storage")

BLOCK = 256 * 1024


def create(storage: Any, name: str, content: Any) -> str:
    """Store ``content`` under ``name``, which is free, through the staging directory; returns the name."""
    path = storage._remote_path(name)
    if attributes(storage, path) is not None:
        raise taken(name)
    part = f"{staging_of(storage)}/{uuid.uuid4().hex}.part"
    try:
        _write(storage, part, Source(content))
        _dress(storage, part)
        _publish(storage, part, path, name)
    except BaseException:
        _discard(storage, part)
        raise
    return name


def _write(storage: Any, part: str, source: Source) -> None:
    try:
        file = storage.sftp.open(part, "wbx")
    except FileNotFoundError:
        _make_folders(storage, staging_of(storage))
        file = storage.sftp.open(part, "wbx")
    with file:
        # Without waiting for each answer; close() looks at all of them.
        file.set_pipelined(True)
        for block in source.blocks(BLOCK):
            file.write(block)
    found = attributes(storage, part)
    if found is None or found.st_size != source.count:
        # paramiko does not tell why a write without waiting failed; mostly it is a full disk, which may pass.
        raise OSError(f"The server did not store the {source.count} bytes that it was sent; is its disk full?")


def _dress(storage: Any, part: str) -> None:
    if storage.file_mode is not None:
        storage.sftp.chmod(part, storage.file_mode)
    if storage.uid or storage.gid:
        storage._chown(part, uid=storage.uid, gid=storage.gid)


def _publish(storage: Any, part: str, path: str, name: str) -> None:
    # The protocol's own rename, which fails when the name is taken; posix_rename would replace the file.
    try:
        try:
            storage.sftp.rename(part, path)
        except FileNotFoundError:
            _make_folders(storage, posixpath.dirname(path))
            storage.sftp.rename(part, path)
    except OSError:
        if attributes(storage, path) is not None:
            raise taken(name) from None
        raise


def _make_folders(storage: Any, path: str) -> None:
    steps = path.split("/")
    for depth in range(1, len(steps) + 1):
        folder = "/".join(steps[:depth])
        if folder and attributes(storage, folder) is None:
            try:
                storage.sftp.mkdir(folder)
            except OSError:
                # Somebody else made it in between.
                if attributes(storage, folder) is None:
                    raise
                continue
            if storage.dir_mode is not None:
                storage.sftp.chmod(folder, storage.dir_mode)
            if storage.uid or storage.gid:
                storage._chown(folder, uid=storage.uid, gid=storage.gid)


def _discard(storage: Any, part: str) -> None:
    try:
        storage.sftp.remove(part)
    except FileNotFoundError:
        return
    except (OSError, EOFError, paramiko.SSHException) as error:
        logger.warning("A part of an upload was left in the staging directory: %s", type(error).__name__)


def attributes(storage: Any, path: str) -> paramiko.SFTPAttributes | None:
    """Return what the server knows of ``path``, ``None`` if nothing is there."""
    try:
        found: paramiko.SFTPAttributes = storage.sftp.stat(path)
    except FileNotFoundError:
        return None
    return found


def staging_of(storage: Any) -> str:
    """Return the path of the staging directory."""
    return str(storage._remote_path(STAGING_DIRECTORY))


def checked(name: str) -> str:
    """Return ``name``; raises ``SuspiciousFileOperation`` if it leaves the storage's root."""
    return str(validate_file_name(str(name), allow_relative_path=True))
