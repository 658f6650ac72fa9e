"""Dropbox, on django-storages.

``stat``, ``upload`` and ``sort_error`` work on any instance of django-storages' ``DropboxStorage``; the class below is
that storage with errors told apart from answers, time-outs, and files that are read in a stream.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import File
from django.core.files.utils import validate_file_name

from queued_storage.exceptions import ErrorKind
from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.remotes.extras import missing_extra
from queued_storage.remotes.hiding import hide_options
from queued_storage.remotes.streamed import CheckedBody, missing, taken
from queued_storage.remotes.streams import Body, only_reading, remote_file
from queued_storage.remotes.times import django_time

try:
    from dropbox import Dropbox, exceptions, files
    from storages.backends.dropbox import DropboxStorage as DjangoStoragesDropbox
except (ImportError, ImproperlyConfigured) as error:
    raise missing_extra("The Dropbox remote", "dropbox") from error

from queued_storage.remotes.dropbox_errors import is_missing, sort_error
from queued_storage.remotes.dropbox_session import client_of, nothing_shown, session_to
from queued_storage.remotes.dropbox_upload import ContentHash, create

__all__ = ["DropboxStorage", "signs_urls", "sort_error", "stat", "upload"]

#: The addresses of Dropbox let in whoever knows them, for four hours.
signs_urls = True


def stat(storage: Any, name: str) -> Stat | None:
    """Return the size of ``name``, or ``None`` when Dropbox says that there is no such file.

    Names that differ in upper and lower case are one for Dropbox, but two for whoever saves files.
    """
    found = _metadata(storage, name)
    if not isinstance(found, files.FileMetadata):
        return None
    base = name.rpartition("/")[2]
    return Stat(found.size, is_namesake=found.name != base and found.name.casefold() == base.casefold())


def upload(storage: Any, name: str, content: Any) -> str:
    """Create the file ``name`` from ``content`` and return its name.

    Small files are one request, larger ones a session in blocks of 8 MB that becomes visible with the last. Dropbox
    checks the digest of each block. Raises ``FileExistsError`` when the name is taken, ``MismatchError`` when the bytes
    read or stored are not those announced, and Dropbox's exceptions.
    """
    # A subclass that saves in its own way knows something that this module does not.
    if type(storage)._save not in {DjangoStoragesDropbox._save, DropboxStorage._save}:
        if _metadata(storage, name) is not None:
            raise taken(name)
        return str(storage.save(name, content))
    with nothing_shown():
        create(client_of(storage), path_of(storage, name), content)
    return name


class DropboxStorage(RemoteStorage, DjangoStoragesDropbox):  # type: ignore[misc]  # no type information
    """django-storages' ``DropboxStorage`` with the promises of a remote: it never replaces a file.

    Takes the same options and settings, ``timeout`` excepted, and ``connect_timeout`` (5 seconds), ``read_timeout``
    (30 seconds) and ``server`` (another address for all of Dropbox's, for proxies and tests).
    """

    signs_urls = signs_urls

    def __init__(self, oauth2_access_token: str | None = None, **settings: Any) -> None:
        if oauth2_access_token is not None:
            settings["oauth2_access_token"] = oauth2_access_token
        super().__init__(**settings)
        # The ledger retries; a retry inside the client would only hide the cause and hold the lease.
        self.client = Dropbox(
            self.oauth2_access_token,
            max_retries_on_error=0,
            max_retries_on_rate_limit=0,
            session=session_to(self.server),
            timeout=(self.connect_timeout, self.read_timeout),
            oauth2_refresh_token=self.oauth2_refresh_token,
            app_key=self.app_key,
            app_secret=self.app_secret,
        )
        hide_options(self, settings, "oauth2_access_token", "oauth2_refresh_token", "app_key", "app_secret")

    def get_default_settings(self) -> dict[str, Any]:
        """Return django-storages' settings and ours."""
        defaults: dict[str, Any] = super().get_default_settings()
        return {**defaults, "connect_timeout": 5, "read_timeout": 30, "server": ""}

    def stat(self, name: str) -> Stat | None:
        """Return the size; see the function ``stat``."""
        return stat(self, name)

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Return the kind of ``error``; see the function ``sort_error``."""
        return sort_error(error)

    def exists(self, name: str) -> bool:
        """Return whether a file or a folder has this name; raises if Dropbox cannot tell."""
        return _metadata(self, name) is not None

    def size(self, name: str) -> int:
        """Return the size in bytes, or raise ``FileNotFoundError``."""
        return int(self._file(name).size)

    def get_modified_time(self, name: str) -> datetime:
        """Return when the file was written, or raise ``FileNotFoundError``."""
        return django_time(self._file(name).server_modified.replace(tzinfo=timezone.utc))

    def url(self, name: str | None) -> str:
        """Return an address that is good for four hours, for one request; raises ``FileNotFoundError``."""
        path = path_of(self, name or "")
        return str(_answer(lambda: self.client.files_get_temporary_link(path), name or "").link)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of folders and files in ``path``; one that is not there is empty, as in an object store."""
        place = path_of(self, path.strip("/")).rstrip("/")
        entries: list[Any] = []
        try:
            page = _answer(lambda: self.client.files_list_folder(place), path)
            entries += page.entries
            while page.has_more:
                cursor = page.cursor
                page = _answer(lambda: self.client.files_list_folder_continue(cursor), path)  # noqa: B023 - called at once
                entries += page.entries
        except FileNotFoundError:
            return [], []
        folders = [entry.name for entry in entries if isinstance(entry, files.FolderMetadata)]
        return folders, [entry.name for entry in entries if isinstance(entry, files.FileMetadata)]

    def delete(self, name: str) -> None:
        """Delete the file; one that is not there is no error."""
        try:
            _answer(lambda: self.client.files_delete_v2(path_of(self, name)), name)
        except FileNotFoundError:
            return

    def _save(self, name: str, content: Any) -> str:
        return upload(self, name, content)

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        only_reading(mode)
        found, first = self._download(path_of(self, name), name)
        # By its revision, so that a file which takes the place of this one is never mixed in.
        same = f"rev:{found.rev}"
        body = CheckedBody(first, found.size, found.content_hash or "", ContentHash()) if found.content_hash else first
        file: File[Any] = remote_file(name, found.size, lambda at: self._download(same, name, at)[1], body)
        return file

    def _download(self, path: str, name: str, offset: int = 0) -> tuple[Any, Body]:
        client = self.client.clone(headers={"Range": f"bytes={offset}-"}) if offset else self.client
        found, answer = _answer(lambda: client.files_download(path), name)
        return found, answer.raw

    def _file(self, name: str) -> Any:
        found = _metadata(self, name)
        if not isinstance(found, files.FileMetadata):
            raise missing(name)
        return found


def path_of(storage: Any, name: str) -> str:
    """Return the path of ``name``; raises ``SuspiciousFileOperation`` for a name that leaves its directory."""
    if name:
        validate_file_name(str(name), allow_relative_path=True)
    return str(storage._full_path(name))


def _metadata(storage: Any, name: str) -> Any:
    try:
        return _answer(lambda: client_of(storage).files_get_metadata(path_of(storage, name)), name)
    except FileNotFoundError:
        return None


def _answer(call: Callable[[], Any], name: str) -> Any:
    with nothing_shown():
        try:
            return call()
        except exceptions.ApiError as error:
            if is_missing(error):
                raise missing(name) from None
            raise
