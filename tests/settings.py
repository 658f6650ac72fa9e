"""Django settings of the test suite; what varies comes from the environment.

``TEST_DATABASE``: ``sqlite`` (default), ``postgresql``, ``mariadb``, or a URL of one of them.
``TEST_CACHE``: ``locmem`` (default), ``dummy``, ``database``, or the URL of a Redis.
``TEST_BROKER``, ``TEST_BROKER_OPTIONS``, ``TEST_QUEUE``: the broker; without them messages stay in memory.
``TEST_SETTINGS``: JSON with settings that replace those below, for worker processes.
"""

from __future__ import annotations

import importlib.util
import json
import os
from typing import Any

from queued_storage.conf import BEAT_SCHEDULE
from tests.servers import databases
from tests.servers.roots import temporary_root

ROOT = temporary_root()

SECRET_KEY = "for tests only"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.app.urls"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "queued_storage",
    "tests.app",
]
if importlib.util.find_spec("django_celery_beat"):
    INSTALLED_APPS.append("django_celery_beat")

MIDDLEWARE = [
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
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

DATABASES = {"default": databases.from_environment()}


def _cache(wanted: str) -> dict[str, Any]:
    backends = "django.core.cache.backends"
    if wanted.startswith(("redis://", "unix://")):
        return {"BACKEND": f"{backends}.redis.RedisCache", "LOCATION": wanted}
    return {
        "locmem": {"BACKEND": f"{backends}.locmem.LocMemCache"},
        "dummy": {"BACKEND": f"{backends}.dummy.DummyCache"},
        "database": {"BACKEND": f"{backends}.db.DatabaseCache", "LOCATION": "cache"},
    }[wanted]


CACHES = {"default": _cache(os.environ.get("TEST_CACHE", "locmem"))}

MEDIA_ROOT = str(ROOT / "media")
MEDIA_URL = "/media/"
STATIC_URL = "/static/"
STORAGES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "queued_storage.backends.QueuedStorage",
        "OPTIONS": {
            "local": "queued_storage.local.LocalStorage",
            "local_options": {"location": str(ROOT / "local"), "base_url": "/media/"},
            "remote": "django.core.files.storage.FileSystemStorage",
            "remote_options": {"location": str(ROOT / "remote"), "base_url": "https://remote.example/"},
        },
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

CELERY_BROKER_URL = os.environ.get("TEST_BROKER", "memory://")
CELERY_BROKER_TRANSPORT_OPTIONS = json.loads(os.environ.get("TEST_BROKER_OPTIONS", "{}"))
CELERY_TASK_DEFAULT_QUEUE = os.environ.get("TEST_QUEUE", "queued-storage-tests")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULE = BEAT_SCHEDULE

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"queued_storage": {"level": "DEBUG"}},
}

globals().update(json.loads(os.environ.get("TEST_SETTINGS", "{}")))
