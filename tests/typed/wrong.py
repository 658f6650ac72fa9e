"""What the type checker must refuse: an error that it no longer finds is an unused ignore, which is an error itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.files.storage import FileSystemStorage, Storage

from queued_storage import operations, probes
from queued_storage.backends import QueuedFileSystemStorage, QueuedStorage
from queued_storage.fields import QueuedFieldFile
from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.tasks import Transfer
from queued_storage.testing import run_owed, store

# An instance or a class, where a path or an alias is wanted.
QueuedStorage(FileSystemStorage(), "remote")  # type: ignore[arg-type]
QueuedStorage(FileSystemStorage, "remote")  # type: ignore[arg-type]
# New options go by name.
QueuedStorage("local", "remote", None, None, None, None, None, "an-alias")  # type: ignore[call-arg]
QueuedFileSystemStorage(remote="x", keep_local=3)  # type: ignore[arg-type]
QueuedFileSystemStorage(remote="x", delayed="1h")  # type: ignore[arg-type]
QueuedFileSystemStorage(remote="x", no_such_option=True)  # type: ignore[call-arg]


def uses(storage: QueuedStorage, file: QueuedFieldFile) -> None:
    """Use what is there wrongly."""
    storage.locate([1, 2])  # type: ignore[list-item]
    _ = storage.locate(["a.txt"])["a.txt"].size  # type: ignore[union-attr]
    _ = storage.find("a.txt").no_such_attribute  # type: ignore[attr-defined]
    storage.save("a.txt")  # type: ignore[call-arg]
    file.transfer("a.txt")  # type: ignore[call-arg]
    operations.retry(["a.txt"])  # type: ignore[arg-type]
    probes.Limits(max_age=15)  # type: ignore[arg-type]
    probes.Limits(max_aeg=timedelta(minutes=15))  # type: ignore[call-arg]
    run_owed("all")  # type: ignore[arg-type]
    store("tests").fail("save", "the line is down")  # type: ignore[arg-type]


class Forgetful(Transfer):
    """Says nothing of whether the file has arrived."""

    def transfer(self, name: str, local: Storage, remote: Storage, **kwargs: Any) -> None:  # type: ignore[override]
        """Transfer."""
        super().transfer(name, local, remote, **kwargs)


class Liar(RemoteStorage):
    """Says yes or no, where size and digest are wanted."""

    def stat(self, name: str) -> bool:  # type: ignore[override]
        """Return whether it is there."""
        return isinstance(Stat, type)
