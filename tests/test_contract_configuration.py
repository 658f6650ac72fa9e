"""Configuring a storage: by path, by alias, on a field, through a callable, in migrations; and what is refused."""

from __future__ import annotations

from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, default_storage, storages
from django.db import models
from django.test.utils import isolate_apps
from PIL import Image

from queued_storage import backends, pairs, sweeping, tasks
from queued_storage.backends import QueuedFileSystemStorage, QueuedStorage
from queued_storage.exceptions import StorageConfigurationError
from queued_storage.fields import QueuedFileField, QueuedImageField
from tests.factories import RecordFactory
from tests.fixtures import MakePair, Outbox, Pair, committing, facts, finish, make_due, moved, put, read, record_of
from tests.storages import OptionalStorage

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db
LOCAL, REMOTE = "queued_storage.local.LocalStorage", "tests.storages.OptionalStorage"
SECRETS = {"access_key": "AKIAEXAMPLE", "secret_key": "hunter2-hunter2", "nested": {"password": "correcthorse"}}
PROJECT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "has no local storage. Write "),
        ({"local": LOCAL}, "has no remote storage. Write "),
        ({"local": LOCAL, "remote": FileSystemStorage}, "not as a class"),
        ({"local": FileSystemStorage(), "remote": REMOTE}, "not as an instance"),
        ({"local": LOCAL, "remote": 42}, "not as an instance"),
        ({"local": LOCAL, "remote": ""}, "has no remote storage"),
        ({"local": LOCAL, "remote": REMOTE, "remote_options": "x"}, "remote_options must be a dictionary, not str"),
        ({"local": LOCAL, "remote": "staticfiles", "remote_options": {"a": 1}}, "is an alias of STORAGES"),
        ({"local": LOCAL, "remote": REMOTE, "alias": ""}, "alias must be a string of 1 to 100 characters"),
        ({"local": LOCAL, "remote": REMOTE, "alias": "x" * 101}, "alias must be a string"),
        ({"local": LOCAL, "remote": REMOTE, "alias": 42}, "alias must be a string"),
        ({"local": LOCAL, "remote": REMOTE, "delayed": "yes"}, "delayed must be True, False or a timedelta"),
        ({"local": LOCAL, "remote": REMOTE, "queue": 7}, "queue must be a string"),
        *(
            ({"local": LOCAL, "remote": REMOTE, "max_owed_files": value}, "write a whole number of one or more")
            for value in (0, -1, 1.5, "5", True)
        ),
        *(
            ({"local": LOCAL, "remote": REMOTE, "max_owed_bytes": value}, f"max_owed_bytes={value!r}: write a ")
            for value in (0, -1, 1.5, "5 apples", "0", True)
        ),
        ({"local": LOCAL, "remote": REMOTE, "max_owed_files": 5, "when_full": "wait"}, 'when_full must be "signal", '),
        ({"local": LOCAL, "remote": REMOTE, "when_full": "refuse"}, "needs max_owed_files or max_owed_bytes"),
        ({"local": LOCAL, "remote": REMOTE, "keep_local": 3600}, "keep_local must be True, False, a timedelta or"),
        ({"local": LOCAL, "remote": REMOTE, "verify": "md5"}, 'verify must be "auto", "read" or "size"'),
        ({"local": LOCAL, "remote": REMOTE, "task": 42}, "task must be the dotted path of a Celery task"),
    ],
)
def test_refused_configurations(arguments: dict[str, Any], message: str) -> None:
    """A configuration that cannot work raises ``ImproperlyConfigured`` with one sentence on what to write."""
    with pytest.raises(StorageConfigurationError) as raised:
        QueuedStorage(**arguments)
    assert isinstance(raised.value, ImproperlyConfigured)
    assert message in str(raised.value)


def test_the_order_of_arguments() -> None:
    """Positional arguments keep the order of 0.8, in every class."""
    options = ({"location": "/l"}, {"access_key": "k"})
    storage = QueuedStorage(LOCAL, REMOTE, *options, "prefix", True, "queued_storage.tasks.TransferAndDelete")
    assert (storage.local_path, storage.remote_path) == (LOCAL, REMOTE)
    assert (storage.local_options, storage.remote_options) == options
    assert (storage.cache_prefix, storage.delayed) == ("prefix", True)
    assert storage.task.name == "queued_storage.tasks.TransferAndDelete"


def test_the_default_storage(pair: Pair) -> None:
    """``STORAGES["default"]`` is a queued storage to everybody who asks Django for it."""
    assert storages["default"] is pair
    assert default_storage.save("a.txt", ContentFile(b"content")) == "a.txt"
    assert read(default_storage, "a.txt") == b"content"
    assert (pair.alias, record_of(pair, "a.txt").storage) == ("default", "default")


