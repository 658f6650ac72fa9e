from __future__ import annotations

from django.apps import AppConfig


class GalleryConfig(AppConfig):
    """A gallery of pictures and documents."""

    name = "gallery"
