"""Azure Blob Storage, on django-storages.

``stat``, ``upload`` and ``sort_error`` work on any instance of django-storages' ``AzureStorage``; the class below is
that storage with names kept as they are, listings with folders, time-outs, and files that are read in a stream.
"""

from __future__ import annotations

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
from queued_storage.remotes.streams import Windows, only_reading, remote_file
from queued_storage.remotes.times import django_time

try:
    from azure.core import MatchConditions
    from azure.core.exceptions import ResourceNotFoundError
    from storages.backends.azure_storage import AzureStorage as DjangoStoragesAzure
    from storages.utils import clean_name
except (ImportError, ImproperlyConfigured) as error:
    raise missing_extra("The Azure remote", "azure") from error

from queued_storage.remotes.azure_errors import code_of, sort_error
from queued_storage.remotes.azure_upload import blob_of, create, limits_of

__all__ = ["AzureStorage", "sort_error", "stat", "upload"]


def stat(storage: Any, name: str) -> Stat | None:
    """Return size and MD5 of ``name``, or ``None`` when the server says that there is no such blob."""
    try:
        found = blob_of(storage, name).get_blob_properties(**limits_of(storage))
    except ResourceNotFoundError as error:
        # A missing container is not a missing file.
        if code_of(error) == "ContainerNotFound":
            raise
        return None
    md5 = found.content_settings.content_md5
    return Stat(found.size, {"md5": bytes(md5).hex()} if md5 else {})


def upload(storage: Any, name: str, content: Any) -> str:
    """Create the blob ``name`` from ``content`` with the storage's own content settings and return its name.

    Small files are one request, larger ones blocks of 8 MB that become visible with the last request; the server
    checks the MD5 of each. Raises ``FileExistsError`` when the name is taken, ``MismatchError`` when the bytes read
    are not those announced, a refusing ``TransferError`` for a name that Azure cannot hold, and Azure's exceptions.
    """
    # A subclass that saves in its own way knows something that this module does not.
    if type(storage)._save not in {DjangoStoragesAzure._save, AzureStorage._save}:
        if stat(storage, name) is not None:
            raise taken(name)
        return str(storage.save(name, content))
    return create(storage, name, content)


class AzureStorage(RemoteStorage, DjangoStoragesAzure):  # type: ignore[misc]  # django-storages has no type information
    """django-storages' ``AzureStorage`` with the promises of a remote.

    Takes the same options and settings, and ``connect_timeout`` (5 seconds), ``read_timeout`` (30 seconds).
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        hide_options(self, settings, "account_key", "sas_token", "connection_string")

    def get_default_settings(self) -> dict[str, Any]:
        """Return django-storages' settings and the two time-outs."""
        defaults: dict[str, Any] = super().get_default_settings()
        return {**defaults, "connect_timeout": 5, "read_timeout": 30}

    def stat(self, name: str) -> Stat | None:
        """Return size and MD5; see the function ``stat``."""
        return stat(self, name)

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Return the kind of ``error``; see the function ``sort_error``."""
        return sort_error(error)

    def exists(self, name: str) -> bool:
        """Return whether ``name`` is stored; raises if the server cannot tell."""
        return stat(self, name) is not None

    def size(self, name: str) -> int:
        """Return the size in bytes, or raise ``FileNotFoundError``."""
        return int(self._properties(name).size)

    def get_modified_time(self, name: str) -> datetime:
        """Return when the blob was written, or raise ``FileNotFoundError``."""
        return django_time(self._properties(name).last_modified)

    def listdir(self, path: str = "") -> tuple[list[str], list[str]]:
        """Return the names of folders and files in ``path``."""
        prefix = self._normalize_name(path.strip("/")).strip("/")
        folders: list[str] = []
        files: list[str] = []
        for each in self.client.walk_blobs(prefix and f"{prefix}/", **limits_of(self)):
            base = each.name.rstrip("/").rpartition("/")[2]
            (folders if each.name.endswith("/") else files).append(base)
        return folders, files

    def delete(self, name: str) -> None:
        """Delete the blob; one that is not there is no error, a container that is not there is."""
        try:
            blob_of(self, name).delete_blob(**limits_of(self))
        except ResourceNotFoundError as error:
            if code_of(error) == "ContainerNotFound":
                raise

    def _get_valid_path(self, name: str) -> str:
        # django-storages strips dots from both ends: ".a", "a." and "a" would be one blob.
        return str(self._normalize_name(clean_name(validate_file_name(str(name), allow_relative_path=True))))

    def _save(self, name: str, content: Any) -> str:
        return create(self, name, content)

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        only_reading(mode)
        found = self._properties(name)
        same = {"etag": found.etag, "match_condition": MatchConditions.IfNotModified}

        def fetch(start: int, end: int) -> bytes:
            stream = blob_of(self, name).download_blob(start, end - start, **same, **limits_of(self))
            return bytes(stream.readall())

        file: File[Any] = remote_file(name, found.size, lambda offset: Windows(fetch, found.size, offset))
        return file

    def _properties(self, name: str) -> Any:
        try:
            return blob_of(self, name).get_blob_properties(**limits_of(self))
        except ResourceNotFoundError as error:
            if code_of(error) == "ContainerNotFound":
                raise
            raise missing(name) from error
