"""What one version of the code does while another one works beside it: ``work.py CODE ME [OTHER]``.

Goes on with the files that OTHER has left in every state, then leaves its own. It runs as a script, with the code of
some release, and so uses nothing but what stays the same in all of them: the API of ``docs/reference/api.md``, the
commands, and the states.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import django
from celery import Celery
from django.conf import settings

CODE, ME, OTHER = (*sys.argv[1:], "")[:3]
HERE = Path.cwd()
BACKENDS = "queued_storage.backends"


def queued(name: str, **options: Any) -> dict[str, Any]:
    """Return an entry of STORAGES with folders of its own."""
    sides = {f"{side}_options": {"location": str(HERE / name / side)} for side in ("local", "remote")}
    remote = "django.core.files.storage.FileSystemStorage"
    return {"BACKEND": f"{BACKENDS}.QueuedFileSystemStorage", "OPTIONS": {"remote": remote, **sides, **options}}


def configure() -> None:
    """Set a project up on the database to be checked."""
    database = json.loads(os.environ["QUEUED_STORAGE_CHECK_DATABASE"])
    if "mysql" in database["ENGINE"] and importlib.util.find_spec("MySQLdb") is None:
        importlib.import_module("pymysql").install_as_MySQLdb()
    settings.configure(
        CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}},
        DATABASES={"default": database},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["django.contrib.contenttypes", "queued_storage", "queued_storage.remotes.database"],
        SECRET_KEY="for the check of migrations only",
        STORAGES={
            "default": queued("default"),
            "held": queued("held", delayed=True),
            "broken": queued("broken"),
            "database": {
                "BACKEND": f"{BACKENDS}.QueuedDatabaseStorage",
                "OPTIONS": {"local_options": {"location": str(HERE / "database")}},
            },
        },
        USE_TZ=True,
    )
    Celery("check", broker="memory://").set_default()
    django.setup()
    import queued_storage

    found = Path(queued_storage.__path__[0]).parent
    assert found == Path(CODE), f"this is the code of {found}"
    # A file where the folder should be: every transfer there fails.
    (HERE / "broken").mkdir(exist_ok=True)
    (HERE / "broken" / "remote").write_text("in the way")


def body(name: str) -> bytes:
    """Return what a file holds; every version knows it."""
    return f"the bytes of {name}".encode()


def save(alias: str, name: str) -> str:
    """Save one of my files."""
    from django.core.files.base import ContentFile
    from django.core.files.storage import storages

    return storages[alias].save(f"{ME}/{name}.txt", ContentFile(body(f"{ME}/{name}.txt")))


def check(alias: str, name: str, remote: bool) -> None:
    """Read a file of the other one and see on which side it is."""
    from django.core.files.storage import storages

    storage: Any = storages[alias]
    assert storage.exists(name), f"{name} is not there"
    with storage.open(name) as file:
        assert file.read() == body(name), f"{name} has other bytes"
    assert storage.size(name) == len(body(name))
    assert storage.using_remote(name) == remote, f"{name} is on the wrong side"


def go_on() -> None:
    """Finish what the other one has left: each file in its state, and each operation on them."""
    from django.core.files.storage import storages
    from django.core.management import call_command

    from queued_storage import operations
    from queued_storage.models import TransferRecord
    from queued_storage.testing import run_owed

    def mine(name: str, alias: str = "default") -> Any:
        return TransferRecord.objects.filter(storage=alias, name=f"{OTHER}/{name}.txt")

    check("default", f"{OTHER}/arrived.txt", remote=True)
    check("database", f"{OTHER}/row.txt", remote=True)
    for alias, name in (("default", "queued"), ("default", "paused"), ("held", "held"), ("broken", "failing")):
        check(alias, f"{OTHER}/{name}.txt", remote=False)
    assert not storages["default"].exists(f"{OTHER}/deleted.txt")
    call_command("queued_storage_resume", "default", "--json")
    assert operations.release(mine("held", "held")).changed == 1
    assert operations.hold(mine("paused")).changed == 1
    assert operations.transfer(mine("paused")).changed == 1
    assert operations.retry(mine("failing", "broken")).changed == 1
    run_owed()
    call_command("queued_storage_sweep", "--json")
    for alias, name in (("default", "queued"), ("default", "paused"), ("held", "held")):
        check(alias, f"{OTHER}/{name}.txt", remote=True)
    record = mine("failing", "broken").get()
    assert record.state in ("queued", "failed"), record.state
    assert record.error_kind, "nothing is said of why it failed"
    call_command("queued_storage_verify", "--storage", "default", "--deep", "--no-progress", "--json")
    call_command("queued_storage_evict", "--storage", "default", "--all", "--no-progress", "--json")
    assert not (HERE / "default" / "local" / OTHER / "queued.txt").exists()
    check("default", f"{OTHER}/queued.txt", remote=True)
    storages["default"].delete(f"{OTHER}/queued.txt")
    run_owed()
    assert not (HERE / "default" / "remote" / OTHER / "queued.txt").exists()


def begin() -> None:
    """Leave files in every state, and a storage that is paused."""
    from django.core.files.storage import storages
    from django.core.management import call_command

    from queued_storage.testing import run_owed

    for alias, name in (("default", "arrived"), ("database", "row"), ("broken", "failing")):
        save(alias, name)
    run_owed()
    save("default", "queued")
    save("held", "held")
    storages["default"].delete(save("default", "deleted"))
    save("default", "paused")
    call_command("queued_storage_pause", "default", "--json")
    call_command("queued_storage_status", "--json")


if __name__ == "__main__":
    configure()
    if OTHER:
        go_on()
    begin()
