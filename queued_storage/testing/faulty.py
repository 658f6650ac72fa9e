"""Storages that misbehave on request, for either side of a queued storage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from io import BytesIO
from typing import Any
from urllib.parse import quote

from django.core.files.base import File
from django.core.files.storage import Storage
from django.utils.deconstruct import deconstructible

from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.testing.stores import Store, store


@deconstructible(path="queued_storage.testing.FaultyStorage")
class FaultyStorage(Storage):
    """A Django storage on a ``Store`` that all instances of the same ``name`` share, in memory or in a folder.

    ``part_size`` is how many bytes an upload takes at a time; each is a call of ``part`` for faults. With
    ``overwrite`` a save replaces what is there, as object stores do; otherwise another name is chosen, as Django does.
    """

    def __init__(
        self,
        name: str = "default",
        location: str | None = None,
        part_size: int = 1024 * 1024,
        overwrite: bool = False,
        base_url: str = "https://faulty.example/",
    ) -> None:
        self.store: Store = store(name, location)
        self.part_size, self.overwrite, self.base_url = part_size, overwrite, base_url

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """Return ``name``, or another one where that is taken and nothing is overwritten."""
        return name if self.overwrite else super().get_available_name(name, max_length)

    def exists(self, name: str) -> bool:
        """Tell whether there is an object."""
        self.store.meet("exists")
        return self.store.look(name) is not None

    def size(self, name: str) -> int:
        """Return the size in bytes; raises ``FileNotFoundError``."""
        self.store.meet("size")
        return len(self._found(name))

    def delete(self, name: str) -> None:
        """Delete the object; nothing happens if it is not there."""
        met = self.store.meet("delete")
        self.store.objects.pop(name, None)
        _lose(met)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return directories and files in ``path``."""
        self.store.meet("listdir")
        prefix = f"{path.rstrip('/')}/" if path.rstrip("/") else ""
        below = [name.removeprefix(prefix).split("/") for name in self.store.objects if name.startswith(prefix)]
        return sorted({name[0] for name in below if len(name) > 1}), sorted(name[0] for name in below if len(name) == 1)

    def url(self, name: str | None) -> str:
        """Return the URL."""
        self.store.meet("url")
        return f"{self.base_url}{quote(name or '')}"

    def get_modified_time(self, name: str) -> datetime:
        """Return some time; raises ``FileNotFoundError``."""
        self.store.meet("get_modified_time")
        self._found(name)
        return datetime(2020, 1, 1, tzinfo=timezone.utc)

    get_created_time = get_accessed_time = get_modified_time

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        met = self.store.meet("open")
        data = self._found(name)
        for fault in met:
            data = fault.change(data)
        return File(BytesIO(data), name)

    def _save(self, name: str, content: File[Any]) -> str:
        met = self.store.meet("save")
        upload = self.store.objects.begin()
        try:
            for part in self._parts(content):
                self.store.meet("part")
                upload.write(part)
            for fault in met:
                upload.seek(0)
                data = fault.change(upload.read())
                upload.seek(0)
                upload.truncate()
                upload.write(data)
                name = fault.rename(name)
            self.store.objects.publish(upload, name, self.overwrite)
        except BaseException:
            self.store.objects.discard(upload)
            raise
        _lose(met)
        return name

    def _parts(self, content: File[Any]) -> Iterator[bytes]:
        if content.seekable():
            content.seek(0)
        while part := content.read(self.part_size):
            yield part.encode() if isinstance(part, str) else part

    def _found(self, name: str) -> bytes:
        data = self.store.look(name)
        if data is None:
            raise FileNotFoundError(name)
        return data


@deconstructible(path="queued_storage.testing.FaultyRemoteStorage")
class FaultyRemoteStorage(FaultyStorage, RemoteStorage):
    """A faulty storage that vouches for ``digests`` of what it holds and refuses to replace, like an object store."""

    def __init__(self, *args: Any, digests: Sequence[str] = ("sha256",), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.digests = digests

    def stat(self, name: str) -> Stat | None:
        """Return size and digests, or ``None`` if there is no object."""
        self.store.meet("stat")
        data = self.store.look(name)
        if data is None:
            return None
        return Stat(len(data), {digest: hashlib.new(digest, data).hexdigest() for digest in self.digests})

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """Return ``name``: ``save()`` raises ``FileExistsError`` if it is taken."""
        return name


def _lose(met: Any) -> None:
    for fault in met:
        if fault.lost is not None:
            raise fault.lost
