"""What the round-trip tests save: files made while they are read, and servers that refuse or never answer."""

from __future__ import annotations

import hashlib
import io
import random
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from django.core.files import File

# A prime length: no block size of a transfer divides it, so that a swapped or repeated block changes the bytes.
PATTERN = random.Random(20150729).randbytes(65_537)


class SourceBrokeError(Exception):
    """The source of an upload failed half way; no library may turn it into something else."""


class Blocks(io.RawIOBase):
    """``size`` bytes that take no memory; may break with an error or end early at a given offset."""

    def __init__(self, size: int, *, break_at: int | None = None, end_at: int | None = None) -> None:
        self.total = size if end_at is None else end_at
        self.break_at = break_at
        self.position = 0
        self.highest = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to another byte."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.total}[whence]
        self.position = base + offset
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with the pattern."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self.position < self.total:
            if self.break_at is not None and self.position >= self.break_at:
                raise SourceBrokeError("the source broke on purpose")
            done += self._piece(view[done:])
        self.highest = max(self.highest, self.position)
        return done

    def _piece(self, view: memoryview) -> int:
        start = self.position % len(PATTERN)
        ends = [len(PATTERN) - start, len(view), self.total - self.position]
        if self.break_at is not None:
            ends.append(self.break_at - self.position)
        length = min(ends)
        view[:length] = PATTERN[start : start + length]
        self.position += length
        return length


class Upload(File):  # type: ignore[type-arg]
    """What a transfer hands to ``save()``: size, content type and digests known before a byte is read."""

    def __init__(
        self, source: Any, size: int, content_type: str = "", digests: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(source, name="upload")
        self.size = size
        self.content_type = content_type
        self.digests = dict(digests or {})


def upload(
    size: int,
    *,
    content_type: str = "",
    digests: Mapping[str, str] | None = None,
    break_at: int | None = None,
    end_at: int | None = None,
) -> Upload:
    """Return a file that says it has ``size`` bytes; ``break_at`` and ``end_at`` make it a liar."""
    return Upload(Blocks(size, break_at=break_at, end_at=end_at), size, content_type, digests)


def text(body: bytes, **options: Any) -> Upload:
    """Return a file with the given bytes."""
    return Upload(io.BytesIO(body), len(body), **options)


def digests_of(size: int) -> dict[str, str]:
    """Return what ``Stat.digests`` may say of the bytes of ``upload(size)``."""
    source, hashes, crc = Blocks(size), [hashlib.sha256(), hashlib.md5(usedforsecurity=False)], 0
    while block := source.read(1 << 20):
        crc = zlib.crc32(block, crc)
        for each in hashes:
            each.update(block)
    return {**{each.name: each.hexdigest() for each in hashes}, "crc32": f"{crc:08x}"}


def check_bytes(stream: Any, size: int) -> int:
    """Read ``stream`` in small pieces, compare with ``upload(size)`` and return the number of bytes."""
    expected, position = Blocks(size), 0
    while block := stream.read(100_000):
        assert block == expected.read(len(block)), f"other bytes near offset {position}"
        position += len(block)
    return position


def error_of(call: Callable[[], Any]) -> Exception:
    """Return the error that ``call`` raises; none at all is a failure."""
    try:
        answer = call()
    except Exception as error:
        return error
    raise AssertionError(f"no error, but {answer!r}")


@contextmanager
def closed_port() -> Iterator[int]:
    """Give a port where every connection is refused; it stays ours, so that nobody else starts to listen there."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def full_port() -> Iterator[int]:
    """Give a port that, like a packet filter, neither accepts nor refuses: its backlog is full."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextmanager
def silent_port() -> Iterator[int]:
    """Give a port that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield listener.getsockname()[1]