def test_sides_by_alias(make_pair: MakePair, settings: Any, tmp_path: Path) -> None:
    """Either side may be an alias of STORAGES, and is then exactly that storage."""
    files = "django.core.files.storage.FileSystemStorage"
    make_pair()
    settings.STORAGES = settings.STORAGES | {
        "fast": {"BACKEND": LOCAL, "OPTIONS": {"location": str(tmp_path / "fast")}},
        "far": {"BACKEND": files, "OPTIONS": {"location": str(tmp_path / "far")}},
        "both": {"BACKEND": "queued_storage.backends.QueuedStorage", "OPTIONS": {"local": "fast", "remote": "far"}},
    }
    pair = storages["both"]
    assert (pair.local, pair.remote) == (storages["fast"], storages["far"])
    put(pair, "a.txt")
    finish()
    assert (tmp_path / "far" / "a.txt").read_bytes() == b"content"


class Defaults(QueuedFileSystemStorage):
    """A subclass with defaults, as the documentation shows them."""

    remote = REMOTE
    remote_options = {"access_key": "AKIAEXAMPLE", "secret_key": "hunter2-hunter2"}
    cache_prefix = "mine"
    delayed = timedelta(minutes=5)
    task = "queued_storage.tasks.TransferAndDelete"


def test_class_attributes() -> None:
    """A subclass gives its defaults by class attributes; arguments go before them."""
    storage = Defaults(local_options={"location": "/l"})
    assert (storage.local_path, storage.remote_path) == (LOCAL, REMOTE)
    assert isinstance(storage.remote, OptionalStorage)
    assert (storage.remote.secret_key, storage.prefix, storage.delayed) == (
        "hunter2-hunter2",
        "mine",
        timedelta(minutes=5),
    )
    assert storage.evict_after == timedelta(0)
    other = Defaults(remote_options={"access_key": "other"}, cache_prefix="theirs", delayed=False)
    assert (other.remote_options, other.prefix, other.delayed) == ({"access_key": "other"}, "theirs", False)


def test_the_named_classes() -> None:
    """Every named class of 0.8 is there under its name, a queued storage with a local file system."""
    names = ["S3Boto", "S3", "CouchDB", "Database", "FTP", "MogileFS", "GridFS", "CloudFiles", "SFTP"]
    for name in names:
        cls = getattr(backends, f"Queued{name}Storage")
        assert issubclass(cls, QueuedFileSystemStorage)
        storage = cls(local_options={"location": "/l"})
        assert (storage.local_path, bool(storage.remote_path)) == (LOCAL, True)
    assert backends.QueuedS3BotoStorage is backends.QueuedS3Storage


def test_aliases(make_pair: MakePair) -> None:
    """An alias is the one that was given, that of STORAGES, or made from the settings without their secrets."""
    pair = make_pair()
    assert pair.alias == "default"
    assert QueuedStorage(LOCAL, REMOTE, alias="mine").alias == "mine"
    one, two, three = (
        QueuedStorage(LOCAL, REMOTE, remote_options={"secret_key": secret, "location": location})
        for secret, location in (("first", "/r"), ("second", "/r"), ("first", "/other"))
    )
    assert one.alias == two.alias
    assert one.alias != three.alias
    assert one.alias.startswith("QueuedStorage-")
    same = QueuedStorage(pair.local_path, pair.remote_path, pair.local_options, pair.remote_options)
    assert same.alias == "default"


def test_the_storage_of_a_record(make_pair: MakePair) -> None:
    """A worker finds the storage of a record by its alias alone; one that is gone is an error of its own."""
    pair, other = make_pair(), make_pair("other")
    assert (pairs.pair_for("default"), pairs.pair_for("other")) == (storages["default"], storages["other"])
    assert pair.alias != other.alias
    with pytest.raises(pairs.UnknownStorageError, match="no queued storage has the alias 'gone'"):
        pairs.pair_for("gone")
    with pytest.raises(pairs.UnknownStorageError):
        pairs.pair_for("staticfiles")


BROKEN_ENTRIES = {
    "no class of this name": {"BACKEND": "queued_storage.backends.Nothing"},
    "no such module": {"BACKEND": "nobody.has.this.Storage"},
    "a module that raises": {"BACKEND": "tests.raising.Storage"},
    "no remote": {"BACKEND": "queued_storage.backends.QueuedStorage"},
    "an unknown option": {"BACKEND": "queued_storage.backends.QueuedStorage", "OPTIONS": {"colour": "red"}},
}


