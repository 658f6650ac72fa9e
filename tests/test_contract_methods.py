"""Every method of the storage, as Django documents it, and as Django's own storage answers."""

from __future__ import annotations

import io
import warnings
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage
from django.core.files.uploadedfile import InMemoryUploadedFile, SimpleUploadedFile, TemporaryUploadedFile
from django.utils import timezone

from queued_storage import sweeping
from queued_storage.models import TransferRecord
from tests.app.models import Document
from tests.conftest import Media
from tests.fixtures import MakePair, Pair, facts, put, read, record_of, saved, transfer

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


def test_a_real_storage(pair: Pair) -> None:
    """The storage is a Django ``Storage`` with every public method of it."""
    assert isinstance(pair, Storage)
    for name in (name for name in dir(Storage) if not name.startswith("_")):
        assert callable(getattr(pair, name))


@pytest.mark.parametrize(
    "content",
    [
        lambda: ContentFile(b"content"),
        lambda: ContentFile("content"),
        lambda: ContentFile(b"content", name="other.txt"),
        lambda: io.BytesIO(b"content"),
        lambda: File(io.BytesIO(b"content")),
        lambda: SimpleUploadedFile("other.txt", b"content", "text/plain"),
    ],
    ids=["bytes", "str", "named", "BytesIO", "File", "upload"],
)
@pytest.mark.parametrize("local", ["queued_storage.local.LocalStorage", "django.core.files.storage.FileSystemStorage"])
def test_save(make_pair: MakePair, content: Any, local: str) -> None:
    """Whatever Django's storages can save can be saved, on any local storage."""
    pair = make_pair(local=local)
    assert pair.save("docs/a.txt", content()) == "docs/a.txt"
    assert facts(record_of(pair, "docs/a.txt"), b"content") == saved("docs/a.txt", b"content")
    assert read(pair, "docs/a.txt") == b"content"


def test_save_a_temporary_upload(pair: Pair) -> None:
    """A large upload, which Django keeps in a temporary file, is saved with its digest and content type."""
    upload = TemporaryUploadedFile("a.bin", "application/x-own", 0, None)
    upload.write(b"x" * 300_000)
    upload.seek(0)
    name = pair.save("a.bin", upload)
    upload.close()
    record = record_of(pair, name)
    assert facts(record, b"x" * 300_000) == saved("a.bin", b"x" * 300_000, content_type="application/x-own")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("image/png", "image/png"),
        ("", "text/plain"),
        (None, "text/plain"),
        ("text/html\r\nX-Evil: 1", ""),
        ("ü/ü", ""),
        ("x" * 300, ""),
        (42, ""),
    ],
)
def test_content_types(pair: Pair, given: Any, kept: str) -> None:
    """The uploader's content type is kept if it is a plain one; without one the name decides."""
    upload = InMemoryUploadedFile(io.BytesIO(b"content"), "file", "a.txt", given, 7, None)
    upload.content_type = given
    assert record_of(pair, pair.save("a.txt", upload)).content_type == kept


def test_save_without_a_name(pair: Pair) -> None:
    """``save(None, content)`` takes the content's name, and without one says what to do."""
    assert pair.save(None, ContentFile(b"content", name="docs/a.txt")) == "docs/a.txt"
    with pytest.raises(ValueError, match="needs a name"):
        pair.save(None, ContentFile(b"content"))


def test_where_it_is(pair: Pair) -> None:
    """``get_storage``, ``using_local`` and ``using_remote`` follow the file."""
    put(pair, "a.txt")
    answers = pair.get_storage("a.txt"), pair.using_local("a.txt"), pair.using_remote("a.txt")
    assert answers == (pair.local, True, False)
    transfer(pair, "b.txt")
    answers = pair.get_storage("b.txt"), pair.using_local("b.txt"), pair.using_remote("b.txt")
    assert answers == (pair.remote, False, True)
    assert pair.get_storage("nothing.txt") is pair.local


def test_reading(make_pair: MakePair) -> None:
    """A file can be read in chunks, by lines and as text, on either side."""
    pair = make_pair(keep_local=False)
    put(pair, "a.txt", "eins\nzwei ü\n".encode())
    for _ in range(2):
        with pair.open("a.txt") as file:
            assert list(file) == [b"eins\n", "zwei ü\n".encode()]
        with pair.open("a.txt", "r") as file:
            assert file.read() == "eins\nzwei ü\n"
        with pair.open("a.txt", "rb") as file:
            assert (file.read(4), file.size) == (b"eins", 13)
        sweeping.process(record_of(pair, "a.txt").pk)
    assert pair.using_remote("a.txt")


def test_paths_and_urls(pair: Pair, media: Media) -> None:
    """``path`` and ``url`` are those of the side that serves the file."""
    put(pair, "docs/ä b.txt")
    assert pair.path("docs/ä b.txt") == str(media.local / "docs/ä b.txt")
    assert pair.url("docs/ä b.txt") == "/media/docs/%C3%A4%20b.txt"
    transfer(pair, "b.txt")
    assert (pair.path("b.txt"), pair.url("b.txt")) == (str(media.remote / "b.txt"), "https://remote.example/b.txt")


def test_the_url_of_a_model(pair: Pair) -> None:
    """A model's file answers through the storage."""
    document = Document()
    document.file.save("a.txt", ContentFile(b"content"))
    assert (document.file.url, document.file.size) == ("/media/documents/a.txt", 7)


