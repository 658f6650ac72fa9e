"""MongoDB's GridFS, on pymongo."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote, urljoin

from django.core.files.base import File
from django.core.files.utils import validate_file_name
from django.utils.encoding import filepath_to_uri

from queued_storage.exceptions import ErrorKind, MismatchError
from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.remotes.extras import missing_extra
from queued_storage.remotes.hiding import Hidden, hidden
from queued_storage.remotes.streamed import content_type_of, missing, taken
from queued_storage.remotes.streams import Source, only_reading, remote_file
from queued_storage.remotes.times import django_time

try:
    from bson import ObjectId
    from gridfs import GridFSBucket, NoFile
    from pymongo import ASCENDING, DESCENDING, MongoClient
    from pymongo.errors import DuplicateKeyError, PyMongoError
except ImportError as error:
    raise missing_extra("GridFSStorage", "gridfs") from error

from queued_storage.remotes.gridfs_errors import forgetful, kind_of

logger = logging.getLogger("queued_storage")

CHUNK = 255 * 1024
#: Chunks travel in messages of about four megabytes.
BATCH = 16


class GridFSStorage(RemoteStorage):
    """Files in the GridFS bucket ``bucket`` of a MongoDB database.

    ``uri`` is ``mongodb://user:password@host/?...``, or comes from ``GRIDFS_URI`` in the environment. One file has a
    name at a time: a unique index over the names that this class writes sees to it. ``base_url`` is the address below
    which something else serves the files. Time-outs are in seconds, per connection and per read or write; ``options``
    are passed to ``MongoClient``.
    """

    def __init__(
        self,
        uri: str = "",
        database: str = "files",
        bucket: str = "fs",
        *,
        base_url: str | None = None,
        connect_timeout: float = 5,
        read_timeout: float = 30,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._uri, credentials = _split(uri or os.environ.get("GRIDFS_URI", "mongodb://127.0.0.1:27017"))
        self._database = database
        self._bucket_name = bucket
        self._base_url = base_url
        # The ledger retries; a retry inside the driver would only hide the cause and hold the lease.
        self._options = {
            "connectTimeoutMS": int(connect_timeout * 1000),
            "serverSelectionTimeoutMS": int(connect_timeout * 1000),
            "socketTimeoutMS": int(read_timeout * 1000),
            "retryReads": False,
            "retryWrites": False,
            **credentials,
            **hidden(options or {}),
        }
        self._lock = threading.Lock()
        self._client: MongoClient[dict[str, Any]] | None = None
        self._client_pid = 0
        self._is_indexed = False

    def __repr__(self) -> str:
        return f"<GridFSStorage {self._database}.{self._bucket_name}>"

    @forgetful
    def stat(self, name: str) -> Stat | None:
        """Return the size and the SHA-256 that was taken while the bytes were written by this class."""
        found = self._find(name)
        if found is None:
            return None
        known = (found.get("metadata") or {}).get("sha256")
        return Stat(int(found["length"]), {"sha256": known} if known else {})

    @forgetful
    def exists(self, name: str) -> bool:
        """Return whether ``name`` is stored; raises if the server cannot tell."""
        return self._find(name) is not None

    @forgetful
    def size(self, name: str) -> int:
        """Return the size in bytes, or raise ``FileNotFoundError``."""
        return int(self._get(name)["length"])

    @forgetful
    def get_modified_time(self, name: str) -> datetime:
        """Return when the file was written, or raise ``FileNotFoundError``."""
        written: datetime = self._get(name)["uploadDate"]
        return django_time(written if written.tzinfo else written.replace(tzinfo=timezone.utc))

    def url(self, name: str | None) -> str:
        """Return the address below ``base_url``; raises ``ValueError`` without one."""
        if self._base_url is None:
            raise ValueError("This file is not accessible via a URL: GridFSStorage has no 'base_url'.")
        return urljoin(self._base_url.rstrip("/") + "/", filepath_to_uri(_checked(name or "")))

    @forgetful
    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of folders and files in ``path``; a folder costs one query, however much it holds."""
        prefix = path.strip("/") and path.strip("/") + "/"
        folders: list[str] = []
        files: dict[str, None] = {}
        start: str | None = prefix
        while start is not None:
            start = self._list_from(start, prefix, folders, files)
        return folders, list(files)

    @forgetful
    def delete(self, name: str) -> None:
        """Delete the file and older ones of its name; one that is not there is no error."""
        bucket = self._bucket()
        for found in self._files.find({"filename": _checked(name)}, {"_id": 1}):
            # Somebody else may be deleting it too.
            with suppress(NoFile):
                bucket.delete(found["_id"])

    @forgetful
    def delete_leftovers(self, older_than: timedelta) -> int:
        """Delete the chunks of uploads that ended long enough ago without a file; return of how many uploads."""
        before = ObjectId.from_datetime(datetime.now(timezone.utc) - older_than)
        count = 0
        for first in self._chunks.find({"n": 0}, {"files_id": 1}):
            upload = {"files_id": first["files_id"]}
            last = self._chunks.find_one(upload, {"_id": 1}, sort=[("n", DESCENDING)])
            is_old = last is not None and last["_id"] < before
            if is_old and self._files.find_one({"_id": first["files_id"]}, {"_id": 1}) is None:
                self._chunks.delete_many(upload)
                count += 1
        return count

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Return what the server's answer means, or ``None`` when the error is not pymongo's."""
        return kind_of(error)

    @forgetful
    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        only_reading(mode)
        found = self._get(name)

        @forgetful
        def fetch(offset: int) -> Any:
            stream = self._bucket().open_download_stream(found["_id"])
            stream.seek(offset)
            return stream

        file: File[Any] = remote_file(name, int(found["length"]), fetch)
        return file

    @forgetful
    def _save(self, name: str, content: File[Any]) -> str:
        name = _checked(name)
        self._ensure_indexes()
        if self.exists(name):
            raise taken(name)
        # Nothing is found under the name before its document is there, and that comes last. The id is a new one: two
        # writers never share chunks, and neither can remove those of the other.
        identifier = ObjectId()
        try:
            document = self._write(identifier, name, content)
        except BaseException:
            self._discard(identifier)
            raise
        try:
            self._files.insert_one(document)
        except DuplicateKeyError:
            self._discard(identifier)
            raise taken(name) from None
        # Any other error may hide that the document is there, or comes yet: then the chunks are those of a file.
        return name

    def _write(self, identifier: ObjectId, name: str, content: File[Any]) -> dict[str, Any]:
        source = Source(content, "sha256")
        count = 0
        batch: list[dict[str, Any]] = []
        for block in source.blocks(CHUNK):
            batch.append({"_id": ObjectId(), "files_id": identifier, "n": count, "data": block})
            count += 1
            if len(batch) == BATCH:
                self._chunks.insert_many(batch)
                batch = []
        if batch:
            self._chunks.insert_many(batch)
        if self._chunks.count_documents({"files_id": identifier}) != count:
            raise MismatchError("The server did not store all the bytes that it was sent.")
        return {
            "_id": identifier,
            "filename": name,
            "length": source.count,
            "chunkSize": CHUNK,
            "uploadDate": datetime.now(timezone.utc),
            "metadata": {
                "queued_storage": 1,
                "sha256": source.digest("sha256"),
                "contentType": content_type_of(name, content),
            },
        }

    def _discard(self, identifier: ObjectId) -> None:
        try:
            self._chunks.delete_many({"files_id": identifier})
        except PyMongoError as error:
            logger.warning("Chunks of a broken upload were left in %r: %s", self, type(error).__name__)

    def _find(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._files.find_one(
            {"filename": _checked(name)}, sort=[("uploadDate", DESCENDING)]
        )
        return found

    def _get(self, name: str) -> dict[str, Any]:
        found = self._find(name)
        if found is None:
            raise missing(name)
        return found

    def _list_from(self, start: str, prefix: str, folders: list[str], files: dict[str, None]) -> str | None:
        # "0" follows "/": the first name that can come after everything in a folder.
        limits = {"$gte": start, **({"$lt": prefix[:-1] + "0"} if prefix else {})}
        for found in self._files.find({"filename": limits}, {"filename": 1}, sort=[("filename", ASCENDING)]):
            head, slash, _ = found["filename"][len(prefix) :].partition("/")
            if slash:
                folders.append(head)
                return f"{prefix}{head}0"
            files[head] = None
        return None

    def _ensure_indexes(self) -> None:
        if not self._is_indexed:
            self._chunks.create_index([("files_id", ASCENDING), ("n", ASCENDING)], unique=True)
            self._files.create_index([("filename", ASCENDING), ("uploadDate", ASCENDING)])
            self._files.create_index(
                [("filename", ASCENDING)],
                name="queued_storage_name",
                unique=True,
                partialFilterExpression={"metadata.queued_storage": 1},
            )
            self._is_indexed = True

    @property
    def _files(self) -> Any:
        return self._connect()[self._database][self._bucket_name].files

    @property
    def _chunks(self) -> Any:
        return self._connect()[self._database][self._bucket_name].chunks

    def _bucket(self) -> GridFSBucket:
        return GridFSBucket(self._connect()[self._database], self._bucket_name)

    def _connect(self) -> MongoClient[dict[str, Any]]:
        # A client does not survive a fork.
        with self._lock:
            if self._client is None or self._client_pid != os.getpid():
                self._client = MongoClient(self._uri, **self._options)
                self._client_pid = os.getpid()
                weakref.finalize(self, _close, self._client, self._client_pid)
            return self._client


def _close(client: MongoClient[dict[str, Any]], pid: int) -> None:
    # In a forked child the connections are still those of its parent.
    if os.getpid() == pid:
        client.close()


def _split(uri: str) -> tuple[str, dict[str, str]]:
    # Inside an address the driver would show the password in the variables of a traceback.
    scheme, _, rest = uri.partition("://")
    end = min((rest + "/").index("/"), (rest + "?").index("?"))
    userinfo, _, hosts = rest[:end].rpartition("@")
    if not userinfo:
        return uri, {}
    user, _, password = userinfo.partition(":")
    return f"{scheme}://{hosts}{rest[end:]}", {"username": unquote(user), "password": Hidden(unquote(password))}


def _checked(name: str) -> str:
    return str(validate_file_name(str(name), allow_relative_path=True))