@pytest.mark.parametrize("alias", ["another", "default"])
@pytest.mark.parametrize("entry", BROKEN_ENTRIES.values(), ids=BROKEN_ENTRIES)
@committing
def test_a_broken_entry_leaves_the_others_alone(
    make_pair: MakePair, settings: Any, monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any], alias: str
) -> None:
    """What one entry of STORAGES lacks stops neither saves nor transfers of the others, nor the sweep."""
    make_pair("healthy")
    # A storage of another test is found for as long as it lives.
    monkeypatch.setattr(pairs, "_instances", WeakValueDictionary())
    settings.STORAGES = {alias: entry, **{name: each for name, each in settings.STORAGES.items() if name != alias}}
    pair = storages["healthy"]
    assert (pair.alias, pairs.pair_for("healthy")) == ("healthy", pair)
    record = put(pair, "a.txt")
    sick = RecordFactory(storage=alias, name="b.txt")
    make_due(record, sick)
    sweeping.sweep(sweeping.process_all)
    assert facts(record, b"content") == moved("a.txt", b"content", storage="healthy")
    sick.refresh_from_db()
    assert (sick.state, sick.error_kind) == ("queued", "settings")
    assert sweeping.collect_staging() == 0


def test_a_task_whose_module_raises(make_pair: MakePair) -> None:
    """A record whose task cannot be imported keeps nobody waiting and says why."""
    pair, sick = make_pair(), make_pair("sick", task="tests.raising.MyTransfer")
    records = [RecordFactory(storage="sick", name="b.txt"), RecordFactory(storage="default", name="a.txt")]
    tasks.send(records)
    for record in records:
        record.refresh_from_db()
    assert [record.error_kind for record in records] == ["settings", ""]
    assert "this module cannot be imported" in records[0].error
    with pytest.raises(StorageConfigurationError, match="this module cannot be imported"):
        sick.save("c.txt", ContentFile(b"content"))
    assert pair.exists("c.txt") is False


def field_model(storage: Any) -> Any:
    """Make a model with a file and an image on a storage; it has no table."""

    class Paper(models.Model):  # noqa: DJ008 never printed
        file = QueuedFileField(storage=storage, upload_to="papers", max_length=60)
        image = QueuedImageField(storage=storage)

        class Meta:
            app_label = "testapp"

    return Paper


@isolate_apps("tests.app")
@pytest.mark.parametrize("given", ["instance", "callable", "alias"])
@committing
def test_on_a_field(make_pair: MakePair, outbox: Outbox, given: str) -> None:
    """A field takes a storage as an instance, through a callable, or the default one; its files have ``transfer()``."""
    pair = make_pair(delayed=True)
    storage = {"instance": pair, "callable": lambda: storages["default"], "alias": None}[given]
    model = field_model(storage)
    paper, long, empty = model(), model(), model()
    paper.file.save("a.txt", ContentFile(b"content"), save=False)
    assert paper.file.name == "papers/a.txt"
    assert facts(record_of(pair, paper.file.name))["state"] == "delayed"
    assert paper.file.transfer() is not None
    outbox.deliver()
    assert facts(record_of(pair, paper.file.name), b"content") == moved("papers/a.txt", b"content")
    long.file.save("a" * 100 + ".txt", ContentFile(b"content"), save=False)
    assert len(long.file.name) <= 60
    with pytest.raises(ValueError, match="has no file"):
        empty.file.transfer()


@isolate_apps("tests.app")
def test_an_image_field(make_pair: MakePair) -> None:
    """The image twin knows its dimensions and has ``transfer()``."""
    pair, picture = make_pair(), BytesIO()
    Image.new("RGB", (3, 2)).save(picture, "PNG")
    paper = field_model(pair)()
    paper.image.save("a.png", ContentFile(picture.getvalue()), save=False)
    assert (paper.image.width, paper.image.height) == (3, 2)
    assert facts(record_of(pair, "a.png"))["content_type"] == "image/png"
    assert callable(paper.image.transfer)


@isolate_apps("tests.app")
def test_saving_without_transfer(make_pair: MakePair) -> None:
    """Replacing the file of an instance keeps the old one, as Django does, until somebody deletes it."""
    pair = make_pair()
    paper = field_model(pair)()
    paper.file.save("a.txt", ContentFile(b"first"), save=False)
    first = paper.file.name
    paper.file.save("a.txt", ContentFile(b"second"), save=False)
    assert (read(pair, first), read(pair, paper.file.name)) == (b"first", b"second")
