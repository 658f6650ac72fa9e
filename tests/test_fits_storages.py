"""What other packages do with a storage that they know nothing of: ask for paths, build it anew, name its class."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from django.core.files.storage import storages
from django.db import models
from django.db.migrations.state import ModelState
from django.utils.module_loading import import_string

from queued_storage.backends import QueuedStorage
from tests.conftest import Media
from tests.fixtures import MakePair, committing, put, read, transfer

pytest_plugins = ["tests.fixtures"]


def rebuilt(storage: Any) -> Any:
    """Build a storage anew from what it says of itself, as a background task of Wagtail does."""
    path, arguments, options = storage.deconstruct()
    return import_string(path)(*arguments, **options)


@committing
def test_a_rebuilt_storage_is_the_same_one(make_pair: MakePair) -> None:
    """Built anew without its options, a storage of STORAGES has them all, and knows its files."""
    pair = make_pair("other", keep_local=False, queue="slow", delayed=True)
    again = rebuilt(pair)
    assert again.configuration() == pair.configuration()
    rules = ("alias", "keep_local", "queue", "delayed", "overwrite", "verify", "staleness", "task_path")
    assert [getattr(again, name) for name in rules] == [getattr(pair, name) for name in rules]
    put(pair, "a.txt")
    assert read(again, "a.txt") == b"content"
    again.delete("a.txt")
    assert not pair.exists("a.txt")


def test_a_rebuilt_storage_of_another_name(settings: Any) -> None:
    """The options are those of the same class and the same two sides, or none: no other storage is taken for it."""
    entry = deepcopy(settings.STORAGES["default"])
    settings.STORAGES = settings.STORAGES | {"other": entry}
    own = entry["OPTIONS"]
    sides = {"local": own["local"], "remote": own["remote"]}
    assert QueuedStorage(**sides, alias="other").remote_options == own["remote_options"]
    assert QueuedStorage(**sides, alias="nobody").remote_options == {}
    assert QueuedStorage(**sides, alias="staticfiles").remote_options == {}
    elsewhere = {**sides, "remote": "queued_storage.remotes.ftp.FTPStorage"}
    assert QueuedStorage(**elsewhere, alias="other").remote_options == {}
    assert QueuedStorage(**sides, alias="other", remote_options={"location": "/x"}).remote_options == {"location": "/x"}

    class Mine(QueuedStorage):
        """Another class."""

    assert Mine(**sides, alias="other").remote_options == {}


def test_a_migration_has_no_options_and_the_same_storage(make_pair: MakePair) -> None:
    """What a migration says of a field's storage is without options, and comes back with them."""
    pair = make_pair("other")
    field = models.FileField(storage=storages["other"])
    _, _, _, keywords = field.deconstruct()
    _, _, options = keywords["storage"].deconstruct()
    assert {*options} == {"local", "remote", "alias"}
    assert rebuilt(keywords["storage"]).configuration() == pair.configuration()
    assert ModelState("x", "Y", [("file", field)]).fields["file"].storage is field.storage


@committing
@pytest.mark.parametrize("remote", ["tests.storages.SpyStorage", "queued_storage.testing.FaultyRemoteStorage"])
def test_the_path_of_a_made_up_name(make_pair: MakePair, media: Media, remote: str) -> None:
    """Of a name that nobody knows there is the path where the remote would have it, or no path; nobody is asked."""
    options = {"name": "fits"} if remote.startswith("queued") else {}
    pair = make_pair(remote=remote)
    if options:
        pair.remote_options = options
        with pytest.raises(NotImplementedError):
            pair.path("test")
    else:
        assert pair.path("test") == str(media.remote / "test")
        assert pair.remote.calls == []


@committing
def test_the_paths_of_files(pair: Any, media: Media) -> None:
    """A local file without a record has its path, a deleted one has none."""
    media.local.mkdir(exist_ok=True)
    (media.local / "old.txt").write_bytes(b"x")
    assert pair.path("old.txt") == str(media.local / "old.txt")
    transfer(pair, "a.txt")
    pair.delete("a.txt")
    with pytest.raises(FileNotFoundError):
        pair.path("a.txt")
