"""FTP, with or without TLS, on the standard library alone."""

from __future__ import annotations

import contextlib
import ftplib
import hashlib
import logging
import os
import ssl
import time
import uuid
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from django.core.files.base import File
from django.core.files.utils import validate_file_name
from django.utils import timezone
from django.utils.encoding import filepath_to_uri

from queued_storage.exceptions import ErrorKind, MismatchError, StorageConfigurationError
from queued_storage.names import STAGING_DIRECTORY
from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.remotes.ftp_answers import Entry, is_missing, kind_of
from queued_storage.remotes.ftp_session import Body, Server, Session
from queued_storage.remotes.hiding import Hidden
from queued_storage.remotes.registry import Ours
from queued_storage.remotes.spelling import spelling_of
from queued_storage.remotes.streamed import missing, taken
from queued_storage.remotes.streams import Source, only_reading, remote_file
from queued_storage.remotes.times import django_time

logger = logging.getLogger("queued_storage")

#: A lock is held for three commands; one that is this old belongs to a process that died.
STALE_LOCK = timedelta(minutes=10)


class FTPStorage(RemoteStorage):
    """Files below ``root`` on an FTP server.

    ``location`` is ``ftp://user:password@host:port/root``, or ``ftps://`` for TLS; each part may be an option of its
    own. ``user`` and ``password`` may also come from ``FTP_STORAGE_USER`` and ``FTP_STORAGE_PASSWORD``. With
    ``ca_file`` the server's certificate is checked against it instead of the system's authorities; ``verify=False``
    checks nothing. Names are UTF-8 unless ``encoding`` says otherwise. ``base_url`` is the public address of ``root``.
    Time-outs are in seconds, per connection and per read or write.
    """

    def __init__(
        self,
        location: str = "",
        base_url: str | None = None,
        encoding: str = "utf-8",
        *,
        host: str = "",
        port: int = 0,
        user: str = "",
        password: str = "",
        root: str = "",
        tls: bool | None = None,
        ca_file: str | None = None,
        verify: bool = True,
        passive: bool = True,
        connect_timeout: float = 5,
        read_timeout: float = 30,
    ) -> None:
        parts = urlsplit(location)
        if parts.scheme not in {"", "ftp", "ftps"} or not (host or parts.hostname):
            raise StorageConfigurationError("FTPStorage needs 'host', or a 'location' like 'ftp://host/folder'.")
        secret = password or unquote(parts.password or "") or os.environ.get("FTP_STORAGE_PASSWORD", "")
        name = user or unquote(parts.username or "") or os.environ.get("FTP_STORAGE_USER", "")
        self._server = Server(
            host or str(parts.hostname),
            port or parts.port or 21,
            name or "anonymous",
            Hidden(secret or ("" if name else "anonymous@")),
            _context(ca_file, verify) if (parts.scheme == "ftps" if tls is None else tls) else None,
            passive,
            encoding,
            connect_timeout,
            read_timeout,
        )
        self._root = (root or unquote(parts.path)).rstrip("/") or "."
        self._base_url = base_url
        self._is_staged = False

    def __repr__(self) -> str:
        return f"<FTPStorage {self._server.host}:{self._server.port} {self._root}>"

    def stat(self, name: str) -> Stat | None:
        """Return the size; FTP has no digest that servers agree on."""
        path = self._path(name)
        with Session(self._server) as session:
            entry = session.entry(path)
            if entry is None or entry.is_folder:
                return None
            is_namesake = spelling_of(self).is_namesake(
                path,
                lambda other: session.entry(other) is not None,
                lambda folder: [each.name for each in session.entries(folder)],
            )
        return Stat(entry.size, is_namesake=is_namesake)

    def exists(self, name: str) -> bool:
        """Return whether a file or a directory has this name; raises if the server cannot tell."""
        return self._entry(name) is not None

    def size(self, name: str) -> int:
        """Return the size in bytes, or raise ``FileNotFoundError``."""
        stat = self.stat(name)
        if stat is None or stat.size is None:
            raise missing(name)
        return stat.size

    def get_modified_time(self, name: str) -> datetime:
        """Return when the file was written; raises ``NotImplementedError`` where the server does not say."""
        entry = self._entry(name)
        if entry is None:
            raise missing(name)
        if entry.modified is None:
            raise NotImplementedError("This FTP server does not tell when a file was written.")
        return django_time(entry.modified)

    def url(self, name: str | None) -> str:
        """Return the address below ``base_url``; raises ``ValueError`` without one."""
        if self._base_url is None:
            raise ValueError("This file is not accessible via a URL: FTPStorage has no 'base_url'.")
        return urljoin(self._base_url.rstrip("/") + "/", filepath_to_uri(self._checked(name or "")))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of folders and files in ``path``; one that is not there is empty, as in an object store."""
        folder = self._path(path.strip("/")) if path.strip("/") else self._root
        with Session(self._server) as session:
            try:
                entries = session.entries(folder)
            except ftplib.error_perm as error:
                if not is_missing(error) and session.entry(folder) is not None:
                    raise
                return [], []
        shown = [entry for entry in entries if entry.name != STAGING_DIRECTORY]
        return [each.name for each in shown if each.is_folder], [each.name for each in shown if not each.is_folder]

    def delete(self, name: str) -> None:
        """Delete the file; one that is not there is no error."""
        path = self._path(name)
        with Session(self._server) as session:
            try:
                session.command(f"DELE {path}")
            except ftplib.error_perm:
                if session.entry(path) is not None:
                    raise

    def remove_leftovers(self, older_than: timedelta, limit: int, ours: Ours) -> int:
        """Do as ``delete_leftovers`` and return how many there were: all that lies there is ours."""
        return len(self.delete_leftovers(older_than, limit))

    def delete_leftovers(self, older_than: timedelta, limit: int | None = None) -> list[str]:
        """Delete what killed processes left in the staging directory, by the server's times, and say what it was."""
        deleted: list[str] = []
        before = timezone.now() - older_than
        with Session(self._server) as session:
            if session.entry(self._staging) is None:
                return []
            for entry in session.entries(self._staging):
                if len(deleted) == limit:
                    break
                if entry.modified is not None and entry.modified < before:
                    session.command(f"{'RMD' if entry.is_folder else 'DELE'} {self._staging}/{entry.name}")
                    deleted.append(entry.name)
        return deleted

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Return what the server's answer means; errors of the network are left to the general rules."""
        return kind_of(error)

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        only_reading(mode)
        path = self._path(name)
        session = Session(self._server)
        try:
            entry = session.entry(path)
            if entry is None or entry.is_folder or entry.size is None:
                raise missing(name)
        except BaseException:
            session.close()
            raise

        def fetch(offset: int) -> Body:
            return Body(Session(self._server), path, offset)

        file: File[Any] = remote_file(name, entry.size, fetch, Body(session, path, 0))
        return file

    def _save(self, name: str, content: File[Any]) -> str:
        path = self._path(name)
        # What must be taken back if something fails, once the connection is closed: some servers allow only one.
        owed: list[str] = []
        try:
            with Session(self._server) as session:
                if session.entry(path) is not None:
                    raise taken(name)
                part = f"{self._staging}/{uuid.uuid4().hex}.part"
                owed.append(f"DELE {part}")
                self._store(session, part, Source(content))
                lock = self._lock(session, path, part)
                owed.append(f"RMD {lock}")
                if session.entry(path) is not None:
                    raise taken(name)
                _rename(session, part, path)
                session.command(f"RMD {lock}")
        except BaseException:
            self._clean_up(owed)
            raise
        return name

    def _store(self, session: Session, part: str, source: Source) -> None:
        if not self._is_staged:
            _make_folders(session, self._staging)
            self._is_staged = True
        try:
            session.store(part, source.blocks())
        except ftplib.error_perm:
            # Somebody may have cleaned up.
            self._is_staged = False
            raise
        entry = session.entry(part)
        if entry is None or entry.size not in {None, source.count}:
            raise MismatchError(f"The server did not store the {source.count} bytes that it was sent.")

    def _lock(self, session: Session, path: str, part: str) -> str:
        # Most servers replace a file on RNTO; making a directory is the one thing that only one of two clients can do.
        # For some, upper and lower case are the same: then two spellings are one file.
        lock = f"{self._staging}/{hashlib.sha256(path.casefold().encode()).hexdigest()}.lock"
        end = time.monotonic() + self._server.read_timeout
        while True:
            try:
                session.command(f"MKD {lock}")
                return lock
            except ftplib.error_perm:
                if time.monotonic() > end:
                    raise
                if _is_stale(session.entry(lock), session.entry(part)):
                    with contextlib.suppress(ftplib.error_perm):
                        session.command(f"RMD {lock}")
                time.sleep(0.05)

    def _clean_up(self, commands: list[str]) -> None:
        if not commands:
            return
        try:
            with Session(self._server) as session:
                for command in commands:
                    with contextlib.suppress(ftplib.error_perm):
                        session.command(command)
        except (OSError, EOFError, ftplib.Error) as error:
            logger.warning("Something was left in the staging directory of %r: %s", self, type(error).__name__)

    def _entry(self, name: str) -> Entry | None:
        path = self._path(name)
        with Session(self._server) as session:
            return session.entry(path)

    @property
    def _staging(self) -> str:
        return f"{self._root}/{STAGING_DIRECTORY}"

    def _path(self, name: str) -> str:
        return f"{self._root}/{self._checked(name)}"

    def _checked(self, name: str) -> str:
        return str(validate_file_name(str(name), allow_relative_path=True))


def _context(ca_file: str | None, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_stale(lock: Entry | None, part: Entry | None) -> bool:
    # Both times are the server's: its clock may be anywhere.
    if lock is None or part is None or lock.modified is None or part.modified is None:
        return False
    return part.modified - lock.modified > STALE_LOCK


def _rename(session: Session, part: str, path: str) -> None:
    try:
        session.command(f"RNFR {part}")
        session.command(f"RNTO {path}")
    except ftplib.error_perm:
        _make_folders(session, path.rpartition("/")[0])
        session.command(f"RNFR {part}")
        session.command(f"RNTO {path}")


def _make_folders(session: Session, path: str) -> None:
    steps = path.split("/")
    for depth in range(1, len(steps) + 1):
        # Most of them exist; what really fails is seen by the command that needs the folder.
        with contextlib.suppress(ftplib.error_perm):
            session.command(f"MKD {'/'.join(steps[:depth]) or '/'}")
