"""Our ways of moving a folder of files, and django-storages' own: ``python -m benchmarks.ours WAY THREADS``.

Run by ``benchmarks.drain`` and ``benchmarks.large`` as a child with their database and STORAGES. Prints seconds and the
growth of the peak of the memory in bytes as JSON; imports and the first request to the remote are left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from django.core.files.storage import FileSystemStorage, storages
from django.core.management import call_command
from django.db import connection

from benchmarks.peers import peak
from queued_storage import access, ledger
from queued_storage.conf import settings
from queued_storage.digests import Body
from queued_storage.pairs import configured
from queued_storage.saving import new_record
from tests.servers import databases

S3 = "queued_storage.remotes.s3.S3Storage"
PLAIN_S3 = "storages.backends.s3.S3Storage"
OBSTORE = "queued_storage.remotes.objectstore.ObjectStorage"
BUCKET = "bucket"


def s3_options(endpoint: str) -> dict[str, Any]:
    """Return the options of django-storages' S3 storage for the null server."""
    keys = {"access_key": "test-key", "secret_key": "test-secret", "region_name": "us-east-1"}
    return {"bucket_name": BUCKET, "endpoint_url": endpoint, **keys}


def object_options(endpoint: str) -> dict[str, Any]:
    """Return the options of our storage on obstore for the null server."""
    keys = {"access_key_id": "test-key", "secret_access_key": "test-secret", "region": "us-east-1"}
    config = {"endpoint": endpoint, "virtual_hosted_style_request": False, **keys}
    return {"url": f"s3://{BUCKET}/", "config": config, "etag_is_md5": True}


def settings_for(
    endpoint: str, folder: Path, remote: str = S3, options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return STORAGES with a queued storage over ``folder``."""
    pair = {
        "local": "queued_storage.local.LocalStorage",
        "local_options": {"location": str(folder)},
        "remote": remote,
        "remote_options": s3_options(endpoint) if options is None else options,
    }
    default = {"BACKEND": "queued_storage.backends.QueuedStorage", "OPTIONS": pair}
    plain = {"BACKEND": PLAIN_S3, "OPTIONS": s3_options(endpoint)}
    static = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    return {"default": default, "plain": plain, "staticfiles": static}


def queue(pair: Any, bodies: dict[str, Body]) -> None:
    """Begin with a ledger in which these files, and no others, are owed."""
    with connection.cursor() as cursor:
        tables = ("queued_storage_transferattempt", "queued_storage_storagehealth", "queued_storage_transferrecord")
        for table in tables:
            cursor.execute(f"DELETE FROM {table}")
    records = [new_record(pair, name, name, body) for name, body in bodies.items()]
    moment = access.now()
    for record in records:
        record.due_at = moment + settings.QUEUED_STORAGE_RESEND_DELAY
    assert len(ledger.insert_many(records, moment)) == len(bodies)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for table in tables:
                cursor.execute(f"VACUUM ANALYZE {table}")


def run(way: str, storages: dict[str, Any], threads: int = 1, wrapper: tuple[str, ...] = ()) -> dict[str, float]:
    """Run one way in a process of its own and return ``seconds`` and ``memory``."""
    environment = {
        **os.environ,
        databases.VARIABLE: databases.url_of(connection.settings_dict),
        "TEST_SETTINGS": json.dumps({"STORAGES": storages}),
    }
    command = [*wrapper, sys.executable, "-m", "benchmarks.ours", way, str(threads)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    result: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return result


def drain(threads: int) -> Callable[[], None]:
    """``manage.py queued_storage_run``, on what is queued."""
    pair: Any = storages["default"]
    # The sweep asks every class in STORAGES what it is, that of the loop as well, and imports it.
    list(configured())
    pair.remote.exists("nothing")

    def work() -> None:
        told, errors = StringIO(), StringIO()
        with suppress(SystemExit):
            wanted = [f"--threads={threads}"] if threads else []
            call_command("queued_storage_run", "--no-progress", *wanted, stdout=told, stderr=errors)
        assert not ledger.records().exclude(state="transferred").exists(), told.getvalue() + errors.getvalue()

    assert connection.cursor()
    return work


def loop(threads: int) -> Callable[[], None]:
    """django-storages alone: save each file of the folder."""
    pair: Any = storages["default"]
    local, remote = FileSystemStorage(pair.local.location), storages["plain"]
    remote.exists("nothing")
    names = sorted(local.listdir("")[1])

    def work() -> None:
        for name in names:
            with local.open(name) as file:
                remote.save(name, file)

    return work


def command(name: str, *words: str) -> Callable[[int], Callable[[], None]]:
    """Return the way to run another command of ours."""

    def way(threads: int) -> Callable[[], None]:
        pair: Any = storages["default"]
        pair.remote.exists("nothing")

        def work() -> None:
            with open(os.devnull, "w") as nothing, suppress(SystemExit):
                call_command(f"queued_storage_{name}", "--storage=default", "--no-progress", *words, stdout=nothing)

        assert connection.cursor()
        return work

    return way


WAYS: dict[str, Callable[[int], Callable[[], None]]] = {
    "drain": drain,
    "loop": loop,
    "adopt": command("adopt", "--from=local", "--older-than=1s"),
    "verify": command("verify"),
    "reconcile": command("reconcile"),
}


def main(way: str, threads: str) -> None:
    """Measure one way and print it."""
    work = WAYS[way](int(threads))
    before = peak()
    started, busy = time.perf_counter(), time.process_time()
    work()
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    print(json.dumps({"seconds": seconds, "memory": peak() - before, "cpu": busy}))


if __name__ == "__main__":
    main(*sys.argv[1:])
