"""The view of this package: ``path("files/", include("queued_storage.urls"))``."""

from __future__ import annotations

from django.urls import path

from queued_storage import views

app_name = "queued_storage"
urlpatterns = [path("<str:alias>/<path:name>", views.file, name="file")]
