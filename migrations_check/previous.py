"""The previous release's code on the newest schema, beside the newest code, as while a release is rolled out.

The code comes from a wheel, an sdist, or a tag of this clone, and runs in processes of its own, with the packages that
are installed here.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from django.db import connection

from migrations_check import schema
from tests.servers.processes import Unavailable
from tests.servers.roots import fresh

PROJECT = Path(__file__).resolve().parents[1]
WORK = Path(__file__).with_name("work.py")
PACKAGE = "queued_storage"


def unpack(source: str) -> Path:
    """Return a new folder with the package out of a ``.whl``, a ``.tar.gz``, or a commit or tag of this clone.

    Raises ``Unavailable`` if there is no such thing.
    """
    folder = fresh("previous")
    path = Path(source)
    if path.suffix == ".whl" and path.is_file():
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(folder)
    elif path.name.endswith(".tar.gz") and path.is_file():
        with tarfile.open(path) as sdist:
            sdist.extractall(folder, filter="data")
        (inner,) = folder.glob(f"*/{PACKAGE}")
        inner.rename(folder / PACKAGE)
    else:
        command = ["git", "archive", "--format=tar", f"{source}^{{commit}}", PACKAGE]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True)
        if done.returncode:
            raise Unavailable(f"{source} is no wheel, no sdist and no tag of this clone")
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
    if not (folder / PACKAGE / "__init__.py").is_file():
        raise Unavailable(f"{source} has no package {PACKAGE}")
    return folder


def roll_out(source: str) -> list[str]:
    """Let new code, previous code and new code again work on one database, each going on with what the last one left.

    Returns what went wrong. Leaves the newest schema, empty.
    """
    previous, files = unpack(source), fresh("rolling")
    schema.migrate_to_zero()
    schema.migrate()
    connection.close()
    # The package that is imported here: that of the clone, or an installed one.
    newest = Path(sys.modules[PACKAGE].__path__[0]).parent
    problems = []
    for who, code, other in (("before", newest, ""), ("previous", previous, "before"), ("after", newest, "previous")):
        if found := _work(code, who, other, files):
            problems = [f"{who}: {line}" for line in found]
            break
    schema.migrate_to_zero()
    schema.migrate()
    return problems


def _work(code: Path, who: str, other: str, files: Path) -> list[str]:
    settings = {key: connection.settings_dict[key] for key in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")}
    settings["OPTIONS"] = connection.settings_dict["OPTIONS"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "TEST_"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(WORK), str(code), who, other],
        cwd=files,
        env={**environment, "PYTHONPATH": str(code), "QUEUED_STORAGE_CHECK_DATABASE": json.dumps(settings)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return [] if done.returncode == 0 else (done.stdout + done.stderr).splitlines()[-12:]
