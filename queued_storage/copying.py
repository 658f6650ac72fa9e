"""Move bytes from one storage to another and prove that they arrived. Knows storages, no database."""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any

from django.core.files.base import File
from django.core.files.storage import Storage

from queued_storage.digests import Body, Hasher
from queued_storage.exceptions import MismatchError, SourceMissingError
from queued_storage.local import LocalStorage
from queued_storage.names import escape
from queued_storage.remotes.base import Stat
from queued_storage.remotes.registry import adapter_for

if TYPE_CHECKING:
    AnyFile = File[Any]
else:
    AnyFile = File

CHUNK = 1024 * 1024
# Digests that prove equality by themselves, best first; a CRC32 proves only that a transfer went well.
STRONG = ("sha256", "md5")


class MeasuredFile(AnyFile):
    """A file whose bytes are counted and hashed while a storage saves them; never a path to be moved."""

    file: Any

    def __init__(self, content: Any, name: str) -> None:
        super().__init__(content, name)
        self.content_type = getattr(content, "content_type", "")
        self.hasher = Hasher()

    def chunks(self, chunk_size: int | None = None) -> Iterator[Any]:
        """Yield the chunks of the file and measure them; starts anew each time."""
        self.hasher = Hasher()
        for chunk in self.file.chunks(chunk_size) if chunk_size else self.file.chunks():
            self.hasher.update(chunk.encode() if isinstance(chunk, str) else chunk)
            yield chunk

    def read(self, size: int = -1) -> Any:
        """Read and measure."""
        data = self.file.read() if size < 0 else self.file.read(size)
        self.hasher.update(data.encode() if isinstance(data, str) else data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; back at the start, measuring starts anew."""
        position = self.file.seek(offset, whence)
        if position == 0:
            self.hasher = Hasher()
        return int(position)


def changed(size: int) -> MismatchError:
    """Return the error for a local file of which another size than ``size`` is found."""
    return MismatchError(f"the local file has other than the {size} bytes that were saved: it was changed")


class SourceFile(AnyFile):
    """The local file on its way to the remote: tells of its progress and refuses to end early or late.

    ``size``, ``content_type`` and ``digests`` say what the bytes are to be, for storages that can make use of it.
    ``progress`` is called with the bytes of each read and may raise to stop the upload.
    """

    file: Any

    def __init__(self, file: Any, name: str, body: Body, progress: Callable[[int], None]) -> None:
        super().__init__(file, name)
        self.body, self.content_type, self.digests = body, body.content_type, body.digests
        self.progress = progress
        self.position = 0

    @property
    def size(self) -> int:
        """The bytes that were saved."""
        return self.body.size

    def read(self, size: int | None = -1) -> bytes:
        """Read; raises ``MismatchError`` if the file ends early or goes on beyond its size."""
        data: bytes = self.file.read() if size is None or size < 0 else self.file.read(size)
        self.position += len(data)
        short = self.position < self.size and ((not data and size != 0) or size is None or size < 0)
        if short or self.position > self.size:
            raise changed(self.size)
        self.progress(len(data))
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, for uploads that read twice."""
        self.file.seek(offset, whence)
        self.position = int(self.file.tell())
        return self.position

    def tell(self) -> int:
        """Return the position in bytes."""
        return self.position

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from the start in chunks of 1 MiB."""
        self.seek(0)
        while data := self.read(chunk_size or CHUNK):
            yield data

    def __iter__(self) -> Iterator[bytes]:
        # Storages hand the file to HTTP clients, which iterate for blocks, not for lines.
        return self.chunks()

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return True


def content_type_of(content: Any, name: str) -> str:
    """Return the content type that the uploader gave, else what the name suggests; empty if it is not a plain one."""
    given = getattr(content, "content_type", None) or mimetypes.guess_type(name)[0] or ""
    return given if isinstance(given, str) and given.isprintable() and given.isascii() and len(given) < 256 else ""


def save_locally(local: Storage, name: str, content: AnyFile, max_length: int | None = None) -> tuple[str, Body]:
    """Save ``content``, return the name that ``local`` gave it and what was written.

    Raises ``OSError`` if ``local`` kept another number of bytes than it was given; nothing is left then.
    """
    content_type = content_type_of(content, name)
    if isinstance(local, LocalStorage):
        stored = local.store(name, content, max_length)
        return stored.name, Body(stored.size, stored.digests, content_type)
    measured = MeasuredFile(content, name)
    stored_name = local.save(name, measured, max_length=max_length)
    body = Body(measured.hasher.size, measured.hasher.digests, content_type)
    if local.size(stored_name) != body.size:
        local.delete(stored_name)
        raise OSError(f"the local storage kept other than the {body.size} bytes of {escape(name)}; free some space")
    return stored_name, body


def measure(storage: Storage, name: str, *algorithms: str, progress: Callable[[int], None] | None = None) -> Body:
    """Read a file to its end and return its size and digests; raises what the storage raises."""
    hasher = Hasher(*algorithms)
    with storage.open(name, "rb") as file:
        while data := file.read(CHUNK):
            hasher.update(data)
            if progress is not None:
                progress(len(data))
    return Body(hasher.size, hasher.digests)


def open_source(local: Storage, name: str) -> IO[bytes]:
    """Open the local copy; raises ``SourceMissingError`` if it is gone."""
    try:
        return local.open(name, "rb")
    except FileNotFoundError:
        raise SourceMissingError(
            f"no local file {escape(name)} on this host. If web and worker have separate disks, set QUEUED_STORAGE_NODE"
            " on each host; if the file was removed, put it back and retry, or delete the record"
        ) from None


@dataclass(frozen=True)
class Copy:
    """One file to be copied: from where, to where, and what its bytes are."""

    local: Storage
    local_name: str
    remote: Storage
    remote_name: str
    body: Body
    verify: str = "auto"
    progress: Callable[[int], None] = lambda size: None
    #: What the remote said of the bytes when it took them.
    answer: Stat | None = None

    def present(self) -> bool | None:
        """Tell what is at the remote name: the right bytes (True), others (False), or certainly nothing (None).

        Stricter than ``check``: what is found there may be somebody else's, so a CRC32 is not enough, nor is the size.
        """
        stat, strict = self._stat(), replace(self, verify="auto") if self.verify == "size" else self
        return None if stat is None else strict._equal(stat, STRONG)

    def upload(self) -> Copy:
        """Send the bytes and return the copy as it lies there: under the name that the remote gave it.

        Raises ``MismatchError`` if the local file was changed, before anything is sent where its size tells.
        """
        with open_source(self.local, self.local_name) as file:
            if self.local.size(self.local_name) != self.body.size:
                raise changed(self.body.size)
            source = SourceFile(file, self.remote_name, self.body, self.progress)
            stored = adapter_for(self.remote).upload(self.remote, self.remote_name, source)
        return replace(self, remote_name=str(stored), answer=getattr(stored, "stat", None))

    def check(self) -> None:
        """Raise ``MismatchError`` unless the remote holds exactly the bytes that were saved."""
        # What the remote answered to the upload proves as much as what it answers to a look.
        stat = self.answer if self._is_told() else self._stat()
        if stat is None:
            raise MismatchError(f"nothing at {escape(self.remote_name)} after the upload: see who removes it")
        if not self._equal(stat, (*STRONG, "crc32")):
            raise MismatchError(
                f"the remote holds other bytes at {escape(self.remote_name)} than were saved; both copies were kept"
            )

    def _is_told(self) -> bool:
        told = self.answer is not None and self.answer.size is not None and self.answer.digests.keys()
        return self.verify == "auto" and bool(told and told & self.body.digests.keys())

    def ours(self) -> bool | None:
        """Tell whether what lies at the remote name may be removed as ours; ``None`` if certainly nothing is there.

        For a file that was verified there once: size and known digests are compared, nothing is read back.
        """
        stat = self._stat()
        if stat is None:
            return None
        common = stat.digests.keys() & self.body.digests.keys()
        same_size = stat.size is None or stat.size == self.body.size
        same_digests = all(stat.digests[name] == self.body.digests[name] for name in common)
        return same_size and same_digests and not stat.is_namesake

    def local_is_ours(self) -> bool | None:
        """Tell whether the local name holds the bytes that were saved; ``None`` if nothing is there."""
        # Of an adopted file the remote's own digest may be all that is known.
        algorithm = next((name for name in STRONG if name in self.body.digests), "sha256")
        try:
            found = measure(self.local, self.local_name, algorithm)
        except FileNotFoundError:
            return None
        return found.digests[algorithm] == self.body.digests.get(algorithm, found.digests[algorithm])

    def _stat(self) -> Stat | None:
        return adapter_for(self.remote).stat(self.remote, self.remote_name)

    def _equal(self, stat: Stat, algorithms: tuple[str, ...]) -> bool:
        if stat.is_namesake or (stat.size is not None and stat.size != self.body.size):
            return False
        if self.verify == "size" and stat.size is not None:
            return True
        if self.verify != "read":
            for algorithm in algorithms:
                if algorithm in stat.digests and algorithm in self.body.digests:
                    return stat.digests[algorithm] == self.body.digests[algorithm]
            if "md5" in stat.digests and (md5 := self._local_md5()):
                return stat.digests["md5"] == md5
        found = measure(self.remote, self.remote_name, progress=self._alive)
        return (found.size, found.digests["sha256"]) == (self.body.size, self.body.digests.get("sha256"))

    def _alive(self, size: int) -> None:
        # Bytes that are only compared keep the lease, but do not count as sent.
        self.progress(0)

    def _local_md5(self) -> str | None:
        # Reading the local copy once more is cheaper than reading the remote one back.
        try:
            found = measure(self.local, self.local_name, "md5", progress=self._alive)
        except OSError:
            return None
        return found.digests["md5"] if found.digests["sha256"] == self.body.digests.get("sha256") else None


def copy(local: Storage, remote: Storage, name: str, verify: str = "auto") -> None:
    """Copy one file under its own name and verify it; for callers without a record.

    Raises ``MismatchError`` if another file lies there, or the remote chose another name: nobody would find it.
    """
    body = replace(measure(local, name), content_type=content_type_of(None, name))
    job = Copy(local, name, remote, name, body, verify)
    present = job.present()
    if present:
        return
    if present is False or (stored := job.upload()).remote_name != name:
        where = escape(name) if present is False else escape(stored.remote_name)
        raise MismatchError(f"the remote has another file at {escape(name)}; see {where} there")
    stored.check()


class Renamed:
    """A storage in which one file goes by another name, for tasks that only know the name that the user gave it."""

    def __init__(self, storage: Storage, name: str, place: str) -> None:
        self._storage, self._name, self._place = storage, name, place

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._storage, attribute)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            if "name" in kwargs:
                kwargs["name"] = self._translated(kwargs["name"])
            elif args:
                args = (self._translated(args[0]), *args[1:])
            return value(*args, **kwargs)

        return call

    def _translated(self, name: Any) -> Any:
        return self._place if name == self._name else name


def renamed(storage: Storage, name: str, place: str) -> Any:
    """Return ``storage``, or a view of it in which ``name`` stands for ``place`` where these differ."""
    return storage if name == place else Renamed(storage, name, place)


class TextFile(AnyFile):
    """A binary file read or written as text."""

    def __init__(self, file: Any, name: str | None) -> None:
        super().__init__(io.TextIOWrapper(file, encoding="utf-8"), name)
