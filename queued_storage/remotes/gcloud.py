"""Google Cloud Storage, on django-storages.

``stat``, ``upload`` and ``sort_error`` work on any instance of django-storages' ``GoogleCloudStorage``; the class below
is that storage with time-outs, without hidden retries, and with files that are read in a stream.
"""

from __future__ import annotations

import base64
import mimetypes
from datetime import datetime
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import File
from django.core.files.utils import validate_file_name

from queued_storage.exceptions import ErrorKind
from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.remotes.extras import missing_extra
from queued_storage.remotes.hiding import hide_options
from queued_storage.remotes.streamed import missing, taken
from queued_storage.remotes.streams import Source, Windows, remote_file
from queued_storage.remotes.times import django_time

try:
    from google.api_core.exceptions import NotFound, PreconditionFailed
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client
    from storages.backends.gcloud import GoogleCloudStorage as DjangoStoragesGoogle
    from storages.utils import clean_name
except (ImportError, ImproperlyConfigured) as error:
    raise missing_extra("The Google Cloud Storage remote", "google") from error

from queued_storage.remotes.gcloud_errors import is_bucket_missing, sort_error
from queued_storage.remotes.gcloud_upload import CHUNK, send

__all__ = ["GoogleCloudStorage", "sort_error", "stat", "upload"]


def stat(storage: Any, name: str) -> Stat | None:
    """Return size and MD5 of ``name``, or ``None`` when the server says that there is no such object.

    The size of an object that the storage compressed is left out.
    """
    blob = _found(storage, name)
    if blob is None:
        return None
    # The client decompresses these on reading, so the server's figures are not those of the bytes that readers get.
    if storage.gzip and blob.content_encoding == "gzip":
        return Stat(None)
    return Stat(blob.size, {"md5": base64.b64decode(blob.md5_hash).hex()} if blob.md5_hash else {})


def upload(storage: Any, name: str, content: Any) -> str:
    """Create the object ``name`` from ``content`` with the storage's own parameters and return its name.

    Small files are one request, larger ones a resumable upload in chunks of 8 MB that becomes visible with the last.
    Raises ``FileExistsError`` when the name is taken, ``MismatchError`` when the bytes read are not those announced,
    and Google's exceptions.
    """
    # A subclass that saves in its own way knows something that this module does not.
    if type(storage)._save not in {DjangoStoragesGoogle._save, GoogleCloudStorage._save}:
        if stat(storage, name) is not None:
            raise taken(name)
        return str(storage.save(name, content))
    return _create(storage, name, content)


