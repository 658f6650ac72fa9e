"""Object stores at full speed: Amazon S3, Google Cloud Storage and Azure through the library obstore."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urljoin

from django.core.files.base import File
from django.core.files.storage import Storage
from django.core.files.utils import validate_file_name
from django.utils.encoding import filepath_to_uri

from queued_storage.exceptions import ErrorKind, MismatchError, StorageConfigurationError
from queued_storage.remotes.base import RemoteStorage, Stat, Stored
from queued_storage.remotes.extras import missing_extra
from queued_storage.remotes.hiding import hidden
from queued_storage.remotes.streamed import content_type_of, missing, taken
from queued_storage.remotes.streams import Source, Windows, only_reading, remote_file
from queued_storage.remotes.times import django_time

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError
    from obstore.store import from_url
except ImportError as error:
    raise missing_extra("ObjectStorage", "obstore") from error

from queued_storage.remotes.objectstore_errors import ForkedError, ObjectStoreError, kind_of, translated

MEGABYTE = 1024 * 1024
MOST_PARTS = 10_000
# The largest body that is sent twice, once in a process, to see whether the server refuses it: any small file.
LARGEST_PROOF = 1024 * 1024
READ_AHEAD = 4 * MEGABYTE
PLAIN_MD5 = re.compile(r'"?([0-9a-f]{32})"?')

# Schemes of stores that sign nothing.
UNSIGNED = {"file", "memory", "http", "https"}

# The process that used obstore first. Its threads do not survive a fork, and in a child every call waits for them.
_used_in: int | None = None


class ObjectStorage(RemoteStorage):
    """Objects below ``url``: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix``.

    ``config`` is obstore's for the store: endpoint, region, credentials; what is not there comes from the environment
    (``AWS_*``, ``GOOGLE_*``, ``AZURE_*``) or from the machine's role. ``attributes`` are headers for every object.
    ``base_url`` is the public address below which the objects can be had; without it ``url()`` signs addresses that
    are good for ``expire`` seconds. ``etag_is_md5`` says that the ETag of an object which was sent in one piece is its
    MD5, as on S3 without KMS; that of one in parts is compared as well. Time-outs are in seconds: per connection, per
    silence, per request.

    Every method raises ``ForkedError`` in a child that was forked after its parent had used an object store.
    """

    def __init__(
        self,
        url: str,
        config: dict[str, Any] | None = None,
        *,
        attributes: dict[str, str] | None = None,
        base_url: str | None = None,
        expire: int = 3600,
        etag_is_md5: bool = False,
        chunk_size: int = 8 * MEGABYTE,
        max_concurrency: int = 3,
        connect_timeout: float = 5,
        read_timeout: float = 30,
        request_timeout: float = 300,
        client_options: dict[str, Any] | None = None,
    ) -> None:
        self._scheme = url.partition("://")[0]
        self._attributes = dict(attributes or {})
        self._base_url = base_url
        self._expire = expire
        self._etag_is_md5 = etag_is_md5
        self._chunk_size = chunk_size
        self._max_concurrency = max_concurrency
        # Whether the server refuses a taken name; not known before the first upload.
        self._is_conditional: bool | None = None
        self._store = _connect(
            url,
            config or {},
            {
                "connect_timeout": timedelta(seconds=connect_timeout),
                "read_timeout": timedelta(seconds=read_timeout),
                "timeout": timedelta(seconds=request_timeout),
                **(client_options or {}),
            },
        )

    def __repr__(self) -> str:
        return f"<ObjectStorage {self._store!r}>"

    def stat(self, name: str) -> Stat | None:
        """Return the size, and the MD5 where the ETag is one; ``None`` when the server answers 404."""
        meta = self._head(name)
        if meta is None:
            return None
        md5 = PLAIN_MD5.fullmatch(meta["e_tag"] or "") if self._etag_is_md5 else None
        return Stat(meta["size"], {"md5": md5[1]} if md5 else {})

    def exists(self, name: str) -> bool:
        """Return whether ``name`` is stored; raises if the server cannot tell."""
        return self._head(name) is not None

    def size(self, name: str) -> int:
        """Return the size in bytes, or raise ``FileNotFoundError``."""
        return int(self._get_meta(name)["size"])

    def get_modified_time(self, name: str) -> datetime:
        """Return when the object was written, or raise ``FileNotFoundError``."""
        return django_time(self._get_meta(name)["last_modified"])

    @property
    def signs_urls(self) -> bool:
        """Whether ``url()`` signs: not below a ``base_url``, and not for a store that has no signatures."""
        return self._base_url is None and self._scheme not in UNSIGNED

    def url(self, name: str | None) -> str:
        """Return the address below ``base_url``, or a signed one; ``ValueError`` for a store that cannot sign."""
        path = _checked(name or "")
        if self._base_url is not None:
            return urljoin(self._base_url.rstrip("/") + "/", filepath_to_uri(path))
        if not self.signs_urls:
            raise ValueError("This file is not accessible via a URL: ObjectStorage has no 'base_url'.")
        with self._guarded():
            return str(obstore.sign(self._store, "GET", path, timedelta(seconds=self._expire)))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of folders and files in ``path``."""
        with self._guarded():
            found = obstore.list_with_delimiter(self._store, path.strip("/") or None)
        folders = [each.rstrip("/").rpartition("/")[2] for each in found["common_prefixes"]]
        return folders, [each["path"].rpartition("/")[2] for each in found["objects"]]

    def delete(self, name: str) -> None:
        """Delete the object; one that is not there is no error."""
        try:
            with self._guarded():
                obstore.delete(self._store, _checked(name))
        except FileNotFoundError:
            return

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Return the kind that this class has given to the error."""
        return kind_of(error)

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        only_reading(mode)
        meta = self._get_meta(name)
        path, size = _checked(name), meta["size"]

        def fetch(start: int, end: int) -> bytes:
            # Always of the same version.
            options: Any = {"if_match": meta["e_tag"], "range": (start, end)}
            if small:
                del options["range"]
            with self._guarded():
                return bytes(obstore.get(self._store, path, options=options).bytes())[start if small else 0 :]

        # Some servers do not understand ranges, and a small object needs none.
        small = size <= READ_AHEAD
        file: File[Any] = remote_file(name, size, lambda offset: Windows(fetch, size, offset, READ_AHEAD))
        return file

    @property
    def many_at_once(self) -> bool:
        """Whether nobody has another way to save: obstore itself is made for threads."""
        own, ours = type(self), ObjectStorage
        names = own.get_available_name is Storage.get_available_name and own.exists is ours.exists
        names = names and own.is_name_available is Storage.is_name_available
        return names and own.save is Storage.save and own._save is ours._save

    @property
    def refuses_taken(self) -> bool:
        """Whether the server was seen to refuse a taken name, and nobody has another way to save."""
        return self._is_conditional is True and self.many_at_once

    def create(self, name: str, content: File[Any]) -> Stored:
        """Create the object; with ``etag_is_md5`` the server's answer tells what it has.

        The caller has looked whether the name is taken; if it is, this may raise ``FileExistsError``.
        """
        return self._write(name, content) if self.many_at_once else super().create(name, content)

    def _save(self, name: str, content: File[Any]) -> str:
        return str(self._write(name, content))

    def _write(self, name: str, content: File[Any]) -> Stored:
        name = _checked(name)
        source = Source(content)
        size = max(self._chunk_size, -(-(source.announced_size or 0) // MOST_PARTS))
        head = source.read(size)
        attributes = {"Content-Type": content_type_of(name, content), **self._attributes}
        try:
            if len(head) < size:
                source.check()
                return Stored(name, self._create(name, head, attributes, source))
            return Stored(name, self._create_in_parts(name, head, size, attributes, source))
        except AlreadyExistsError:
            raise taken(name) from None
        except FileNotFoundError:
            raise ObjectStoreError("There is no such bucket or container.", ErrorKind.DENIED) from None

    def _create(self, name: str, body: bytes, attributes: dict[str, str], source: Source) -> Stat | None:
        with self._guarded():
            answer = obstore.put(self._store, name, body, mode="create", **self._headers(attributes))
        if self._is_conditional is None and len(body) <= LARGEST_PROOF:
            self._is_conditional = self._refuses(name, body, attributes)
        md5 = PLAIN_MD5.fullmatch(answer["e_tag"] or "") if self._etag_is_md5 else None
        if md5 is None:
            return None
        if md5[1] != _md5(body).hex():
            raise MismatchError("The server stored other bytes than it was sent.")
        # The server's MD5 is that of the bytes whose announced digests were checked before they were sent.
        return Stat(source.count, {**source.compared, "md5": md5[1]})

    def _refuses(self, name: str, body: bytes, attributes: dict[str, str]) -> bool | None:
        # The same bytes once more do no harm to a server that takes them.
        try:
            with self._guarded():
                obstore.put(self._store, name, body, mode="create", **self._headers(attributes))
        except AlreadyExistsError:
            return True
        except Exception:
            return None
        return False

    def _create_in_parts(
        self, name: str, head: bytes, size: int, attributes: dict[str, str], source: Source
    ) -> Stat | None:
        if self.exists(name):
            raise taken(name)
        sums: list[bytes] = []

        def blocks() -> Iterator[bytes]:
            block = head
            while block:
                if self._etag_is_md5:
                    sums.append(_md5(block))
                yield block
                block = source.read(size)
            # An error here ends the upload, and obstore takes back the parts.
            source.check()
            self._look_again(name)

        options: dict[str, Any] = {"chunk_size": size, "max_concurrency": self._max_concurrency}
        options |= self._headers(attributes)
        with self._guarded():
            answer = obstore.put(self._store, name, blocks(), use_multipart=True, **options)
        # S3's ETag of an object in parts: the MD5 of the parts' MD5s, and how many they are. Where it is anything else
        # it proves nothing, neither way.
        if sums and (answer["e_tag"] or "").strip('"') == f"{_md5(b''.join(sums)).hex()}-{len(sums)}":
            return Stat(source.count, source.compared)
        return None

    def _look_again(self, name: str) -> None:
        # obstore has no conditional multipart upload. It runs this in the middle of a call, and a thread that is in
        # a call cannot make another one.
        outcome: list[bool | BaseException] = []

        def look() -> None:
            try:
                outcome.append(self.exists(name))
            except Exception as error:
                outcome.append(error)

        thread = threading.Thread(target=look, name="queued_storage-look")
        thread.start()
        thread.join()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        if outcome[0]:
            raise taken(name)

    def _headers(self, attributes: dict[str, str]) -> dict[str, Any]:
        # A directory has no place for them.
        return {} if self._scheme == "file" else {"attributes": attributes}

    def _head(self, name: str) -> Any:
        try:
            with self._guarded():
                return obstore.head(self._store, _checked(name))
        except FileNotFoundError:
            return None

    def _get_meta(self, name: str) -> Any:
        meta = self._head(name)
        if meta is None:
            raise missing(name)
        return meta

    def _guarded(self) -> Any:
        global _used_in
        if _used_in is None:
            _used_in = os.getpid()
        elif _used_in != os.getpid():
            raise ForkedError
        return translated()


def _connect(url: str, config: dict[str, Any], client_options: dict[str, Any]) -> Any:
    if url.startswith(("memory:", "file:")):
        return from_url(url)
    if url.startswith(("s3:", "s3a:")):
        config = {"checksum_algorithm": "SHA256", **config}
    # Somebody who writes http:// wants it.
    plain = any(isinstance(value, str) and value.startswith("http://") for value in config.values())
    options = {"allow_http": plain, **client_options}
    # The ledger retries; a retry inside obstore would only hide the cause and hold the lease.
    retries = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
    # Its overloads are one per provider.
    make: Any = from_url
    try:
        return make(url, config=hidden(config), client_options=options, retry_config=retries)
    except (BaseError, ValueError, TypeError) as error:
        raise StorageConfigurationError(f"ObjectStorage cannot be made: {str(error).splitlines()[0]}") from None


def _md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


def _checked(name: str) -> str:
    return str(validate_file_name(str(name), allow_relative_path=True))
