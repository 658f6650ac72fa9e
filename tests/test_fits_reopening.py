"""A file is opened, closed and opened again on the same model instance, as Django's own storages allow."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.files.base import ContentFile

from queued_storage.remotes.streams import remote_file
from queued_storage.testing import run_owed
from tests.app.models import Document
from tests.fixtures import committing

pytest_plugins = ["tests.fixtures"]


@committing
def test_a_local_file(pair: Any) -> None:
    """While it is local."""
    document = Document()
    document.file.save("a.txt", ContentFile(b"content"))
    for _ in range(3):
        with document.file.open() as file:
            assert file.read() == b"content"


@committing
def test_a_transferred_file(pair: Any) -> None:
    """After its transfer, and across it."""
    Document.objects.create(file=ContentFile(b"content", name="a.txt"))
    document = Document.objects.get()
    with document.file.open() as file:
        assert file.read() == b"content"
    assert run_owed() == {"transferred": 1}
    for _ in range(2):
        with document.file.open() as file:
            assert file.read() == b"content"


def test_a_file_of_our_remotes() -> None:
    """A file that is read from a remote as a stream is asked for once more when it is opened again."""
    asked: list[int] = []

    def fetch(offset: int) -> io.BytesIO:
        asked.append(offset)
        return io.BytesIO(b"content"[offset:])

    file = remote_file("a.txt", 7, fetch)
    assert file.read() == b"content"
    assert file.open().read() == b"content"
    file.close()
    with file.open("rb") as again:
        assert again.read() == b"content"
        assert (again.size, again.name) == (7, "a.txt")
    assert len(asked) >= 2
    with pytest.raises(ValueError, match="opened for reading"):
        file.open("wb")
