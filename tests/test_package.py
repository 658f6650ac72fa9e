"""What is uploaded and installed: the wheel and the sdist, tried in an empty environment, away from the repository."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
MISSING = [name for name in ("build", "hatchling", "twine") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"run by `tox -e package`: {', '.join(MISSING)} not installed"),
    pytest.mark.skipif(not (PROJECT / "queued_storage").is_dir(), reason="run from a clone, by `tox -e package`"),
    pytest.mark.timeout(600),
]

SMOKE = """
import sys
from pathlib import Path

import django
from django.conf import settings

here = Path(sys.argv[1])
files = {"BACKEND": "queued_storage.backends.QueuedFileSystemStorage", "OPTIONS": {
    "remote": "django.core.files.storage.FileSystemStorage",
    "local_options": {"location": str(here / "local")},
    "remote_options": {"location": str(here / "remote")},
}}
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": here / "db.sqlite3"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.contenttypes", "queued_storage"],
    SECRET_KEY="x",
    STORAGES={"default": files},
    USE_TZ=True,
)
django.setup()

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command

import queued_storage
from queued_storage.models import TransferRecord

assert "site-packages" in queued_storage.__file__, queued_storage.__file__
call_command("migrate", verbosity=0)
name = default_storage.save("a.txt", ContentFile(b"content"))
assert default_storage.using_local(name)
TransferRecord.objects.update(due_at="2020-01-01T00:00Z")
call_command("queued_storage_sweep", "--in-process")
assert default_storage.using_remote(name), TransferRecord.objects.get().error
assert (here / "remote" / "a.txt").read_bytes() == b"content" == default_storage.open(name).read()
print("arrived")
"""


@dataclass(frozen=True)
class Built:
    """The two distributions."""

    wheel: Path
    sdist: Path


def python(*arguments: object, cwd: Path = PROJECT, executable: object = sys.executable) -> str:
    """Run Python and return what it prints; what the test run has set does not count."""
    left_out = ("DJANGO_", "PYTHON", "QUEUED_STORAGE_", "TEST_", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    command = [str(executable), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the sdist, and the wheel from the sdist, as a release does."""
    folder = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--sdist", "--no-isolation", "--outdir", folder)
    (sdist,) = folder.glob("*.tar.gz")
    source = tmp_path_factory.mktemp("source")
    with tarfile.open(sdist) as archive:
        archive.extractall(source, filter="data")
    (unpacked,) = source.iterdir()
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, cwd=unpacked)
    (wheel,) = folder.glob("*.whl")
    return Built(wheel, sdist)


@pytest.fixture(scope="module")
def names(built: Built) -> set[str]:
    """The files in the wheel."""
    with zipfile.ZipFile(built.wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(built: Built) -> Message:
    """The metadata of the wheel."""
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def empty(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel, what it requires, and no more."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    executable = folder / "bin" / "python"
    # Pillow is for the demo's pictures.
    python("-m", "pip", "install", "--quiet", f"{built.wheel}[s3]", "Pillow", executable=executable, cwd=folder)
    return executable


def committed(folder: str) -> set[str]:
    """Return the files of a folder that git knows."""
    done = subprocess.run(["git", "ls-files", folder], cwd=PROJECT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


def test_the_wheel_is_the_package(names: set[str]) -> None:
    """The wheel has every file of the package, templates and the marker for types among them, and nothing else."""
    assert committed("queued_storage") - names == set()
    assert {name for name in names if not name.startswith(("queued_storage/", "django_queued_storage-"))} == set()
    assert "queued_storage/py.typed" in names


def test_the_sdist_is_the_project(built: Built) -> None:
    """The sdist has tests, documentation, licence and changelog, and nothing of how the project is worked on."""
    with tarfile.open(built.sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "CHANGELOG.md", "README.md", "pyproject.toml", "tox.ini", "docs/index.md", "tests/run.py"}
    assert wanted - found == set()
    assert {name for name in found if name.startswith(".ci")} == set()


def test_the_metadata(built: Built, metadata: Message) -> None:
    """The index will take the metadata: it is complete, its readme can be shown, and the licence is there."""
    assert "PASSED" in python("-m", "twine", "check", "--strict", built.wheel, built.sdist)
    assert metadata["Name"] == "django-queued-storage"
    assert (metadata["License-Expression"], metadata["License-File"]) == ("BSD-3-Clause", "LICENSE")
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Description-Content-Type"] == "text/markdown"
    classifiers = metadata.get_all("Classifier") or []
    assert "Typing :: Typed" in classifiers
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)} <= {*classifiers}


def test_no_upper_bound(metadata: Message) -> None:
    """Whoever installs it is not kept from newer releases of Django and Celery."""
    required = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert sorted(required) == ["celery>=5.5", "django>=5.2"]


def test_a_file_arrives(empty: Path, tmp_path: Path) -> None:
    """With the wheel alone a file is saved, swept and on the remote."""
    (tmp_path / "smoke.py").write_text(SMOKE)
    assert "arrived" in python("smoke.py", tmp_path, executable=empty, cwd=tmp_path)


def test_the_demo_runs_on_the_wheel(empty: Path, tmp_path: Path) -> None:
    """The demo's project, copied elsewhere, passes its checks and migrates with the wheel alone."""
    demo = tmp_path / "demo"
    shutil.copytree(PROJECT / "docs" / "demo", demo, ignore=shutil.ignore_patterns("state", "__pycache__"))
    (demo / "state" / "broker" / "messages").mkdir(parents=True)
    assert "no issues" in python("manage.py", "check", executable=empty, cwd=demo)
    python("manage.py", "migrate", executable=empty, cwd=demo)
    assert "owed:    0 files" in python("manage.py", "queued_storage_status", executable=empty, cwd=demo)


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_can_be_a_previous_release(built: Built, kind: str) -> None:
    """Once it is out, the check of migrations can run its code beside that of a later release."""
    path = getattr(built, kind)
    shown = python("-m", "migrations_check", "--database", "sqlite", "--previous", path)
    assert f"ok: {path.name} works beside the newest code" in shown


def test_it_says_what_to_install(empty: Path, tmp_path: Path) -> None:
    """A remote whose client is missing is told with the command that brings it."""
    code = """
from django.conf import settings
settings.configure(STORAGES={})
from queued_storage.pairs import load
try:
    load("queued_storage.remotes.gridfs.GridFSStorage")
except Exception as error:
    print(error)
"""
    shown = python("-c", code, executable=empty, cwd=tmp_path)
    assert "pip install 'django-queued-storage[gridfs]'" in shown
