"""Plain Django models: the storage of ``STORAGES["default"]`` does the rest."""

from __future__ import annotations

from django.db import models
from django.urls import reverse


class Exhibit(models.Model):
    """Something to show: a picture, a document, or both."""

    title = models.CharField(max_length=200)
    picture = models.ImageField(upload_to="pictures/", blank=True)
    document = models.FileField(upload_to="documents/", blank=True)
    added_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-added_at", "-pk"]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        """Return the address of this exhibit's page."""
        return reverse("gallery:exhibit", args=[self.pk])
