"""Models with files: on a storage of the settings, on one that is made by a callable, and on one of their own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type

from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage, storages
from django.db import models
from django.db.models.fields.files import FieldFile

from queued_storage.backends import QueuedFileSystemStorage, QueuedS3Storage, QueuedStorage
from queued_storage.fields import QueuedFieldFile, QueuedFileField, QueuedImageField, QueuedImageFieldFile
from queued_storage.models import State, TransferAttempt, TransferRecord


def documents() -> Storage:
    """Return the storage of the alias; a callable keeps it out of migrations."""
    return storages["documents"]


class Report(models.Model):
    """A report with its files."""

    plain = models.FileField(storage=documents, upload_to="reports")
    held = QueuedFileField(storage=QueuedS3Storage(alias="held", delayed=True), upload_to="held")
    cover = QueuedImageField(
        storage=QueuedFileSystemStorage(
            remote="storages.backends.s3.S3Storage",
            remote_options={"bucket_name": "covers"},
            delayed=timedelta(hours=1),
            alias="covers",
            keep_local="20G",
            queue="covers",
            overwrite=False,
            verify="read",
        ),
    )

    def __str__(self) -> str:
        return self.plain.name or ""

    def publish(self) -> Any:
        """Queue what was held."""
        assert_type(self.plain, FieldFile)
        assert_type(self.held, QueuedFieldFile)
        assert_type(self.cover, QueuedImageFieldFile)
        assert_type(self.cover.width, int)
        self.cover.transfer()
        return self.held.transfer()


def use(storage: QueuedStorage) -> None:
    """Use a storage like any other, and ask where its files are."""
    name = storage.save("report.txt", ContentFile(b"some bytes"))
    assert_type(name, str)
    with storage.open(name) as file:
        assert_type(file, File[Any])
    assert_type(storage.url(name), str)
    assert_type(storage.size(name), int)
    assert_type(storage.exists(name), bool)
    assert_type(storage.listdir(""), tuple[list[str], list[str]])
    assert_type(storage.using_local(name), bool)
    assert_type(storage.using_remote(name), bool)
    assert_type(storage.get_storage(name), Storage)
    assert_type(storage.get_cache_key(name), str)
    storage.transfer(name)
    storage.delete(name)
    found = storage.locate(["a.txt", "b.txt"])["a.txt"]
    if found is not None and found.side is not None:
        assert_type(found.size, int | None)
        assert_type(found.digest, str)
        assert_type(str(found.side.label), str)


def ask(record: TransferRecord) -> list[str]:
    """Read the ledger."""
    assert_type(record.size, int | None)
    assert_type(record.state == State.FAILED, bool)
    attempts = TransferAttempt.objects.filter(record=record).order_by("-finished_at")
    return [f"{attempt.outcome}: {attempt.bytes} bytes by {attempt.worker}" for attempt in attempts]
