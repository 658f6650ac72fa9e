"""Send the bytes of one object to Google: in one request or in chunks, checked before the last one leaves."""

from __future__ import annotations

import base64
import io
from typing import Any

from queued_storage.remotes.streams import Source

#: Also the size up to which the client sends an object in one request.
CHUNK = 8 * 1024 * 1024


def send(blob: Any, source: Source, arguments: dict[str, Any]) -> None:
    """Create the object unless there is one (the client then raises ``PreconditionFailed``)."""
    if known := source.announced.get("md5"):
        # The server refuses bytes with another one.
        blob.md5_hash = base64.b64encode(bytes.fromhex(known)).decode()
    head = source.read(CHUNK)
    if len(head) < CHUNK:
        source.check()
        stream: Any = io.BytesIO(head)
        size: int | None = len(head)
    else:
        stream = _Stream(head, source)
        size = None
    blob.upload_from_file(stream, size=size, if_generation_match=0, checksum="crc32c", **arguments)


class _Stream:
    """What is left of a source after its head, checked before its last bytes are given away."""

    def __init__(self, head: bytes, source: Source) -> None:
        self._head, self._source, self._position = head, source, 0
        self._next = b""

    def tell(self) -> int:
        """Return how many bytes were given away."""
        return self._position

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        block = self._head or self._next or self._source.read(size)
        assert len(block) <= size, "the client asks for whole chunks"
        # The client calls the upload complete when a chunk is short, so that one must be right.
        self._head, self._next = b"", self._source.read(size) if len(block) == size else b""
        if not self._next:
            self._source.check()
        self._position += len(block)
        return block
