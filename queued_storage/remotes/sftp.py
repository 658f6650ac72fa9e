"""SFTP, on django-storages and paramiko.

``stat``, ``upload`` and ``sort_error`` work on any instance of django-storages' ``SFTPStorage``; the class below is
that storage with time-outs, checked host keys, a connection per thread, and files that are read in a stream.
"""

from __future__ import annotations

import contextlib
import os
import stat as modes
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urljoin

from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import File
from django.utils.encoding import filepath_to_uri

from queued_storage.exceptions import ErrorKind, TransferError
from queued_storage.names import STAGING_DIRECTORY
from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.remotes.extras import missing_extra
from queued_storage.remotes.hiding import hide_options
from queued_storage.remotes.registry import Ours
from queued_storage.remotes.spelling import spelling_of
from queued_storage.remotes.streamed import missing, taken
from queued_storage.remotes.streams import only_reading, remote_file

try:
    import paramiko
    from storages.backends.sftpstorage import SFTPStorage as DjangoStoragesSFTP
except (ImportError, ImproperlyConfigured) as error:
    raise missing_extra("The SFTP remote", "sftp") from error

from queued_storage.remotes.sftp_upload import attributes, checked, create, staging_of

READ_AHEAD = 2 * 1024 * 1024


def stat(storage: Any, name: str) -> Stat | None:
    """Return the size of ``name``, or ``None`` when the server says that there is no such file."""
    path = storage._remote_path(checked(name))
    found = attributes(storage, path)
    if found is None or modes.S_ISDIR(found.st_mode or 0):
        return None
    is_namesake = spelling_of(storage).is_namesake(
        path, lambda other: attributes(storage, other) is not None, lambda folder: storage.sftp.listdir(folder or ".")
    )
    return Stat(found.st_size, is_namesake=is_namesake)


def upload(storage: Any, name: str, content: Any) -> str:
    """Write ``content`` to the staging directory, then rename it to ``name``, which it returns.

    Mode and owner are those that the storage would set. Raises ``FileExistsError`` when the name is taken,
    ``MismatchError`` when the bytes read or stored are not those announced, and paramiko's exceptions.
    """
    # A subclass that saves in its own way knows something that this module does not.
    if type(storage)._save not in {DjangoStoragesSFTP._save, SFTPStorage._save}:
        if storage.exists(name):
            raise taken(name)
        return str(storage.save(name, content))
    return create(storage, checked(name), content)


def sort_error(error: BaseException) -> ErrorKind | None:
    """Return the kind of an error raised by paramiko, or ``None`` when it is not one of paramiko's."""
    if isinstance(error, TransferError):
        return error.kind
    if isinstance(error, (paramiko.AuthenticationException, paramiko.BadHostKeyException, PermissionError)):
        return ErrorKind.DENIED
    if isinstance(error, paramiko.SSHException):
        return ErrorKind.DENIED if "known_hosts" in str(error) else ErrorKind.PASSING
    if isinstance(error, (EOFError, TimeoutError, ConnectionError, paramiko.ssh_exception.NoValidConnectionsError)):
        return ErrorKind.PASSING
    # "Failure", without a number, is the protocol's answer to a full disk and to much else.
    return ErrorKind.PASSING if isinstance(error, OSError) and error.errno is None else None


def remove_leftovers(storage: Any, older_than: timedelta, limit: int, ours: Ours) -> int:
    """Do as ``delete_leftovers`` and return how many there were: all that lies there is ours."""
    return len(delete_leftovers(storage, older_than, limit))


def delete_leftovers(storage: Any, older_than: timedelta, limit: int | None = None) -> list[str]:
    """Delete what killed processes left in the staging directory, by the server's times, and say what it was."""
    before = (datetime.now(timezone.utc) - older_than).timestamp()
    deleted: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        for entry in storage.sftp.listdir_attr(staging_of(storage)):
            if len(deleted) == limit:
                break
            if (entry.st_mtime or before) < before:
                storage.sftp.remove(f"{staging_of(storage)}/{entry.filename}")
                deleted.append(str(entry.filename))
    return deleted


