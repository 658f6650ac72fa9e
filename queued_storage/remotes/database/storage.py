"""Files in the tables of a database."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urljoin

from django.core.files.base import File
from django.core.files.utils import validate_file_name
from django.db import DatabaseError, IntegrityError, connections, transaction
from django.db.models import Exists, Max, OuterRef, QuerySet
from django.db.models.functions import Now
from django.utils.encoding import filepath_to_uri

from queued_storage.exceptions import ErrorKind, MismatchError, StorageConfigurationError
from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.remotes.database.errors import is_of_the_connection, kind_of
from queued_storage.remotes.database.models import StoredChunk, StoredFile, key_of
from queued_storage.remotes.streamed import content_type_of, missing, taken
from queued_storage.remotes.streams import Source, only_reading, remote_file
from queued_storage.remotes.times import django_time

logger = logging.getLogger("queued_storage")

#: Chunks of one statement; with chunks of 256 KiB it stays below the packet limit of an untuned MySQL.
BATCH = 4

UTC = timezone.utc


class DatabaseStorage(RemoteStorage):
    """Files in the tables of the app ``queued_storage.remotes.database``, in the database ``using``.

    ``base_url`` is the address below which a view of yours serves the files. ``chunk_size`` is for new files.
    """

    def __init__(self, using: str = "default", *, base_url: str | None = None, chunk_size: int = 256 * 1024) -> None:
        if not 0 < chunk_size <= 1024 * 1024:
            raise StorageConfigurationError(
                "'chunk_size' is between 1 byte and 1 MiB: larger ones exceed packet limits."
            )
        self._using = using
        self._base_url = base_url
        self._chunk_size = chunk_size

    def __repr__(self) -> str:
        return f"<DatabaseStorage {self._using}>"

    def stat(self, name: str) -> Stat | None:
        """Return the size and the SHA-256 that was taken while the bytes were written."""
        found = self._find(name)
        return None if found is None else Stat(found.size, {"sha256": found.sha256})

    def exists(self, name: str) -> bool:
        """Return whether ``name`` is stored; raises if the database cannot tell."""
        return self._find(name) is not None

    def size(self, name: str) -> int:
        """Return the size in bytes, or raise ``FileNotFoundError``."""
        return self._get(name).size

    def get_created_time(self, name: str) -> datetime:
        """Return when the file was written, by the database's clock, or raise ``FileNotFoundError``."""
        created = self._get(name).created_at
        # Without USE_TZ the clock of PostgreSQL comes in Django's time zone, that of the others in UTC.
        if created.tzinfo is None and connections[self._using].vendor != "postgresql":
            created = created.replace(tzinfo=UTC)
        return django_time(created) if created.tzinfo else created

    def get_modified_time(self, name: str) -> datetime:
        """Return the same as ``get_created_time()``: a file is never changed."""
        return self.get_created_time(name)

    def url(self, name: str | None) -> str:
        """Return the address below ``base_url``; raises ``ValueError`` without one."""
        if self._base_url is None:
            raise ValueError("This file is not accessible via a URL: DatabaseStorage has no 'base_url'.")
        return urljoin(self._base_url.rstrip("/") + "/", filepath_to_uri(_checked(name or "")))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of folders and files in ``path``; reads the names of all files below it."""
        prefix = path.strip("/") and path.strip("/") + "/"
        folders: dict[str, None] = {}
        files: list[str] = []
        names = self._files().filter(name__startswith=prefix).order_by("pk").values_list("name", flat=True)
        for name in names.iterator():
            head, slash, _ = name[len(prefix) :].partition("/")
            # Some databases do not tell upper from lower case here.
            if not name.startswith(prefix):
                continue
            if slash:
                folders[head] = None
            else:
                files.append(head)
        return list(folders), files

    def delete(self, name: str) -> None:
        """Delete the file and its chunks in one transaction; one that is not there is no error."""
        with transaction.atomic(using=self._using):
            found = self._find(name)
            if found is not None:
                self._files().filter(pk=found.pk).delete()
                self._chunks().filter(upload=found.upload).delete()

    def delete_leftovers(self, older_than: timedelta) -> int:
        """Delete the chunks of uploads that ended long enough ago without a file; return of how many uploads."""
        published = self._files().filter(upload=OuterRef("upload"))
        uploads = (
            self._chunks()
            .filter(~Exists(published))
            .values("upload")
            .annotate(last=Max("created_at"))
            .filter(last__lt=Now() - older_than)
            .values_list("upload", flat=True)
        )
        left = list(uploads)
        for upload in left:
            self._chunks().filter(upload=upload).delete()
        return len(left)

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Return what the database's error means, or ``None`` when it is none."""
        return kind_of(error)

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        only_reading(mode)
        found = self._get(name)
        file: File[Any] = remote_file(name, found.size, lambda offset: _Body(self._chunks(), found, offset))
        return file

    def _save(self, name: str, content: File[Any]) -> str:
        name = _checked(name)
        if self.exists(name):
            raise taken(name)
        upload = uuid.uuid4().hex
        source = Source(content, "sha256")
        try:
            count = self._write(upload, source.blocks(self._chunk_size))
            self._publish(upload, name, content_type_of(name, content), source, count)
        except IntegrityError:
            self._discard(upload)
            raise taken(name) from None
        except BaseException as error:
            # A commit whose answer was lost may still come: then these are the bytes of a file.
            if not is_of_the_connection(error):
                self._discard(upload)
            raise
        return name

    def _write(self, upload: str, blocks: Iterator[bytes]) -> int:
        count = 0
        batch: list[StoredChunk] = []
        for block in blocks:
            batch.append(StoredChunk(upload=upload, number=count, data=block))
            count += 1
            if len(batch) == BATCH:
                self._chunks().bulk_create(batch)
                batch = []
        if batch:
            self._chunks().bulk_create(batch)
        return count

    def _publish(self, upload: str, name: str, content_type: str, source: Source, count: int) -> None:
        with transaction.atomic(using=self._using):
            if self._chunks().filter(upload=upload).count() != count:
                raise MismatchError("The database did not store all the bytes that it was sent.")
            self._files().create(
                key=key_of(name),
                name=name,
                upload=upload,
                size=source.count,
                chunk_size=self._chunk_size,
                sha256=source.digest("sha256"),
                content_type=content_type,
            )

    def _discard(self, upload: str) -> None:
        try:
            self._chunks().filter(upload=upload).delete()
        except DatabaseError as error:
            logger.warning("Chunks of a broken upload were left in %r: %s", self, type(error).__name__)

    def _find(self, name: str) -> StoredFile | None:
        return self._files().filter(key=key_of(_checked(name))).first()

    def _get(self, name: str) -> StoredFile:
        found = self._find(name)
        if found is None:
            raise missing(name)
        return found

    def _files(self) -> QuerySet[StoredFile]:
        self._refresh_connection()
        return StoredFile._default_manager.using(self._using)

    def _chunks(self) -> QuerySet[StoredChunk]:
        self._refresh_connection()
        return StoredChunk._default_manager.using(self._using)

    def _refresh_connection(self) -> None:
        # After an error a dead connection stays until somebody closes it, and a worker has no requests that would.
        connection = connections[self._using]
        if connection.connection is not None and not connection.in_atomic_block and connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()


class _Body:
    """The bytes of a file from an offset on, one short query per chunk."""

    def __init__(self, chunks: QuerySet[StoredChunk], found: StoredFile, offset: int) -> None:
        self._chunks = chunks.filter(upload=found.upload)
        self._number, self._skip = divmod(offset, found.chunk_size)
        self._left = b""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none when the next chunk is not there."""
        if not self._left:
            data = self._chunks.filter(number=self._number).values_list("data", flat=True).first()
            self._left = bytes(data or b"")[self._skip :]
            self._number, self._skip = self._number + 1, 0
        piece, self._left = self._left[:size], self._left[size:]
        return piece

    def close(self) -> None:
        """Forget the chunk."""
        self._left = b""


def _checked(name: str) -> str:
    return str(validate_file_name(str(name), allow_relative_path=True))
