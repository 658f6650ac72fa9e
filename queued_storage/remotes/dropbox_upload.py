"""Create one file on Dropbox: a single request or a session of blocks, checked, in bounded memory."""

from __future__ import annotations

import hashlib
from typing import Any

from dropbox import exceptions, files

from queued_storage.exceptions import MismatchError
from queued_storage.remotes.dropbox_errors import is_missing, is_taken
from queued_storage.remotes.streamed import taken
from queued_storage.remotes.streams import Source

#: A whole number of the blocks that Dropbox hashes.
CHUNK = 8 * 1024 * 1024
HASHED = 4 * 1024 * 1024


class ContentHash:
    """Dropbox's digest: the SHA-256 of the SHA-256 of each block of 4 MB."""

    def __init__(self, block: bytes = b"") -> None:
        self._whole, self._block, self._room = hashlib.sha256(), hashlib.sha256(), HASHED
        self.update(block)

    def update(self, block: bytes) -> None:
        """Add bytes."""
        rest = memoryview(block)
        while rest:
            piece, rest = rest[: self._room], rest[self._room :]
            self._block.update(piece)
            self._room -= len(piece)
            if not self._room:
                self._whole.update(self._block.digest())
                self._block, self._room = hashlib.sha256(), HASHED

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far."""
        whole = self._whole.copy()
        if self._room < HASHED:
            whole.update(self._block.digest())
        return whole.hexdigest()


def create(client: Any, path: str, content: Any) -> None:
    """Create the file; nothing is visible under its path unless all bytes arrived and were checked."""
    source, digest = Source(content), ContentHash()
    head = _next(source, digest)
    # Strict, for Dropbox would call the same bytes under the same name no conflict.
    rules = {"mode": files.WriteMode.add, "autorename": False, "strict_conflict": True, "mute": True}
    try:
        if len(head) < CHUNK:
            source.check()
            stored = client.files_upload(head, path, content_hash=digest.hexdigest(), **rules)
        else:
            stored = _create_in_session(client, path, head, source, digest, rules)
    except exceptions.ApiError as error:
        if is_taken(error):
            raise taken(path) from None
        raise
    if stored.size != source.count or (stored.content_hash or digest.hexdigest()) != digest.hexdigest():
        client.files_delete_v2(path, parent_rev=stored.rev)
        raise MismatchError("Dropbox stored other bytes than it was sent.")


def _create_in_session(
    client: Any, path: str, head: bytes, source: Source, digest: ContentHash, rules: dict[str, Any]
) -> Any:
    _refuse_taken(client, path)
    session = client.files_upload_session_start(head, content_hash=ContentHash(head).hexdigest()).session_id
    cursor = files.UploadSessionCursor(session, len(head))
    block = _next(source, digest)
    while len(block) == CHUNK:
        client.files_upload_session_append_v2(block, cursor, content_hash=ContentHash(block).hexdigest())
        cursor.offset += len(block)
        block = _next(source, digest)
    source.check()
    commit = files.CommitInfo(path, **rules)
    return client.files_upload_session_finish(block, cursor, commit, content_hash=ContentHash(block).hexdigest())


def _refuse_taken(client: Any, path: str) -> None:
    try:
        client.files_get_metadata(path)
    except exceptions.ApiError as error:
        if is_missing(error):
            return
        raise
    raise taken(path)


def _next(source: Source, digest: ContentHash) -> bytes:
    block = source.read(CHUNK)
    digest.update(block)
    return block
