"""A small project of its own for each package that people combine queued storages with, in a process of its own."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

Run = Callable[..., None]

SETTINGS = """
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent
SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "shop.urls"
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "db.sqlite3",
        "OPTIONS": {{"transaction_mode": "IMMEDIATE"}},
    }}
}}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "queued_storage",
    {apps}
    "shop",
]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
TEMPLATES = [{{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}}]
MEDIA_URL, STATIC_URL = "/media/", "/static/"
MEDIA_ROOT = BASE_DIR / "local"


def queued(folder="", **options):
    return {{
        "BACKEND": "queued_storage.backends.QueuedFileSystemStorage",
        "OPTIONS": {{
            "remote": "django.core.files.storage.FileSystemStorage",
            "local_options": {{"location": BASE_DIR / "local" / folder, "base_url": f"/media/{{folder}}"}},
            "remote_options": {{"location": BASE_DIR / "remote" / folder, "base_url": f"https://remote/{{folder}}"}},
            **options,
        }},
    }}


STORAGES = {{
    "default": queued(),
    "staticfiles": {{"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}},
}}
CELERY_BROKER_URL = "memory://"
{settings}
"""
PREAMBLE = """
import io
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
os.environ["DJANGO_SETTINGS_MODULE"] = "project"
import django

django.setup()
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage, storages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from PIL import Image

from queued_storage.models import TransferRecord
from queued_storage.testing import run_owed

call_command("migrate", run_syncdb=True, verbosity=0)
from shop.models import *


def picture(color="red", size=(400, 200), name="a.png"):
    data = io.BytesIO()
    Image.new("RGB", size, color).save(data, "PNG")
    return SimpleUploadedFile(name, data.getvalue(), "image/png")


def states():
    return dict(TransferRecord.objects.order_by("pk").values_list("name", "state"))


def arrive():
    run_owed(attempts=3)
    assert set(states().values()) <= {"transferred", "deleted"}, list(TransferRecord.objects.values())

"""
MODELS = """
from django.db import models
"""


@pytest.fixture
def fits(tmp_path: Path) -> Run:
    """Run a script in a project with models, apps and settings to the test's taste; skip where a package is missing."""

    def run(
        script: str,
        *,
        package: str,
        apps: tuple[str, ...] = (),
        models: str = "",
        settings: str = "",
        urls: str = "",
    ) -> None:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"run by `tox -e fits`: {package} is not installed")
        listed = "".join(f"{app!r}, " for app in apps)
        (tmp_path / "project.py").write_text(SETTINGS.format(apps=listed, settings=dedent(settings)))
        shop = tmp_path / "shop"
        shop.mkdir()
        (shop / "__init__.py").touch()
        (shop / "models.py").write_text(MODELS + dedent(models))
        (shop / "urls.py").write_text(dedent(urls) or "urlpatterns = []\n")
        (tmp_path / "script.py").write_text(PREAMBLE + dedent(script) + '\nprint("done")\n')
        left_out = ("DJANGO_", "TEST_", "QUEUED_STORAGE_", "PYTEST_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "script.py"],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.stdout.endswith("done\n"), f"{package} {version}\n{done.stdout}{done.stderr}"

    return run
