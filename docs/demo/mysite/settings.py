"""Settings of the gallery: a Django project whose uploads go to S3 in the background."""

from __future__ import annotations

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key

from queued_storage.conf import BEAT_SCHEDULE

BASE_DIR = Path(__file__).resolve().parents[1]
# Everything that the project writes: database, local files, cache, messages.
STATE = Path(os.environ.get("GALLERY_STATE", BASE_DIR / "state"))

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or get_random_secret_key()
DEBUG = os.environ.get("DJANGO_DEBUG") == "1"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "mysite.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "queued_storage",
    "gallery",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": STATE / "db.sqlite3",
        # Web server, worker and beat write at the same time: each waits for its turn at the beginning of a transaction.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"},
    }
}
# One that all processes share; with Redis at hand, take that.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": STATE / "cache"}}

# Files: saved in MEDIA_ROOT at once, moved to S3 by Celery.
MEDIA_ROOT = STATE / "media"
MEDIA_URL = "/media/"
STATIC_URL = "/static/"
STORAGES = {
    "default": {
        "BACKEND": "queued_storage.backends.QueuedS3Storage",
        "OPTIONS": {
            "remote_options": {
                "bucket_name": "gallery",
                "endpoint_url": os.environ.get("GALLERY_S3", "http://127.0.0.1:9000"),
                "access_key": os.environ.get("AWS_ACCESS_KEY_ID", "demo"),
                "secret_key": os.environ.get("AWS_SECRET_ACCESS_KEY", "demo-secret"),
                "region_name": "us-east-1",
                "file_overwrite": False,
                # A public gallery, by the bucket's policy: plain links on S3, as they are under MEDIA_URL before.
                "querystring_auth": False,
            },
            # The local copy goes after the verified transfer.
            "task": "queued_storage.tasks.TransferAndDelete",
        },
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# Celery with a broker that needs no server: messages are files. In production: Redis or RabbitMQ.
CELERY_BROKER_URL = "filesystem://"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": str(STATE / "broker" / "messages"),
    "data_folder_out": str(STATE / "broker" / "messages"),
    "control_folder": str(STATE / "broker" / "control"),
}
CELERY_TASK_IGNORE_RESULT = True

# In production `CELERY_BEAT_SCHEDULE = BEAT_SCHEDULE` is enough, and the settings below are left out: they are
# short so that a show of one minute can let a worker die and be missed.
CELERY_BEAT_SCHEDULE = {name: {**entry, "schedule": 2.0} for name, entry in BEAT_SCHEDULE.items()}
QUEUED_STORAGE_LEASE = 8
QUEUED_STORAGE_RESEND_DELAY = 2
QUEUED_STORAGE_RESEND_CAP = 8
QUEUED_STORAGE_RETRY_DELAY = 1

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"queued_storage": {"handlers": ["console"], "level": "INFO", "propagate": False}},
}
