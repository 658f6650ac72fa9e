"""A place that the remote refuses, though it shows nothing there, does not hold a file up for ever."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.base import ContentFile

from queued_storage import sweeping
from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.remotes.streamed import taken
from tests.fixtures import MakePair, put, read, record_of
from tests.storages import SpyStorage

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


class FolderStorage(SpyStorage, RemoteStorage):
    """A remote of files and folders; a folder is no file, and no file can have its name."""

    def stat(self, name: str) -> Stat | None:
        """Return the size of a file."""
        return None if name in self.listdir("")[0] or not self.exists(name) else Stat(self.size(name))

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Save under this name or none."""
        if self.exists(name):
            raise taken(str(name))
        return super().save(name, content, max_length)


def test_a_folder_has_the_name(make_pair: MakePair) -> None:
    """The file goes to another place."""
    pair = make_pair(remote="tests.test_review_places.FolderStorage")
    pair.remote.save("a/b.txt", ContentFile(b"below"))
    record = put(pair, "a")
    outcomes = [sweeping.process(record.pk)]
    while outcomes[-1] == "retry" and len(outcomes) < 10:
        outcomes.append(sweeping.process(record.pk))
    # An object of an earlier attempt may show late: it is waited for as long as retries last.
    assert outcomes == ["retry"] * 5 + ["transferred"]
    assert record_of(pair, "a").remote_name != "a"
    assert read(pair, "a") == b"content"
