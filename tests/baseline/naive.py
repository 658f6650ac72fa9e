"""What a view does that was written in an afternoon: save with FileSystemStorage, upload in a task, delete locally.

As kind as it can be: names are free on both sides, readers look on both, and Celery tries again.
"""

from __future__ import annotations

from typing import Any

from celery import shared_task
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.utils.module_loading import import_string

from tests.baseline.cached import RETRIES, RETRY_DELAY


class NaiveStorage(Storage):
    """A local folder first, and what is not there any more on the remote."""

    def __init__(self, location: str, remote: str, remote_options: dict[str, Any], task: str) -> None:
        self.local = FileSystemStorage(location)
        self.remote: Any = import_string(remote)(**remote_options)
        self.task = task

    def side(self, name: str) -> Any:
        """Return the storage that has the file."""
        return self.local if self.local.exists(name) else self.remote

    def _save(self, name: str, content: Any) -> str:
        name = self.local.save(name, content)
        import_string(self.task).delay(name)
        return name

    def _open(self, name: str, mode: str = "rb") -> Any:
        return self.side(name).open(name, mode)

    def exists(self, name: str) -> bool:
        """Look on both sides."""
        return bool(self.local.exists(name) or self.remote.exists(name))

    def size(self, name: str) -> int:
        """Ask the side that has it."""
        return int(self.side(name).size(name))

    def delete(self, name: str) -> None:
        """Delete on both sides."""
        self.local.delete(name)
        self.remote.delete(name)


def move(storage: NaiveStorage, name: str) -> None:
    """Upload the file and delete the local one."""
    with storage.local.open(name) as file:
        storage.remote.save(name, file)
    storage.local.delete(name)


@shared_task(autoretry_for=(Exception,), max_retries=RETRIES, default_retry_delay=RETRY_DELAY)
def upload(name: str) -> None:
    """Move one file; try again some times, then give up."""
    storage: Any = storages["default"]
    move(storage, name)
