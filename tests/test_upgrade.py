"""From 0.8: its names, its settings, its migrations, and the messages that it has left in the broker."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.core.files.storage import Storage, storages
from django.db import migrations

from queued_storage import backends, fields, ledger, legacy, signals, tasks
from queued_storage.conf import settings as ours
from queued_storage.models import TransferRecord
from tests.celeryapp import app
from tests.conftest import Media
from tests.fixtures import MakePair, committing, facts, moved, read, record_of
from tests.servers.brokers import Broker
from tests.servers.processes import wait_until
from tests.servers.workers import Celery

pytest_plugins = ["tests.fixtures"]
TRANSFER = "queued_storage.tasks.Transfer"
FILES = "django.core.files.storage.FileSystemStorage"

# Each class of 0.8 with the remote that it had.
CLASSES = {
    "QueuedS3BotoStorage": "storages.backends.s3boto.S3BotoStorage",
    "QueuedCouchDBStorage": "storages.backends.couchdb.CouchDBStorage",
    "QueuedDatabaseStorage": "storages.backends.database.DatabaseStorage",
    "QueuedFTPStorage": "storages.backends.ftp.FTPStorage",
    "QueuedMogileFSStorage": "storages.backends.mogile.MogileFSStorage",
    "QueuedGridFSStorage": "storages.backends.mongodb.GridFSStorage",
    "QueuedCloudFilesStorage": "storages.backends.mosso.CloudFilesStorage",
    "QueuedSFTPStorage": "storages.backends.sftpstorage.SFTPStorage",
}
MIGRATION = """
from django.db import migrations, models
import queued_storage.backends
import queued_storage.fields

class Migration(migrations.Migration):
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Old",
            fields=[
                ("id", models.AutoField(primary_key=True)),
                ("one", queued_storage.fields.QueuedFileField(
                    storage=queued_storage.backends.{name}({arguments}), upload_to="old")),
                ("two", models.FileField(
                    storage=queued_storage.backends.QueuedFileSystemStorage(remote={remote!r}, delayed=True))),
            ],
        ),
    ]
