"""A storage whose own ``save()`` does more is saved to by it each time, not the first time alone."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("obstore")

from django.core.files.base import ContentFile

from queued_storage.remotes.objectstore import ObjectStorage
from queued_storage.remotes.registry import adapter_for


class Sealing(ObjectStorage):
    """Hides what it is given."""

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Save the bytes the other way round."""
        return super().save(name, ContentFile(content.read()[::-1]), max_length)


def test_a_save_of_its_own() -> None:
    """Also after the store was seen to refuse a taken name."""
    storage = Sealing("memory:///")
    adapter = adapter_for(storage)
    for name in ("a.txt", "b.txt"):
        adapter.upload(storage, name, ContentFile(b"abc"))
    found = []
    for name in ("a.txt", "b.txt"):
        with storage.open(name) as file:
            found.append(file.read())
    assert found == [b"cba", b"cba"]
