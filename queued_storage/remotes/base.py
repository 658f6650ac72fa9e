"""What a transfer asks of a remote beyond Django's ``Storage`` API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.files.storage import Storage

from queued_storage.exceptions import ErrorKind


@dataclass(frozen=True, slots=True)
class Stat:
    """What a remote says about one object: its size in bytes and the digests it vouches for.

    ``digests`` maps ``"sha256"``, ``"md5"`` or ``"crc32"`` to lower-case hexadecimal; algorithms that the remote
    does not know of the *whole* object are left out. ``size`` is ``None`` where the remote cannot tell.
    ``is_namesake`` says that the name is that of another object, spelled in upper and lower case as it was not asked
    for: that is never taken for the file that was meant, whatever its bytes are.
    """

    size: int | None
    digests: Mapping[str, str] = field(default_factory=dict)
    is_namesake: bool = False


class Stored(str):
    """The name under which an upload lies, with what the remote itself said of the bytes when it took them.

    ``stat`` is worth as much as a look afterwards: its digests are the remote's own, of the whole object.
    """

    __slots__ = ("stat",)
    stat: Stat | None

    def __new__(cls, name: str, stat: Stat | None) -> Stored:
        """Make the name."""
        self = super().__new__(cls, name)
        self.stat = stat
        return self


class RemoteStorage(Storage):
    """A Django storage that answers a transfer's two extra questions itself.

    The content that a transfer passes to ``save()`` is a ``django.core.files.File`` open for reading, with
    ``size`` (bytes), ``content_type`` (may be empty) and ``digests`` (a mapping like ``Stat.digests`` of the bytes
    that are about to be read; may be empty). ``_save`` raises ``FileExistsError`` rather than replace an object.
    """

    def stat(self, name: str) -> Stat | None:
        """Return what the remote knows of ``name``, or ``None`` if it is certain that nothing is there.

        Raises whatever the client raises when the remote cannot tell; "cannot tell" is never "absent".
        """
        raise NotImplementedError("subclasses of RemoteStorage must provide a stat() method")

    @property
    def many_at_once(self) -> bool:
        """Whether several threads may use the storage at once, sharing its connections."""
        return False

    @property
    def most_connections(self) -> int | None:
        """How many connections are kept for threads; ``None`` where nothing bounds them."""
        return None

    @property
    def refuses_taken(self) -> bool:
        """Whether the remote was seen to refuse a taken name in the request that writes; if so, nobody looks before."""
        return False

    def create(self, name: str, content: Any) -> Stored:
        """Do what ``save()`` does, after a look whether ``name`` is taken, and say what the remote answered.

        By default it is ``save()``, and the answer unknown. Where it is more, it raises ``FileExistsError`` for a name
        that is taken in place of choosing another one.
        """
        return Stored(self.save(name, content), None)

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Return the kind of ``error``, or ``None`` to leave it to the general rules."""
        return None
