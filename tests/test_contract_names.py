"""Names: as long as Django allows, as free as they must be, and refused before anybody is asked."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, Storage

from queued_storage.models import TransferRecord
from tests.conftest import Media
from tests.fixtures import MakePair, Pair, put

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


def outcome(storage: Storage, names: list[str], max_length: int | None) -> list[Any]:
    """Save each name and return what came of it: the shape of the name, or the class of the error."""
    results: list[Any] = []
    for name in names:
        try:
            result = storage.save(name, ContentFile(b"content"), max_length=max_length)
            assert max_length is None or len(result) <= max_length
            results.append(re.sub(r"_[0-9A-Za-z]{7}(?=\.|$)", "_RANDOM", result))
        except Exception as error:
            results.append(type(error))
    return results


MAX_LENGTHS = [
    (["a.txt"], None),
    (["a.txt", "a.txt", "a.txt"], None),
    (["a.txt", "a.txt"], 100),
    (["docs/a.txt", "docs/a.txt"], 14),
    (["a" * 50 + ".txt"], 20),
    (["a" * 50 + ".txt"] * 2, 20),
    (["docs/" + "a" * 50 + ".txt"], 24),
    (["a.txt"], 5),
    (["a.txt", "a.txt"], 12),
    (["a.txt"], 4),
    (["a.txt"], 1),
    (["a" * 100], 100),
    (["a" * 101], 100),
    (["é" * 60 + ".txt"], 30),
    (["a.tar.gz", "a.tar.gz"], None),
    (["a", "a"], None),
    ([".hidden", ".hidden"], None),
    (["a.b.c.d", "a.b.c.d"], 20),
    (["docs/x/y/" + "a" * 10], 12),
    (["docs/x/y/" + "a" * 10], 9),
    (["../a.txt"], None),
    (["/a.txt"], None),
    (["docs/"], None),
    ([""], None),
    (["."], None),
    ([".."], None),
]


@pytest.mark.parametrize(("names", "max_length"), MAX_LENGTHS, ids=[str(number) for number in range(len(MAX_LENGTHS))])
@pytest.mark.parametrize("local", ["queued_storage.local.LocalStorage", "django.core.files.storage.FileSystemStorage"])
def test_names_and_lengths_as_in_django(
    make_pair: MakePair, tmp_path: Path, names: list[str], max_length: int | None, local: str
) -> None:
    """Names and ``max_length`` come out as in Django's own storage: the same shapes, the same errors."""
    pair, django = make_pair(local=local), FileSystemStorage(tmp_path / "django")
    assert outcome(pair, names, max_length) == outcome(django, names, max_length)


@pytest.mark.parametrize("method", ["get_valid_name", "generate_filename", "get_alternative_name"])
@pytest.mark.parametrize("name", ["a b.txt", "docs/a b.txt", "ü?.txt", "a" * 120 + ".txt"])
def test_names_as_in_django(pair: Pair, method: str, name: str) -> None:
    """The methods that make names answer as in Django's own storage."""
    arguments = (name, ".txt") if method == "get_alternative_name" else (name,)
    answers = [getattr(storage, method)(*arguments) for storage in (pair, FileSystemStorage())]
    ours, django = (re.sub(r"_[0-9A-Za-z]{7}(?=\.|$)", "", answer) for answer in answers)
    assert ours == django


def test_available_names(pair: Pair, media: Media) -> None:
    """A name is available if no record and no local file has it; the remote is not asked."""
    put(pair, "a.txt")
    (media.local / "b.txt").write_bytes(b"foreign")
    (media.remote / "c.txt").write_bytes(b"foreign")
    assert [pair.is_name_available(name) for name in ("a.txt", "b.txt", "c.txt", "d.txt")] == [False, False, True, True]
    assert pair.is_name_available("long.txt", max_length=4) is False
    assert pair.get_available_name("d.txt") == "d.txt"
    assert re.fullmatch(r"a_[0-9A-Za-z]{7}\.txt", pair.get_available_name("a.txt"))
    assert len(pair.get_available_name("a" * 80 + ".txt", max_length=30)) == 30
    with pytest.raises(SuspiciousFileOperation):
        pair.get_available_name("a.txt", max_length=4)


METHODS = ["open", "exists", "size", "url", "path", "delete", "transfer", "get_storage", "using_local", "using_remote"]
METHODS += ["get_cache_key", "get_accessed_time", "get_created_time", "get_modified_time", "is_name_available"]
METHODS += ["get_available_name"]
NAMES: list[Any] = ["../a.txt", "/a.txt", "docs/../../a.txt", "a\x00.txt", "C:/a.txt", "a\u202etxt.exe", "\ud800.txt"]
NAMES += ["", ".", "..", "docs/", ".queued_storage/staging/x", "a" * 1025]


@pytest.mark.parametrize(("method", "name"), list(itertools.product(METHODS, NAMES)))
def test_refused_names(make_pair: MakePair, method: str, name: str, django_assert_num_queries: Any) -> None:
    """Every method refuses a bad name before it asks anybody anything."""
    pair = make_pair(remote="tests.storages.BrokenStorage")
    with django_assert_num_queries(0), pytest.raises(SuspiciousFileOperation):
        getattr(pair, method)(name)
    assert pair.remote.calls == []


@pytest.mark.parametrize("name", NAMES)
def test_names_that_cannot_be_saved(pair: Pair, media: Media, name: str) -> None:
    """A bad name cannot be saved and leaves nothing; only a component that is too long is cut."""
    with pytest.raises(SuspiciousFileOperation):
        pair.save(name, ContentFile(b"content"))
    assert (TransferRecord.objects.count(), [path for path in media.local.rglob("*") if path.is_file()]) == (0, [])
