"""The two baselines as subjects of the chaos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.chaos.subjects import Subject

S3 = "storages.backends.s3.S3Storage"
# Longer than Redis keeps the messages of a dead worker from others, and than all retries of a file.
STILL = 40.0


def _cached(media: Path, remote: dict[str, Any]) -> dict[str, Any]:
    return {
        "BACKEND": "tests.baseline.cached.CachedStateStorage",
        "OPTIONS": {
            "local": "django.core.files.storage.FileSystemStorage",
            "local_options": {"location": str(media)},
            "remote": S3,
            "remote_options": remote,
            "task": "tests.baseline.cached.transfer",
        },
    }


def _naive(media: Path, remote: dict[str, Any]) -> dict[str, Any]:
    return {
        "BACKEND": "tests.baseline.naive.NaiveStorage",
        "OPTIONS": {
            "location": str(media),
            "remote": S3,
            "remote_options": remote,
            "task": "tests.baseline.naive.upload",
        },
    }


def _subject(name: str, entry: Any, module: str) -> Subject:
    return Subject(
        name, entry, {"CELERY_IMPORTS": [f"tests.baseline.{module}"], "CELERY_BEAT_SCHEDULE": {}}, still=STILL
    )


CACHED = _subject("0.8 (state in the cache)", _cached, "cached")
NAIVE = _subject("upload in a task", _naive, "naive")
