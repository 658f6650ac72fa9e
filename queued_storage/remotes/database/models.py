"""Files in tables: what they are, and their bytes in chunks."""

from __future__ import annotations

import hashlib

from django.db import models
from django.db.models.functions import Now


class StoredFile(models.Model):
    """A file that is there with all its bytes; ``upload`` names its chunks."""

    # Of the name, because no two databases agree on how to compare and index long names.
    key = models.CharField(max_length=32, unique=True)
    name = models.CharField(max_length=1024)
    upload = models.CharField(max_length=32, unique=True)
    size = models.BigIntegerField()
    chunk_size = models.PositiveIntegerField()
    sha256 = models.CharField(max_length=64)
    content_type = models.CharField(max_length=255)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        app_label = "queued_storage_database"

    def __str__(self) -> str:
        return self.name


class StoredChunk(models.Model):
    """A piece of an upload; without a foreign key, because the chunks come first and the file comes last."""

    upload = models.CharField(max_length=32)
    number = models.PositiveIntegerField()
    data = models.BinaryField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        app_label = "queued_storage_database"
        constraints = (models.UniqueConstraint(fields=["upload", "number"], name="queued_storage_database_chunk"),)

    def __str__(self) -> str:
        return f"{self.upload} {self.number}"


def key_of(name: str) -> str:
    """Return the key under which a file of this name is unique, 128 bits in hexadecimal."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]