class GoogleCloudStorage(RemoteStorage, DjangoStoragesGoogle):  # type: ignore[misc]  # no type information
    """django-storages' ``GoogleCloudStorage`` with the promises of a remote: it never replaces an object.

    Takes the same options and settings, and ``connect_timeout`` (5 seconds), ``read_timeout`` (30 seconds),
    ``api_endpoint`` (another address of the service) and ``anonymous`` (no credentials, for emulators).
    """

    _client: Any

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        hide_options(self, settings)

    def get_default_settings(self) -> dict[str, Any]:
        """Return django-storages' settings and ours; names are never overwritten by default."""
        defaults: dict[str, Any] = super().get_default_settings()
        ours = {
            "file_overwrite": False,
            "connect_timeout": 5,
            "read_timeout": 30,
            "api_endpoint": "",
            "anonymous": False,
        }
        return {**defaults, **ours}

    @property
    def client(self) -> Client:
        """The client of this storage; it is made when it is needed."""
        # Google's credentials have no types of their own.
        anonymous: Any = AnonymousCredentials
        if self._client is None and (self.anonymous or self.api_endpoint):
            self._client = Client(
                project=self.project_id or ("anonymous" if self.anonymous else None),
                credentials=anonymous() if self.anonymous else self.credentials,
                client_options={"api_endpoint": self.api_endpoint} if self.api_endpoint else None,
            )
        return super().client

    def stat(self, name: str) -> Stat | None:
        """Return size and MD5; see the function ``stat``."""
        return stat(self, name)

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Return the kind of ``error``; see the function ``sort_error``."""
        return sort_error(error)

    def exists(self, name: str) -> bool:
        """Return whether ``name`` is stored; raises if the server cannot tell."""
        return _found(self, name) is not None

    def size(self, name: str) -> int:
        """Return the size in bytes, or raise ``FileNotFoundError``."""
        return int(self._blob(name).size)

    def get_modified_time(self, name: str) -> datetime:
        """Return when the object was written, or raise ``FileNotFoundError``."""
        return django_time(self._blob(name).updated)

    def get_created_time(self, name: str) -> datetime:
        """Return when the object was made, or raise ``FileNotFoundError``."""
        return django_time(self._blob(name).time_created)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of folders and files in ``path``."""
        prefix = self._normalize_name(path.strip("/")).strip("/")
        found = self.bucket.list_blobs(prefix=prefix and f"{prefix}/", delimiter="/", **limits_of(self))
        files = [blob.name.rpartition("/")[2] for blob in found]
        return [each.rstrip("/").rpartition("/")[2] for each in found.prefixes], [name for name in files if name]

    def delete(self, name: str) -> None:
        """Delete the object; one that is not there is no error, a bucket that is not there is."""
        try:
            self.bucket.delete_blob(key_of(self, name), **limits_of(self))
        except NotFound as error:
            if is_bucket_missing(error):
                raise

    def _save(self, name: str, content: Any) -> str:
        return _create(self, name, content)

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        if mode != "rb" or self.gzip:
            theirs: File[Any] = super()._open(name, mode)
            return theirs
        blob = self._blob(name)
        same = {"if_generation_match": blob.generation, "raw_download": True, "checksum": None, **limits_of(self)}

        def fetch(start: int, end: int) -> bytes:
            return bytes(self.bucket.blob(blob.name).download_as_bytes(start=start, end=end - 1, **same))

        file: File[Any] = remote_file(name, blob.size, lambda offset: Windows(fetch, blob.size, offset))
        return file

    def _blob(self, name: str) -> Any:
        blob = _found(self, name)
        if blob is None:
            raise missing(name)
        return blob


def limits_of(storage: Any) -> dict[str, Any]:
    """Return the time-outs of a request, and that it is not repeated: the ledger does that."""
    return {"timeout": (getattr(storage, "connect_timeout", 5), getattr(storage, "read_timeout", 30)), "retry": None}


def key_of(storage: Any, name: str) -> str:
    """Return the key of ``name``; raises ``SuspiciousFileOperation`` for a name that leaves its directory."""
    return str(storage._normalize_name(clean_name(validate_file_name(str(name), allow_relative_path=True))))


def _found(storage: Any, name: str) -> Any:
    blob = storage.bucket.blob(key_of(storage, name))
    try:
        blob.reload(**limits_of(storage))
    except NotFound as error:
        # A missing bucket is not a missing file.
        if is_bucket_missing(error):
            raise
        return None
    return blob


def _create(storage: Any, name: str, content: Any) -> str:
    key = key_of(storage, name)
    parameters = storage.get_object_parameters(key)
    guessed, encoding = mimetypes.guess_type(key)
    if encoding:
        parameters.setdefault("content_encoding", encoding)
    type_ = parameters.pop("content_type", None) or getattr(content, "content_type", None) or guessed
    if storage.gzip and type_ in storage.gzip_content_types and "content_encoding" not in parameters:
        if stat(storage, name) is not None:
            raise taken(name)
        return str(DjangoStoragesGoogle._save(storage, name, content))
    arguments = {"predefined_acl": parameters.pop("acl", storage.default_acl), "content_type": type_}
    blob = storage.bucket.blob(key, chunk_size=CHUNK)
    for attribute, value in parameters.items():
        setattr(blob, attribute, value)
    try:
        send(blob, Source(content), {**arguments, **limits_of(storage)})
    except PreconditionFailed:
        raise taken(name) from None
    return str(clean_name(name))