def test_unknown_files(pair: Pair) -> None:
    """A file that is nowhere does not exist, and every question about it raises ``FileNotFoundError``."""
    assert (pair.exists("nothing.txt"), pair.using_local("nothing.txt")) == (False, True)
    times = pair.get_accessed_time, pair.get_created_time, pair.get_modified_time
    for question in (pair.open, pair.size, *times):
        with pytest.raises(FileNotFoundError):
            question("nothing.txt")


@pytest.mark.parametrize("side", ["local", "remote"])
def test_files_without_a_record(pair: Pair, media: Media, side: str) -> None:
    """A file that others put there is found on either side, with all its answers."""
    (getattr(media, side) / "a.txt").write_bytes(b"foreign")
    assert (pair.exists("a.txt"), pair.size("a.txt"), read(pair, "a.txt")) == (True, 7, b"foreign")
    assert pair.get_storage("a.txt") is getattr(pair, side)
    assert pair.path("a.txt") == str(getattr(media, side) / "a.txt")
    assert pair.get_modified_time("a.txt") <= timezone.now()
    assert pair.url("a.txt") == {"local": "/media/a.txt", "remote": "https://remote.example/a.txt"}[side]
    assert TransferRecord.objects.count() == 0


def test_local_before_remote(pair: Pair, media: Media) -> None:
    """A file without a record on both sides is the local one."""
    (media.local / "a.txt").write_bytes(b"local")
    (media.remote / "a.txt").write_bytes(b"remote")
    assert (read(pair, "a.txt"), pair.using_local("a.txt")) == (b"local", True)


def test_a_new_record_goes_before_what_was_remembered(pair: Pair, media: Media) -> None:
    """A file saved under the name of a foreign remote file is itself, though the other one was just asked for."""
    (media.remote / "a.txt").write_bytes(b"foreign")
    assert read(pair, "a.txt") == b"foreign"
    put(pair, "a.txt", b"ours")
    assert (read(pair, "a.txt"), pair.using_local("a.txt")) == (b"ours", True)


def test_listing(pair: Pair, media: Media) -> None:
    """A directory holds what either side has, under the names that people know, and nothing that was deleted."""
    put(pair, "docs/waiting.txt")
    transfer(pair, "docs/moved.txt")
    put(pair, "docs/deleted.txt")
    put(pair, "docs/deeper/a.txt")
    pair.delete("docs/deleted.txt")
    (media.remote / "docs" / "foreign.txt").write_bytes(b"foreign")
    assert pair.listdir("docs") == (["deeper"], ["foreign.txt", "moved.txt", "waiting.txt"])
    assert pair.listdir("docs/") == pair.listdir("docs")
    assert pair.listdir("") == (["docs"], [])
    with pytest.raises(FileNotFoundError):
        pair.listdir("nothing")


def test_listing_generations(make_pair: MakePair) -> None:
    """A file that was replaced is listed once, under its name, wherever its bodies lie."""
    pair = make_pair(overwrite=True)
    for step in range(4):
        put(pair, "docs/a.txt", b"%d" % step)
        if step == 1:
            sweeping.process(record_of(pair, "docs/a.txt").pk)
        assert pair.listdir("docs") == ([], ["a.txt"])
    pair.delete("docs/a.txt")
    assert pair.listdir("docs") == ([], [])


def test_a_name_like_a_generation(pair: Pair) -> None:
    """A file whose own name looks like that of a generation is listed, and is nothing else than itself."""
    name = "a.g2-0123456789abcdef.txt"
    put(pair, name)
    assert (pair.listdir("")[1], read(pair, name), pair.exists("a.txt")) == ([name], b"content", False)


@pytest.mark.parametrize("moved", [False, True])
def test_times(pair: Pair, moved: bool) -> None:
    """Times are aware, about now, and do not change when the file moves."""
    before = timezone.now() - timedelta(seconds=5)
    put(pair, "a.txt")
    first = pair.get_created_time("a.txt"), pair.get_modified_time("a.txt")
    if moved:
        sweeping.process(record_of(pair, "a.txt").pk)
    assert (pair.get_created_time("a.txt"), pair.get_modified_time("a.txt")) == first
    for time in (*first, pair.get_accessed_time("a.txt")):
        assert before <= time <= timezone.now() + timedelta(seconds=5)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_times_without_time_zones(pair: Pair, settings: Any, zone: str) -> None:
    """Without USE_TZ times are naive and local, as in Django's own storage."""
    settings.USE_TZ, settings.TIME_ZONE = False, zone
    put(pair, "a.txt")
    django = pair.local.get_modified_time("a.txt")
    for time in (pair.get_created_time("a.txt"), pair.get_modified_time("a.txt"), pair.get_accessed_time("a.txt")):
        assert timezone.is_naive(time)
        assert abs(time - django) < timedelta(seconds=30)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("accessed_time", "get_accessed_time"),
        ("created_time", "get_created_time"),
        ("modified_time", "get_modified_time"),
    ],
)
def test_the_old_names_of_times(pair: Pair, settings: Any, old: str, new: str) -> None:
    """The names from before Django 2 work, warn, and return naive local time as they did."""
    settings.TIME_ZONE = "Asia/Tokyo"
    put(pair, "a.txt")
    with pytest.warns(DeprecationWarning, match=rf"{old}\(\) is deprecated; call {new}\(\)"):
        value = getattr(pair, old)("a.txt")
    assert timezone.is_naive(value)
    assert abs(timezone.make_aware(value) - timezone.now()) < timedelta(seconds=30)


def test_nothing_else_warns(pair: Pair) -> None:
    """Ordinary use gives no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transfer(pair, "a.txt")
        read(pair, "a.txt")
        pair.delete("a.txt")
