"""What the remotes that speak their protocols themselves have in common: framed uploads, checked downloads, names."""

from __future__ import annotations

import errno
import hashlib
import mimetypes
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.core.files.base import ContentFile, File
from django.core.files.utils import validate_file_name

from queued_storage.exceptions import ErrorKind, MismatchError, TransferError
from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.remotes.streams import Body, Source, only_reading, remote_file

BLOCK = 128 * 1024
CONTENT_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+( *; *[\x20-\x7e]+)?", re.ASCII)


def missing(name: str) -> FileNotFoundError:
    """Return the error for a name under which nothing is stored."""
    return FileNotFoundError(errno.ENOENT, "No such file on the remote", name)


def taken(name: str) -> FileExistsError:
    """Return the error for a name under which something is stored already."""
    return FileExistsError(errno.EEXIST, "The remote has a file of this name", name)


class Upload:
    """One file on its way up, for protocols that announce the length first.

    ``md5`` is complete when ``blocks()`` is; ``known_md5`` is what the content said beforehand, or empty.
    """

    def __init__(self, name: str, content: File[Any]) -> None:
        if isinstance(content.read(0), str):
            content.seek(0)
            content = ContentFile(content.read().encode())
        self.size = int(content.size)
        self.content_type = content_type_of(name, content)
        self.known_md5 = str((getattr(content, "digests", None) or {}).get("md5", ""))
        self.started = False
        self._content = content
        self._source: Source | None = None

    @property
    def md5(self) -> str:
        """The digest, in hexadecimal, of the blocks of the last pass."""
        assert self._source is not None, "blocks() comes first"
        return self._source.digest("md5")

    @property
    def repeatable(self) -> bool:
        """Whether ``blocks()`` can (still) give all bytes."""
        return not self.started or self._content.seekable()

    def blocks(self) -> Iterable[bytes]:
        """Return the bytes from the first to the last; the last block comes only when all of them are right.

        Raises ``MismatchError``, in time for the server not to get the whole body, if there are fewer or more bytes
        than announced, or others than the digests of the content stand for.
        """
        self._source = Source(self._content, "md5")
        # Headers alone complete an empty upload, so it is looked at before they leave.
        return self._checked(self._source) if self.size else list(self._checked(self._source))

    def _checked(self, source: Source) -> Iterator[bytes]:
        held = b""
        for block in source.blocks(BLOCK):
            self.started = True
            if source.count > self.size:
                raise MismatchError(f"The source has more than the {self.size} bytes that it announced.")
            if held:
                yield held
            held = block
        if source.count != self.size:
            raise MismatchError(f"The source ended after {source.count} of {self.size} bytes.")
        if held:
            yield held


class CheckedBody:
    """A body read from its start that raises ``MismatchError`` instead of its last bytes if its digest is another.

    The digest is the MD5, or that of the ``hasher`` given.
    """

    def __init__(self, body: Body, size: int, digest: str, hasher: Any = None) -> None:
        self.close = body.close
        self._body = body
        self._left = size
        self._digest = digest
        self._hash = hasher or hashlib.md5(usedforsecurity=False)

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""
        block = self._body.read(size)
        self._hash.update(block)
        self._left -= len(block)
        if self._left == 0 and self._hash.hexdigest() != self._digest:
            raise MismatchError("The remote sent other bytes than its digest stands for.")
        return block


class StreamedStorage(RemoteStorage):
    """A remote storage on ``_upload``, ``_fetch`` and ``stat``; the system's module has the other methods."""

    def _upload(self, name: str, upload: Upload) -> None:
        """Store the upload whole and checked, or raise; ``FileExistsError`` if the name is taken."""
        raise NotImplementedError

    def _fetch(self, name: str) -> tuple[Stat, Body, Callable[[int], Body]]:
        """Return size and MD5, the body, and what opens it at an offset; ``FileNotFoundError`` if missing."""
        raise NotImplementedError

    def _save(self, name: str, content: File[Any]) -> str:
        name = self._checked(name)
        self._upload(name, Upload(name, content))
        return name

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        only_reading(mode)
        stat, body, fetch = self._fetch(self._checked(name))
        size, md5 = int(stat.size or 0), stat.digests.get("md5", "")
        file: File[Any] = remote_file(name, size, fetch, CheckedBody(body, size, md5) if md5 else body)
        return file

    def exists(self, name: str) -> bool:
        """Return whether ``name`` is stored; raises if the remote cannot tell."""
        return self.stat(name) is not None

    def size(self, name: str) -> int:
        """Return the size in bytes, or raise ``FileNotFoundError``."""
        stat = self.stat(name)
        if stat is None or stat.size is None:
            raise missing(name)
        return stat.size

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Return the kind that the error carries: all errors of the network and of the remote have one."""
        return error.kind if isinstance(error, TransferError) else None

    def _checked(self, name: str) -> str:
        # Proxies and servers resolve dots in a path; such a name would reach another object.
        return str(validate_file_name(str(name), allow_relative_path=True))


def skip(body: Body, count: int) -> Body:
    """Return ``body`` after reading ``count`` bytes away, for servers that do not serve ranges."""
    while count > 0:
        block = body.read(min(BLOCK, count))
        if not block:
            raise ConnectionError("The remote's file is shorter than it was.")
        count -= len(block)
    return body


def content_type_of(name: str, content: File[Any]) -> str:
    """Return the type that came with ``content`` if it may stand in a header, otherwise a guess from ``name``."""
    given = str(getattr(content, "content_type", "") or "")
    if len(given) <= 255 and CONTENT_TYPE.fullmatch(given):
        return given
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
