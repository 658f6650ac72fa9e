"""The algorithm of django-queued-storage 0.8: the cache alone knows on which side a file is.

Its order of steps is what matters here: the cache entry, the local bytes and the message in ``save()``; the copy, the
removal of the local bytes and the cache entry in the task.
"""

from __future__ import annotations

import hashlib
from typing import Any

from celery import shared_task
from django.core.cache import cache
from django.core.files.storage import Storage
from django.utils.module_loading import import_string

# As documented for 0.8, where the delay is a minute: here as much shorter as everything else in the chaos.
RETRIES, RETRY_DELAY = 5, 0.5


class CachedStateStorage(Storage):
    """Saves locally, asks a task to move the file, and reads from the side that the cache names."""

    def __init__(
        self, local: str, remote: str, local_options: dict[str, Any], remote_options: dict[str, Any], task: str
    ) -> None:
        self.sides = [(local, local_options), (remote, remote_options)]
        self.local, self.remote = (built(*side) for side in self.sides)
        self.task = task

    def side(self, name: str) -> Any:
        """Return the storage that has the file, as far as the cache knows; without an entry the remote is asked."""
        moved = cache.get(key_of(name))
        if moved is None and self.remote.exists(name):
            moved = True
            cache.set(key_of(name), True)
        return self.remote if moved else self.local

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Save locally under a name that neither side has, and publish at once."""
        assert name is not None
        name = self.get_available_name(name, max_length)
        cache.set(key_of(name), False)
        name = self.local.save(name, content)
        import_string(self.task).delay(name, *self.sides)
        return name

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """Return a name that is free on both sides."""
        while self.local.exists(name) or self.remote.exists(name):
            name = super().get_alternative_name(*_parts(name))
        return name

    def _open(self, name: str, mode: str = "rb") -> Any:
        return self.side(name).open(name, mode)

    def exists(self, name: str) -> bool:
        """Ask the side that has it."""
        return bool(self.side(name).exists(name))

    def size(self, name: str) -> int:
        """Ask the side that has it."""
        return int(self.side(name).size(name))

    def delete(self, name: str) -> None:
        """Delete it there."""
        self.side(name).delete(name)


def key_of(name: str) -> str:
    """Return the cache key of a name."""
    return f"baseline_{hashlib.md5(name.encode()).hexdigest()}"


def built(path: str, options: dict[str, Any]) -> Any:
    """Build one side, as the task does from its arguments."""
    return import_string(path)(**options)


def _parts(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension) if dot else (name, "")


def move(name: str, local_side: Any, remote_side: Any) -> bool:
    """Copy the file, remove the local one, and tell the cache; False if the copy failed."""
    local, remote = built(*local_side), built(*remote_side)
    try:
        with local.open(name) as file:
            remote.save(name, file)
    except Exception:
        return False
    local.delete(name)
    cache.set(key_of(name), True)
    return True


@shared_task(bind=True, max_retries=RETRIES, default_retry_delay=RETRY_DELAY)
def transfer(self: Any, name: str, local_side: Any, remote_side: Any) -> None:
    """Move one file; try again some times, then give up."""
    if not move(name, local_side, remote_side):
        raise self.retry()
