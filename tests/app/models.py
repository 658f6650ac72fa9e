"""Models as a project would write them: nothing in them knows that the storage is queued."""

from __future__ import annotations

from django.db import models


class Document(models.Model):
    """A file on the default storage."""

    title = models.CharField(max_length=100, blank=True)
    file = models.FileField(upload_to="documents", max_length=255)

    def __str__(self) -> str:
        return self.title


class Photo(models.Model):
    """An image with dimension fields on the default storage."""

    image = models.ImageField(upload_to="photos", width_field="width", height_field="height", max_length=255)
    width = models.PositiveIntegerField(default=0)
    height = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.image.name or ""