class SFTPStorage(RemoteStorage, DjangoStoragesSFTP):  # type: ignore[misc]  # django-storages has no type information
    """django-storages' ``SFTPStorage`` with the promises of a remote.

    Takes the same options and settings, and ``connect_timeout`` (5 seconds), ``read_timeout`` (30 seconds) and
    ``accept_new_host_keys``: unless it is on, a server whose key is not in ``known_host_file`` is not spoken to.
    """

    def __init__(self, **settings: Any) -> None:
        self._own = threading.local()
        super().__init__(**settings)
        hide_options(self, settings, "params")

    def get_default_settings(self) -> dict[str, Any]:
        """Return django-storages' settings and ours."""
        defaults: dict[str, Any] = super().get_default_settings()
        return {**defaults, "connect_timeout": 5, "read_timeout": 30, "accept_new_host_keys": False}

    @property
    def sftp(self) -> paramiko.SFTPClient:
        """This thread's connection; a new one after a fork, or when the old one is dead."""
        own = self._own
        if getattr(own, "pid", None) == os.getpid() and own.transport.is_active():
            client: paramiko.SFTPClient = own.client
            return client
        # One that failed may be in the middle of an answer.
        self.forget_connection()
        own.ssh = self._connected()
        own.transport, own.pid = own.ssh.get_transport(), os.getpid()
        own.client = own.ssh.open_sftp()
        channel = own.client.get_channel()
        assert channel is not None
        channel.settimeout(self.read_timeout)
        return self.sftp

    def forget_connection(self) -> None:
        """Close this thread's connection; the next call makes a new one."""
        if getattr(self._own, "pid", None) == os.getpid():
            self._own.ssh.close()
        self._own.pid = None

    def close(self) -> None:
        """Close this thread's connection."""
        self.forget_connection()

    def stat(self, name: str) -> Stat | None:
        """Return the size; see the function ``stat``."""
        with self._dropped_on_error():
            return stat(self, name)

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Return the kind of ``error``; see the function ``sort_error``."""
        return sort_error(error)

    def exists(self, name: str) -> bool:
        """Return whether a file or a directory has this name; raises if the server cannot tell."""
        with self._dropped_on_error():
            return attributes(self, self._remote_path(checked(name))) is not None

    def size(self, name: str) -> int:
        """Return the size in bytes, or raise ``FileNotFoundError``."""
        found = self.stat(name)
        if found is None or found.size is None:
            raise missing(name)
        return found.size

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of folders and files in ``path``; one that is not there is empty, as in an object store."""
        folders: list[str] = []
        files: list[str] = []
        with self._dropped_on_error(), contextlib.suppress(FileNotFoundError):
            for entry in self.sftp.listdir_attr(self._remote_path(path.strip("/")) or "."):
                if entry.filename != STAGING_DIRECTORY:
                    (folders if modes.S_ISDIR(entry.st_mode or 0) else files).append(entry.filename)
        return folders, files

    def delete(self, name: str) -> None:
        """Delete the file; one that is not there is no error."""
        with self._dropped_on_error(), contextlib.suppress(FileNotFoundError):
            self.sftp.remove(self._remote_path(checked(name)))

    def url(self, name: str | None) -> str:
        """Return the address below ``base_url``; raises ``ValueError`` without one."""
        if not self.base_url:
            raise ValueError("This file is not accessible via a URL: SFTPStorage has no 'base_url'.")
        return urljoin(f"{self.base_url}".rstrip("/") + "/", filepath_to_uri(checked(name or "")))

    def _save(self, name: str, content: Any) -> str:
        with self._dropped_on_error():
            return create(self, checked(name), content)

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        only_reading(mode)
        size = self.size(name)
        file: File[Any] = remote_file(name, size, lambda offset: _Body(self, name, size, offset))
        return file

    def _connected(self) -> paramiko.SSHClient:
        ssh = paramiko.SSHClient()
        known = self.known_host_file or os.path.expanduser("~/.ssh/known_hosts")
        if os.path.exists(known):
            ssh.load_host_keys(known)
        ssh.set_missing_host_key_policy(
            paramiko.AutoAddPolicy() if self.accept_new_host_keys else paramiko.RejectPolicy()
        )
        limits = dict.fromkeys(["timeout", "banner_timeout", "auth_timeout"], self.connect_timeout)
        try:
            ssh.connect(self.host, **{**limits, "channel_timeout": self.read_timeout, **self.params})
        except BaseException:
            ssh.close()
            raise
        return ssh

    @contextlib.contextmanager
    def _dropped_on_error(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError, PermissionError):
            raise
        except BaseException:
            self.forget_connection()
            raise


class _Body:
    """The bytes of a file from an offset on, a few requests at a time."""

    def __init__(self, storage: SFTPStorage, name: str, size: int, offset: int) -> None:
        self._file = storage.sftp.open(storage._remote_path(checked(name)), "rb")
        self._position, self._size = offset, size
        self._left = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        if not self._left and self._position < self._size:
            # Not prefetch(): it reads the whole file into memory when nobody consumes it.
            window = (self._position, min(READ_AHEAD, self._size - self._position))
            block = b"".join(self._file.readv([window]))
            self._left, self._position = memoryview(block), self._position + len(block)
        piece, self._left = self._left[:size], self._left[size:]
        return bytes(piece)

    def close(self) -> None:
        """Close the file on the server."""
        self._file.close()
