"""The settings of a project."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type

from queued_storage.conf import BEAT_SCHEDULE, settings

STORAGES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "queued_storage.backends.QueuedS3Storage",
        "OPTIONS": {
            "remote_options": {"bucket_name": "my-media", "querystring_auth": False},
            "keep_local": timedelta(days=2),
        },
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
CELERY_BEAT_SCHEDULE = {**BEAT_SCHEDULE, "mine": {"task": "project.tasks.mine", "schedule": 3600.0}}
QUEUED_STORAGE_RETRIES = 5
QUEUED_STORAGE_RETRY_DELAY = timedelta(minutes=1)

assert_type(settings.QUEUED_STORAGE_RETRIES, int)
assert_type(settings.QUEUED_STORAGE_RETRY_DELAY, timedelta)
assert_type(settings.QUEUED_STORAGE_CACHE, str | None)