"""


@pytest.mark.parametrize(("name", "remote"), CLASSES.items())
def test_a_migration_of_0_8(name: str, remote: str) -> None:
    """A migration that builds a class of 0.8 with its old paths imports, although the remote exists no longer."""
    for arguments in (
        f"remote={remote!r}",
        f"{FILES!r}, {remote!r}, {{}}, {{'key': 'x'}}, 'prefix', True, {TRANSFER!r}",
    ):
        namespace: dict[str, Any] = {"__name__": "old.migrations.0001_initial"}
        exec(MIGRATION.format(name=name, arguments=arguments, remote=remote), namespace)
        state = namespace["Migration"]("0001_initial", "old").mutate_state(migrations.state.ProjectState())
        field = state.models["old", "old"].fields["one"]
        assert (type(field), field.storage.remote_path) == (fields.QueuedFileField, remote)
        assert field.clone().storage.remote_path == remote


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_of_0_8(name: str) -> None:
    """Each class of 0.8 is there, is a storage, and can be subclassed with its options as class attributes."""
    cls = getattr(backends, name)
    assert issubclass(cls, Storage)
    attributes = {"local": FILES, "remote_options": {"key": "x"}, "delayed": True, "cache_prefix": "mine"}
    mine = type("Mine", (cls,), attributes)()
    assert (mine.local_path, mine.remote_options) == (FILES, {"key": "x"})
    assert (mine.delayed, mine.prefix) == (True, "mine")


def test_the_settings_of_0_8(settings: Any) -> None:
    """The three settings of 0.8 have their names, their defaults and their meaning."""
    assert ours.QUEUED_STORAGE_CACHE_PREFIX == "queued_storage"
    assert (tasks.Transfer.max_retries, tasks.Transfer.default_retry_delay) == (5, 60)
    settings.QUEUED_STORAGE_RETRIES, settings.QUEUED_STORAGE_RETRY_DELAY = 7, 90
    assert (tasks.Transfer.max_retries, tasks.Transfer.default_retry_delay) == (7, 90)


def test_the_other_names_of_0_8() -> None:
    """Field, tasks and signal are where they were."""
    assert callable(fields.QueuedFieldFile.transfer)
    assert issubclass(tasks.TransferAndDelete, tasks.Transfer)
    assert {"queued_storage.tasks.Transfer", "queued_storage.tasks.TransferAndDelete"} <= {*app.tasks}
    assert signals.file_transferred is not None


def message(name: str, remote: str, options: dict[str, Any] | None = None) -> list[Any]:
    """Return the six arguments that 0.8 sent for a file of a class with this remote."""
    return [name, f"queued_storage_{name}", FILES, remote, {}, options or {}]


@pytest.mark.parametrize(("name", "remote"), CLASSES.items())
def test_the_storage_that_a_message_means(name: str, remote: str) -> None:
    """A path of 0.8 means the storage that the class of the same name has today, and no other one."""
    today = getattr(backends, name)()
    assert legacy.meant(FILES, today.local_path)
    assert legacy.meant(remote, today.remote_path)
    others = {getattr(backends, other)().remote_path for other in CLASSES if other != name}
    assert [path for path in others if legacy.meant(remote, path)] == []


def test_the_storage_behind_an_alias(settings: Any) -> None:
    """A storage that is named by its alias today is meant by the path of its class."""
    settings.STORAGES = settings.STORAGES | {"archive": {"BACKEND": "queued_storage.remotes.ftp.FTPStorage"}}
    assert legacy.meant("storages.backends.ftp.FTPStorage", "archive")
    assert not legacy.meant("storages.backends.ftp.FTPStorage", "default")


@pytest.mark.parametrize("path", [None, 42, ["x"], {}, ""])
def test_a_forged_path_means_nothing(path: Any) -> None:
    """What is no path means no storage."""
    assert not legacy.meant(path, "queued_storage.local.LocalStorage")


@committing
def test_a_message_about_an_old_local_path(make_pair: MakePair, media: Media) -> None:
    """A message that names Django's file system storage is about the local storage that has taken its place."""
    pair = make_pair(local="queued_storage.local.LocalStorage")
    (media.local / "a.txt").write_bytes(b"content")
    assert app.tasks[TRANSFER].apply(message("a.txt", pair.remote_path)).result is True
    assert facts(record_of(pair, "a.txt"), b"content") == moved("a.txt", b"content")
    assert read(pair.remote, "a.txt") == b"content"


def publish(broker: Broker, arguments: list[Any], serializer: str) -> None:
    """Put a message into the broker as Celery 3 did, which knew only the first protocol."""
    body = {
        "task": TRANSFER,
        "id": str(uuid.uuid4()),
        "args": arguments,
        "kwargs": {},
        "retries": 0,
        "utc": True,
        **dict.fromkeys(["eta", "expires", "callbacks", "errbacks", "taskset", "chord"]),
        "timelimit": [None, None],
    }
    with app.connection_for_write() as connection, connection.Producer(serializer=serializer) as producer:
        producer.publish(body, routing_key=broker.queue, exchange="", declare=[app.amqp.queues[broker.queue]])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_message_that_waits_in_the_broker(
    filesystem_broker: Broker,
    media: Media,
    celery_processes: Celery,
    monkeypatch: pytest.MonkeyPatch,
    serializer: str,
) -> None:
    """A worker of today takes the message of Celery 3, which pickled by default, and the file arrives with a record."""
    # The tests may run as root, for whom Celery thinks that too dangerous.
    monkeypatch.setenv("C_FORCE_ROOT", "1")
    storage: Any = storages["default"]
    media.local.mkdir(exist_ok=True)
    (media.local / "a.txt").write_bytes(b"content")
    publish(filesystem_broker, message("a.txt", storage.remote_path), serializer)
    celery_processes.worker(filesystem_broker, settings={"CELERY_ACCEPT_CONTENT": ["json", serializer]})
    there = TransferRecord.objects.filter(name="a.txt", state="transferred")
    wait_until(there.exists, bound=60, what="the transfer")
    assert (media.remote / "a.txt").read_bytes() == b"content"
    assert ledger.records().count() == 1
