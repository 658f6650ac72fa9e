"""No secret of a storage's options leaves the settings: not in migrations, rows, logs or aliases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db.migrations.writer import MigrationWriter

from queued_storage import ledger, sweeping
from queued_storage.backends import QueuedStorage
from tests.fixtures import MakePair, facts, put

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db
LOCAL, REMOTE = "queued_storage.local.LocalStorage", "tests.storages.OptionalStorage"
SECRETS = {"access_key": "AKIAEXAMPLE", "secret_key": "hunter2-hunter2", "nested": {"password": "correcthorse"}}
PROJECT = Path(__file__).resolve().parents[1]


def no_secret(text: str) -> bool:
    """Tell whether none of the secrets is in a text."""
    return not any(secret in text for secret in ("AKIA", "hunter2", "correcthorse"))


def test_deconstruct_has_no_option() -> None:
    """A storage describes itself without options: what a migration writes holds no secret and can be read back."""
    storage = QueuedStorage(LOCAL, REMOTE, {"location": "/l"}, SECRETS, alias="mine", task="x.Y")
    path, arguments, keywords = storage.deconstruct()
    assert path == "queued_storage.backends.QueuedStorage"
    assert (arguments, keywords) == ((), {"local": LOCAL, "remote": REMOTE, "alias": "mine"})
    text, imports = MigrationWriter.serialize(storage)
    names: dict[str, Any] = {}
    exec("\n".join(imports), names)
    again = eval(text, names)
    assert again.deconstruct() == storage.deconstruct()
    assert no_secret(text + repr(storage))


def test_no_secret_in_a_subclass_either() -> None:
    """A subclass whose options stand in the class describes itself by its path."""

    class Subclass(QueuedStorage):
        local, remote, remote_options = LOCAL, REMOTE, SECRETS

    path, _, keywords = Subclass().deconstruct()
    assert path.endswith("Subclass")
    assert no_secret(repr(keywords))


def test_no_secret_in_rows_and_logs(make_pair: MakePair, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong, neither the ledger nor the log holds an option's secret."""
    pair = make_pair(remote=REMOTE, remote_options=SECRETS)

    def fail(name: str) -> None:
        raise ConnectionError(f"cannot sign with hunter2-hunter2 and correcthorse for {SECRETS} at {name}")

    pair.remote.faults["*"] = fail
    record = put(pair, "a.txt")
    with caplog.at_level("DEBUG"):
        sweeping.process(record.pk)
        pair.delete("a.txt")
        sweeping.process(record.pk)
    rows = list(ledger.records().values()) + list(ledger.attempts().values())
    assert "cannot sign with" in str(rows)
    logged = "".join(str(vars(line)) for line in caplog.records)
    assert no_secret(str(rows))
    assert no_secret(logged)
    assert facts(record)["error"].startswith("ConnectionError: cannot sign with ********")


SETTINGS = """
SECRET_KEY = "for tests only"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "project.sqlite3"}}
INSTALLED_APPS = ["queued_storage", "papers"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CELERY_BROKER_URL = "memory://"
"""
MODELS = f'''
from django.db import models
from queued_storage.backends import QueuedStorage
from queued_storage.fields import QueuedFileField

secret = QueuedStorage(
    "{LOCAL}", "{REMOTE}", {{"location": "local"}}, {SECRETS | {"location": "remote"}!r}, delayed=True
)


def chosen():
    return secret


class Paper(models.Model):
    file = QueuedFileField(storage=secret, upload_to="papers")
    other = models.FileField(storage=chosen, blank=True)
'''
SAVE = """
import django; django.setup()
from django.core.files.base import ContentFile
from papers.models import Paper
paper = Paper(); paper.file.save("a.txt", ContentFile(b"content")); print(paper.file.name)
"""
MOVE = """
import django; django.setup()
from queued_storage import ledger, sweeping
record = ledger.records().get(); ledger.release(record.pk); print(sweeping.process(record.pk), record.storage)
"""


def test_a_project_of_its_own(tmp_path: Path) -> None:
    """In a real project the migration of a storage with secrets holds none, is stable, and workers find the storage."""
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "__init__.py").touch()
    (tmp_path / "papers" / "models.py").write_text(MODELS)
    (tmp_path / "project.py").write_text(SETTINGS)
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    run("-m", "django", "makemigrations", "papers")
    (migration,) = (tmp_path / "papers" / "migrations").glob("0001*.py")
    assert no_secret(migration.read_text())
    assert REMOTE in migration.read_text()
    assert "No changes" in run("-m", "django", "makemigrations", "--check", "papers")
    run("-m", "django", "migrate")
    assert run("-c", SAVE) == "papers/a.txt"
    outcome, alias = run("-c", MOVE).split()
    assert (outcome, alias.startswith("QueuedStorage-")) == ("transferred", True)
    assert (tmp_path / "remote" / "papers" / "a.txt").read_bytes() == b"content"
