"""``QueuedStorage`` and the named classes: Django's storage API over the ledger."""

from __future__ import annotations

import contextvars
import warnings
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from django.core.files.base import File
from django.core.files.storage import Storage
from django.utils import timezone

from queued_storage import access, copying, ledger, legacy, links, listing, locations, publishing, saving, tasks
from queued_storage.digests import Body, parse_digests
from queued_storage.locations import Location
from queued_storage.models import Side, State, TransferRecord
from queued_storage.names import alternative_name, clean_name, escape, fit, record_key
from queued_storage.pairs import StoragePair

_max_length: contextvars.ContextVar[int | None] = contextvars.ContextVar("queued_storage_max_length", default=None)


class QueuedStorage(StoragePair):
    """Save files to a fast local storage and have Celery move them to a remote one.

    No method of a recorded file calls the remote, except to read its bytes or its access time. Every method takes a
    name through ``queued_storage.names.clean_name`` first and raises what that raises, before anything else happens.
    """

    # Saving

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Save ``content`` and return the name under which it is known, as Django's storages do.

        The bytes are durable locally and the record is written in the caller's transaction when this returns; the
        message goes out after the commit. Raises, and leaves nothing, if either cannot be done.
        """
        name = content.name if name is None else name
        if name is None:
            raise ValueError("save() needs a name: give one, or save a file that has one.")
        if not hasattr(content, "chunks"):
            content = File(content, name)
        name = fit(name)
        # Our own answer to a taken name needs no look before the insert; a subclass may have other ideas.
        if type(self).get_available_name is not QueuedStorage.get_available_name or _longer(name, max_length):
            name = self.get_available_name(name, max_length=max_length)
        token = _max_length.set(max_length)
        try:
            return self._save(clean_name(name), content)
        finally:
            _max_length.reset(token)

    def _save(self, name: str, content: Any) -> str:
        return saving.save(self, name, content, _max_length.get())

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """Return ``name`` if it is free, else another one that fits ``max_length``.

        Raises ``SuspiciousFileOperation`` if none fits and ``FileExistsError`` after 100 tries.
        """
        wanted = available = fit(name)
        for _ in range(saving.TRIES):
            if self.is_name_available(available, max_length=max_length):
                return available
            available = clean_name(alternative_name(wanted, self.get_alternative_name, max_length))
        raise FileExistsError(f"No name beside {escape(wanted)} is free; save under another one.")

    def is_name_available(self, name: str, max_length: int | None = None) -> bool:
        """Tell whether a save would get this name: without a record, deleted ones included, and free locally."""
        name = clean_name(name)
        if _longer(name, max_length):
            return False
        return self.overwrites or not (self.local.exists(name) or ledger.lookup(record_key(self.alias, name)))

    def get_valid_name(self, name: str) -> str:
        """Return the name that the local storage would make of ``name``."""
        return str(self.local.get_valid_name(name))

    # Where a file is

    def locate(self, names: Iterable[str]) -> dict[str, Location | None]:
        """Return where each of ``names`` is, with one cache round trip and one query at most; None: no record."""
        return locations.locate_many(self, [clean_name(name) for name in names])

    def find(self, name: str) -> Location:
        """Return where a file is, recorded or not; raises ``FileNotFoundError`` for a deleted or unknown one."""
        location = locations.locate(self, name) or self._unrecorded(name)
        if location is None or location.side is None:
            raise FileNotFoundError(f"No file {escape(name)} in the storage {self.alias}.")
        return location

    def _unrecorded(self, name: str) -> Location | None:
        # Put there before us, or by others: local first, then the remote, which is remembered for a while.
        if self.local.exists(name):
            side = Side.LOCAL
        elif locations.recall_side(self, name) is None and not self.remote.exists(name):
            return None
        else:
            side = Side.REMOTE
            locations.remember_side(self, name, side)
        return Location(side, name, name)

    def _side(self, location: Location) -> tuple[Any, str]:
        on_remote = location.side == Side.REMOTE
        return (self.remote, location.remote_name) if on_remote else (self.local, location.local_name)

    def get_storage(self, name: str) -> Storage:
        """Return the storage that serves ``name`` now: the remote once the transfer is verified, else the local one."""
        location = locations.locate(self, clean_name(name)) or self._unrecorded(clean_name(name))
        found: Storage = self.remote if location is not None and location.side == Side.REMOTE else self.local
        return found

    def using_local(self, name: str) -> bool:
        """Tell whether ``name`` is served from the local storage."""
        return self.get_storage(name) is self.local

    def using_remote(self, name: str) -> bool:
        """Tell whether ``name`` is served from the remote."""
        return not self.using_local(name)

    def get_cache_key(self, name: str) -> str:
        """Return the cache key of ``name``."""
        return locations.cache_key(self, clean_name(name))

    # Reading

    def _open(self, name: str, mode: str = "rb") -> Any:
        name = clean_name(name)
        if set(mode) & set("wax+"):
            return self._open_for_writing(name, mode)
        file = self._read(name)
        return file if "b" in mode else copying.TextFile(file, name)

    def _open_for_writing(self, name: str, mode: str) -> saving.StagedFile:
        taken = not super().is_name_available(name) if self.overwrites else not self.is_name_available(name)
        if taken and ("x" in mode or not self.overwrites):
            raise FileExistsError(
                f"{escape(name)} exists, or was deleted lately, and the storage {self.alias} does not overwrite: "
                "save under another name, or configure overwrite=True."
            )
        content = self._read(name) if "r" in mode or ("a" in mode and taken) else None
        return saving.StagedFile(self, name, mode, content)

    def _read(self, name: str) -> Any:
        location = self.find(name)
        try:
            return self._open_either(location)
        except FileNotFoundError:
            # A reader may be slower than an overwrite and its removal: what does the ledger say now?
            record = ledger.lookup(record_key(self.alias, name))
            if record is None or record.state == State.DELETED:
                raise
            now = Location.of(record)
            if now != location:
                return self._open_either(now)
            raise locations.unavailable(record) from None

    def _open_either(self, location: Location) -> Any:
        storage, place = self._side(location)
        other = location._replace(side=Side.LOCAL if location.side == Side.REMOTE else Side.REMOTE)
        try:
            # On this host another save may have left its bytes under the name.
            if location.is_elsewhere and not self._holds(location):
                raise FileNotFoundError(f"{escape(place)} lies on the disk of {location.node}.")
            return storage.open(place, "rb")
        except Exception as error:
            # The file may move between the answer and the open, and a remote that is down may have a local twin.
            if not self._holds(other):
                raise
            storage, place = self._side(other)
            try:
                return storage.open(place, "rb")
            except FileNotFoundError:
                raise error from None

    def _holds(self, location: Location) -> bool:
        """Tell whether a side certainly holds the bytes of a file: a name there proves nothing."""
        if location.size is None or not location.digest:
            return False
        body = Body(location.size, parse_digests(location.digest))
        copy = copying.Copy(self.local, location.local_name, self.remote, location.remote_name, body)
        try:
            return bool(copy.present() if location.side == Side.REMOTE else copy.local_is_ours())
        except Exception:
            return False

    def exists(self, name: str) -> bool:
        """Tell whether there is such a file; of a recorded one without looking at either storage."""
        name = clean_name(name)
        location = locations.locate(self, name) or self._unrecorded(name)
        return location is not None and location.side is not None

    def size(self, name: str) -> int:
        """Return the size in bytes; raises ``FileNotFoundError``."""
        location = self.find(clean_name(name))
        if location.size is not None:
            return location.size
        storage, place = self._side(location)
        return int(storage.size(place))

    def url(self, name: str | None, **options: Any) -> str:
        """Return the URL of the side that serves the file now; ``options`` go to a remote's ``url()``.

        Of a private file that is still local it is a signed link to ``queued_storage.urls``, where that is included.
        With ``links=True`` it is a link to there in any case, which stays right when the file moves.
        """
        name = clean_name(name)
        location = locations.guess(self, name)
        if location.side is None:
            return str(self.remote.url(name, **options))
        # Of a file on the remote there is a link only where somebody asked for it: the remote's own is as private.
        linked = links.wanted(self) if location.side == Side.LOCAL else self.links and not links.private(self)
        if linked:
            return links.make(self, name)
        storage, place = self._side(location)
        return str(storage.url(place, **(options if location.side == Side.REMOTE else {})))

    def path(self, name: str) -> str:
        """Return the path of the file on this machine; raises ``NotImplementedError`` where its storage has none."""
        name = clean_name(name)
        location = locations.guess(self, name)
        storage, place = self._side(location if location.side else self.find(name))
        return str(storage.path(place))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """List directories and files of both sides by the names they are known by; raises ``FileNotFoundError``."""
        return listing.listdir(self, path)

    def get_accessed_time(self, name: str) -> datetime:
        """Return when the file was last read, as its storage tells it."""
        return self._time("get_accessed_time", name)

    def get_created_time(self, name: str) -> datetime:
        """Return when the file was saved."""
        return self._time("get_created_time", name)

    def get_modified_time(self, name: str) -> datetime:
        """Return when the file was saved: the body of a record never changes."""
        return self._time("get_modified_time", name)

    def _time(self, method: str, name: str) -> datetime:
        name = clean_name(name)
        record = ledger.lookup(record_key(self.alias, name))
        if record is not None and record.state != State.DELETED and method != "get_accessed_time":
            return access.local_time(record.created_at)
        storage, place = self._side(self.find(name))
        result: datetime = getattr(storage, method)(place)
        return result

    # Deleting and transferring

    def delete(self, name: str) -> None:
        """Delete a file: it is gone for readers at once, its copies are removed in the background."""
        name = clean_name(name)
        record = ledger.lookup(record_key(self.alias, name))
        if record is None:
            self._delete_unrecorded(name)
        elif ledger.delete(record.pk):
            was, record.state = record.state, State.DELETED
            locations.announce(self, record)
            # While a worker may still be sending, the removal waits for the end of its lease.
            if was != State.TRANSFERRING:
                publishing.after_commit(self, record)

    def _delete_unrecorded(self, name: str) -> None:
        self.local.delete(name)
        if self.remote.exists(name):
            self.remote.delete(name)
        locations.remember_side(self, name, None)

    def transfer(self, name: str, cache_key: str | None = None) -> Any:
        """Queue a held or failed file, or send another message for one that is owed; return the task's result.

        Returns ``None`` where nothing is owed, or the broker took no message: the sweep will send one. Raises
        ``FileNotFoundError`` for an unknown or deleted file. ``cache_key`` is accepted for 0.8 and not needed.
        """
        name = clean_name(name)
        record = ledger.lookup(record_key(self.alias, name)) or legacy.adopt(self, name)
        if record is None or record.state == State.DELETED:
            raise FileNotFoundError(f"No local file {escape(name)} in the storage {self.alias}.")
        if record.state == State.DELAYED:
            ledger.release(record.pk)
        elif record.state == State.FAILED:
            ledger.requeue(ledger.records().filter(pk=record.pk))
            record.retries = 0
        elif record.state != State.QUEUED:
            return None
        return publishing.after_commit(self, record)

    @property
    def task(self) -> Any:
        """The Celery task that moves the files of this storage."""
        return tasks.resolve(self.task_path)

    def send_to_foreign_task(self, record: TransferRecord) -> Any:
        """Call ``delay`` of the task with the six documented arguments."""
        return publishing.delay(self, record)


def _longer(name: str, max_length: int | None) -> bool:
    return max_length is not None and len(name) > max_length


def _deprecated(old: str, new: str) -> Callable[[QueuedStorage, str], datetime]:
    def method(self: QueuedStorage, name: str) -> datetime:
        warnings.warn(f"{old}() is deprecated; call {new}().", DeprecationWarning, stacklevel=2)
        value: datetime = getattr(self, new)(name)
        # Before Django 2 these returned naive local times.
        return timezone.make_naive(value) if timezone.is_aware(value) else value

    method.__name__, method.__doc__ = old, f"Deprecated alias of ``{new}()`` that returns naive local time."
    return method


for _old, _new in (
    ("accessed_time", "get_accessed_time"),
    ("created_time", "get_created_time"),
    ("modified_time", "get_modified_time"),
):
    setattr(QueuedStorage, _old, _deprecated(_old, _new))


class QueuedFileSystemStorage(QueuedStorage):
    """A queued storage whose local side is a file system that cannot lose a file."""

    local = "queued_storage.local.LocalStorage"


class QueuedS3Storage(QueuedFileSystemStorage):
    """Files go to Amazon S3, or what speaks its protocol."""

    remote = "queued_storage.remotes.s3.S3Storage"


#: The name of ``QueuedS3Storage`` in 0.8.
QueuedS3BotoStorage = QueuedS3Storage


class QueuedCouchDBStorage(QueuedFileSystemStorage):
    """Files go to CouchDB, each as the attachment of a document."""

    remote = "queued_storage.remotes.couchdb.CouchDBStorage"


class QueuedDatabaseStorage(QueuedFileSystemStorage):
    """Files go into tables of a database; needs ``queued_storage.remotes.database`` in INSTALLED_APPS."""

    remote = "queued_storage.remotes.database.storage.DatabaseStorage"


class QueuedFTPStorage(QueuedFileSystemStorage):
    """Files go to an FTP server."""

    remote = "queued_storage.remotes.ftp.FTPStorage"


class QueuedMogileFSStorage(QueuedFileSystemStorage):
    """Files go to MogileFS."""

    remote = "queued_storage.remotes.mogilefs.MogileFSStorage"


class QueuedGridFSStorage(QueuedFileSystemStorage):
    """Files go to MongoDB's GridFS."""

    remote = "queued_storage.remotes.gridfs.GridFSStorage"


class QueuedCloudFilesStorage(QueuedFileSystemStorage):
    """Files go to OpenStack Swift, of which Rackspace Cloud Files was one."""

    remote = "queued_storage.remotes.swift.SwiftStorage"


class QueuedSFTPStorage(QueuedFileSystemStorage):
    """Files go to an SFTP server."""

    remote = "queued_storage.remotes.sftp.SFTPStorage"


class QueuedAzureStorage(QueuedFileSystemStorage):
    """Files go to Azure Blob Storage."""

    remote = "queued_storage.remotes.azure.AzureStorage"


class QueuedGoogleCloudStorage(QueuedFileSystemStorage):
    """Files go to Google Cloud Storage."""

    remote = "queued_storage.remotes.gcloud.GoogleCloudStorage"


class QueuedDropboxStorage(QueuedFileSystemStorage):
    """Files go to Dropbox."""

    remote = "queued_storage.remotes.dropbox.DropboxStorage"
