"""Which code speaks for which storage class when a transfer looks, uploads or meets an error."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import FileSystemStorage, Storage

from queued_storage.exceptions import ErrorKind, QueuedStorageError, TransferError
from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.remotes.spelling import spelling_of

#: Which of some names belong to files of ours that nobody is sending now.
Ours = Callable[[Collection[str]], set[str]]
#: Removes leftovers of a storage: older than this, at most so many, only ours; returns how many.
RemoveLeftovers = Callable[[timedelta, int, Ours], int]


class Adapter(Protocol):
    """What a transfer asks about a storage class; a module with these functions will do.

    One more is optional: ``remove_leftovers(storage, older_than, limit, ours)`` removes what killed uploads left behind
    and is called by the sweep once an hour; see ``RemoveLeftovers``. Storages of ours may have it as a method. Another
    one is ``refuses_taken(storage)``; see the function of that name. ``signs_urls`` (a bool) says whether the URLs of
    the class let only those in who were given them, where its attributes do not say. ``many_at_once(storage)`` says
    whether several threads may use the storage, and share its connections.
    """

    def stat(self, storage: Any, name: str) -> Stat | None:
        """Return what ``storage`` knows of ``name``; ``None`` only if it is certain that nothing is there."""

    def upload(self, storage: Any, name: str, content: Any) -> str:
        """Store ``content`` under ``name``, replacing nothing, and return the name under which it lies.

        A ``Stored`` name carries what the remote said of the bytes, which saves the look afterwards.
        """

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Return the kind of ``error``, or ``None`` to leave it to the general rules."""


class PlainAdapter:
    """Any Django storage, by the methods that all of them have."""

    def stat(self, storage: Storage, name: str) -> Stat | None:
        """Ask ``exists()`` and ``size()``; a file system also how the name is spelled there."""
        if not storage.exists(name):
            return None
        try:
            return Stat(storage.size(name), is_namesake=_is_namesake(storage, name))
        except NotImplementedError:
            return Stat(None)

    def upload(self, storage: Storage, name: str, content: Any) -> str:
        """Call ``save()``; Django says that it replaces nothing, and which name it chose."""
        return storage.save(name, content)

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Leave it to the general rules."""
        return None


def _is_namesake(storage: Storage, name: str) -> bool:
    if not isinstance(storage, FileSystemStorage):
        return False
    return spelling_of(storage).is_namesake(
        name, lambda other: os.path.lexists(storage.path(other)), lambda folder: os.listdir(storage.path(folder))
    )


class RemoteStorageAdapter(PlainAdapter):
    """Our own storages, which answer for themselves."""

    def __init__(self, storage: RemoteStorage) -> None:
        self.sort_error = storage.sort_error  # type: ignore[method-assign]
        self.refuses_taken = lambda storage: storage.refuses_taken

    def upload(self, storage: Storage, name: str, content: Any) -> str:
        """Call ``create()``; the caller has looked what is there, or the remote was seen to refuse what is taken."""
        assert isinstance(storage, RemoteStorage)
        return storage.create(name, content)

    def stat(self, storage: Storage, name: str) -> Stat | None:
        """Ask the storage itself."""
        assert isinstance(storage, RemoteStorage)
        return storage.stat(name)


_adapters: dict[str, Adapter | str] = {
    "storages.backends.azure_storage.AzureStorage": "queued_storage.remotes.azure",
    "storages.backends.dropbox.DropboxStorage": "queued_storage.remotes.dropbox",
    "storages.backends.gcloud.GoogleCloudStorage": "queued_storage.remotes.gcloud",
    "storages.backends.s3.S3Storage": "queued_storage.remotes.s3",
    "storages.backends.sftpstorage.SFTPStorage": "queued_storage.remotes.sftp",
}


def register(storage_class: str, adapter: Adapter | str) -> None:
    """Let ``adapter``, or the module of that dotted path, speak for a storage class and its subclasses.

    ``storage_class`` is a dotted path, so that nothing is imported before it is used.
    """
    _adapters[storage_class] = adapter


def adapter_for(storage: Storage) -> Adapter:
    """Return the adapter registered for the nearest class of ``storage``, else one that works with any storage."""
    for cls in type(storage).__mro__:
        adapter = _adapters.get(f"{cls.__module__}.{cls.__qualname__}")
        if adapter is not None:
            return import_module(adapter) if isinstance(adapter, str) else adapter
    return RemoteStorageAdapter(storage) if isinstance(storage, RemoteStorage) else PlainAdapter()


def leftovers_of(storage: Storage) -> RemoveLeftovers | None:
    """Return what removes leftovers of uploads from ``storage``; ``None`` where nobody knows how."""
    adapter = adapter_for(storage)
    if isinstance(adapter, RemoteStorageAdapter):
        own: RemoveLeftovers | None = getattr(storage, "remove_leftovers", None)
        return own
    remove = getattr(adapter, "remove_leftovers", None)
    return None if remove is None else partial(remove, storage)


def refuses_taken(storage: Storage) -> bool:
    """Tell whether the remote has been seen to refuse a taken name in the very request that writes.

    If so, an upload needs no look beforehand: it ends in ``FileExistsError``, and nothing was replaced.
    """
    refuses = getattr(adapter_for(storage), "refuses_taken", None)
    return refuses is not None and bool(refuses(storage))


def many_at_once(storage: Storage) -> bool:
    """Tell whether several threads may use ``storage`` at once, and none of them pays for a connection of its own."""
    if isinstance(storage, RemoteStorage):
        return storage.many_at_once
    answer = getattr(adapter_for(storage), "many_at_once", None)
    return answer is not None and bool(answer(storage))


def most_connections(storage: Storage) -> int | None:
    """Return how many connections ``storage`` keeps for its threads; ``None`` where nothing is known to bound them."""
    if isinstance(storage, RemoteStorage):
        return storage.most_connections
    answer = getattr(adapter_for(storage), "most_connections", None)
    return None if answer is None else int(answer(storage))


# Never to pass by waiting: the file or its name does not fit.
_REFUSED = {errno.EFBIG, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EINVAL}


def sort_error(error: BaseException, storage: Storage | None = None) -> ErrorKind:
    """Return what kind of error ended an attempt: by its class, by its storage's adapter, by the general rules.

    What nobody knows may pass: it is retried for ever with growing delays, never given up.
    """
    for cause in _causes(error):
        if isinstance(cause, TransferError):
            return cause.kind
        kind = adapter_for(storage).sort_error(cause) if storage is not None else None
        if kind is not None:
            return kind
        if isinstance(cause, (ImproperlyConfigured, ImportError)):
            return ErrorKind.SETTINGS
        if isinstance(cause, (TimeoutError, ConnectionError, socket.gaierror, ssl.SSLError, QueuedStorageError)):
            return ErrorKind.PASSING
        if isinstance(cause, OSError) and cause.errno in _REFUSED:
            return ErrorKind.REFUSED
        if isinstance(cause, PermissionError):
            return ErrorKind.DENIED
    return ErrorKind.PASSING


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    # Bounded: a chain of causes may be a ring.
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
