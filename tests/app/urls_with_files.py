"""The URLs of a project that gives files out by the view of this package."""

from __future__ import annotations

from django.urls import include, path

from tests.app import urls

urlpatterns = [*urls.urlpatterns, path("files/", include("queued_storage.urls"))]
