"""Bytes on their way: a source that counts and checks what it reads, and a remote file that is read in ranges."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from django.core.files.base import File

from queued_storage.exceptions import MismatchError

if TYPE_CHECKING:
    AnyFile = File[Any]
else:
    AnyFile = File

BLOCK = 1024 * 1024
# Cheapest first: one known digest is enough to see that the bytes are others.
ALGORITHMS = ("crc32", "md5", "sha256")


class Body(Protocol):
    """What a remote gives for a range: bytes until they end, then ``b""``."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; empty only at the end."""

    def close(self) -> None:
        """Give the connection back."""


class Source:
    """The content of a save, read in full blocks, counted, hashed and compared with what it announced.

    Hashes ``compute`` always, and the cheapest digest that the content announces.
    """

    def __init__(self, content: Any, *compute: str) -> None:
        digests = getattr(content, "digests", None)
        self._content = content
        self._announced = dict(digests or {})
        # Only a transfer announces its size in bytes; the size of Django's ContentFile may be in characters.
        self._announced_size: int | None = None if digests is None else content.size
        cheapest = next((name for name in ALGORITHMS if name in self._announced), None)
        self._hashes = {name: _hasher(name) for name in {*compute, cheapest} if name}
        self.count = 0
        self._rewind()

    @property
    def announced_size(self) -> int | None:
        """How many bytes the content says it has, ``None`` if it does not say."""
        return self._announced_size

    @property
    def announced(self) -> dict[str, str]:
        """The digests that the content says its bytes have."""
        return self._announced

    @property
    def compared(self) -> dict[str, str]:
        """Those of the announced digests that ``check()`` compares."""
        return {name: digest for name, digest in self._announced.items() if name in self._hashes}

    def digest(self, algorithm: str) -> str:
        """Return a digest, in hexadecimal, of all bytes read so far."""
        return str(self._hashes[algorithm].hexdigest())

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        pieces = []
        missing = size
        while missing > 0 and (piece := _as_bytes(self._content.read(missing))):
            pieces.append(piece)
            missing -= len(piece)
        block = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        for each in self._hashes.values():
            each.update(block)
        self.count += len(block)
        return block

    def blocks(self, size: int = BLOCK) -> Iterator[bytes]:
        """Yield everything in blocks of ``size`` bytes, the last one shorter, and check it at the end."""
        while block := self.read(size):
            yield block
        self.check()

    def check(self) -> None:
        """Raise ``MismatchError`` unless what was read is what was announced."""
        if self._announced_size is not None and self.count != self._announced_size:
            raise MismatchError(f"The source has {self.count} bytes, not {self._announced_size}: it changed.")
        for name, each in self._hashes.items():
            if self._announced.get(name, each.hexdigest()) != each.hexdigest():
                raise MismatchError(f"The source's bytes have another {name} than announced: they changed.")

    def _rewind(self) -> None:
        # Callers may have read the content already, to look at its first bytes.
        try:
            seekable = self._content.seekable()
        except AttributeError:
            seekable = hasattr(self._content, "seek")
        if seekable:
            self._content.seek(0)


class RangeReader(io.RawIOBase):
    """A remote file of known size, read through bodies that ``fetch(offset)`` opens; a short body is an error."""

    def __init__(self, size: int, fetch: Callable[[int], Body], first: Body | None = None) -> None:
        super().__init__()
        self.size = size
        self._fetch = fetch
        self._body = first
        self._body_at = 0
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True: going elsewhere costs one request when the next byte is read."""
        return True

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to ``offset`` and return the new position; nothing is asked of the remote."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` from the position; raises ``OSError`` when the remote sends fewer bytes than it promised."""
        wanted = min(len(buffer), self.size - self._position)
        if wanted <= 0:
            return 0
        if self._body is None or self._body_at != self._position:
            self._drop()
            self._body, self._body_at = self._fetch(self._position), self._position
        piece = self._body.read(wanted)
        if not piece:
            raise OSError(f"The remote sent {self._position} bytes of {self.size}")
        buffer[: len(piece)] = piece
        self._position += len(piece)
        self._body_at = self._position
        return len(piece)

    def close(self) -> None:
        """Give the connection back."""
        if not self.closed:
            self._drop()
        super().close()

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()


class Windows:
    """A body for remotes that serve ranges: ``fetch(start, end)`` returns those bytes, a few megabytes at a time."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, offset: int, window: int = 4 * BLOCK) -> None:
        self._fetch, self._size, self._position, self._window = fetch, size, offset, window
        self._left = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        if not self._left and self._position < self._size:
            block = self._fetch(self._position, min(self._position + self._window, self._size))
            self._left, self._position = memoryview(block), self._position + len(block)
        piece, self._left = self._left[:size], self._left[size:]
        return bytes(piece)

    def close(self) -> None:
        """Forget what was read ahead."""
        self._left = memoryview(b"")


class RemoteFile(AnyFile):
    """A remote object, read as a stream; like Django's files it can be opened again after it was closed."""

    def __init__(self, name: str, size: int, fetch: Callable[[int], Body], first: Body | None) -> None:
        self._size, self._fetch = size, fetch
        super().__init__(self._reader(first), name)
        self.size = size

    def _reader(self, first: Body | None) -> io.BufferedReader:
        return io.BufferedReader(RangeReader(self._size, self._fetch, first), 256 * 1024)

    def open(self, mode: str | None = None, *args: Any, **kwargs: Any) -> RemoteFile:
        """Go back to the start, with a new connection after ``close()``; raises ``ValueError`` for other modes."""
        only_reading(mode or "rb")
        if self.closed:
            self.file = self._reader(None)
        else:
            self.seek(0)
        return self


def remote_file(name: str, size: int, fetch: Callable[[int], Body], first: Body | None = None) -> Any:
    """Return a Django ``File`` over a remote object; ``first`` is a body already open at its start."""
    return RemoteFile(name, size, fetch, first)


def only_reading(mode: str) -> None:
    """Raise ``ValueError`` unless ``mode`` asks for reading bytes, the one thing that remotes offer."""
    if mode not in {"rb", "r"}:
        raise ValueError(f"A remote file is opened for reading ('rb'), not {mode!r}; use save() to write")


class _CRC32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, block: bytes) -> None:
        self._value = zlib.crc32(block, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def _hasher(name: str) -> Any:
    return _CRC32() if name == "crc32" else hashlib.new(name, usedforsecurity=False)


def _as_bytes(piece: Any) -> bytes:
    return piece.encode() if isinstance(piece, str) else bytes(piece)
