"""What people copy works: the project of the demo and the settings in the README. The demo itself is played by CI."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands

from tests.servers.s3 import S3Server

PROJECT = Path(__file__).resolve().parents[1]
DEMO = PROJECT / "docs" / "demo"
README = (PROJECT / "README.md").read_text()

# What a project has before it reads the README.
BEFORE = """
from pathlib import Path
BASE_DIR = Path(__file__).resolve().parent
SECRET_KEY = "for this test only"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}
DATABASES = {"default": {**SQLITE, "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": BASE_DIR / "cache"}}
CELERY_BROKER_URL = "memory://"
"""

# What its people do then.
AFTERWARDS = """
import django
django.setup()
from celery import Celery
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import call_command
from queued_storage import ledger
from queued_storage.sweeping import process_all, sweep
app = Celery("myproject")
app.config_from_object("django.conf:settings", namespace="CELERY")
assert "queued-storage-sweep" in app.conf.beat_schedule
call_command("check", fail_level="WARNING")
call_command("migrate", verbosity=0)
storage = storages["default"]
name = storage.save("notes/first.txt", ContentFile(b"kept"))
assert (settings.MEDIA_ROOT / name).read_bytes() == b"kept"
assert storage.url(name) == "/media/notes/first.txt"
# The sweep takes a file when its message is overdue; nobody waits for that here.
ledger.requeue(ledger.records())
sweep(process_all)
assert storage.using_remote(name)
print(storage.url(name))
"""


def python(*arguments: str, cwd: Path, **environment: str) -> str:
    """Run Python on the packages of this process, in a folder and with the environment of somebody else's project."""
    inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**inherited, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo_passes_the_system_checks(tmp_path: Path) -> None:
    """The settings of the demo give neither an error nor a warning."""
    printed = python("manage.py", "check", "--fail-level", "WARNING", cwd=DEMO, GALLERY_STATE=str(tmp_path))
    assert "no issues" in printed


def test_the_demo_has_its_migrations(tmp_path: Path) -> None:
    """The models of the demo are those of its migration."""
    printed = python("manage.py", "makemigrations", "--check", "--dry-run", cwd=DEMO, GALLERY_STATE=str(tmp_path))
    assert "No changes detected" in printed


def test_the_settings_in_the_readme_bring_a_file_to_s3(tmp_path: Path, s3_server: S3Server) -> None:
    """A project that copies the lines of the README saves locally and moves the file to its bucket."""
    lines = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(lines) == 1
    assert len(lines[0].splitlines()) <= 11
    keys = {
        "AWS_S3_ENDPOINT_URL": s3_server.endpoint,
        "AWS_S3_ACCESS_KEY_ID": "test-key",
        "AWS_S3_SECRET_ACCESS_KEY": "test-secret",
    }
    extra = "".join(f"{name} = {value!r}\n" for name, value in keys.items())
    (tmp_path / "myproject.py").write_text(BEFORE + lines[0] + extra)
    (tmp_path / "afterwards.py").write_text(AFTERWARDS)
    s3_server.create_bucket("my-media")
    url = python("afterwards.py", cwd=tmp_path, DJANGO_SETTINGS_MODULE="myproject").splitlines()[-1]
    assert url == f"{s3_server.endpoint}/my-media/notes/first.txt"
    client = s3_server.client()
    try:
        body = client.get_object(Bucket="my-media", Key="notes/first.txt")["Body"]
        assert body.read() == b"kept"
    finally:
        client.close()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"manage\.py (\w+)", README))))
def test_the_commands_in_the_readme_exist(command: str) -> None:
    """Whoever types a command from the README runs something."""
    assert command in get_commands()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"python3 (\S+\.py)|\]\((?!http)([^)#]+)\)", README))))
def test_the_files_in_the_readme_exist(path: tuple[str, str]) -> None:
    """Whatever the README runs or links to is there."""
    assert (PROJECT / "".join(path)).exists()
