"""Files opened for writing: staged, a new record when closed, nothing at all after an exception."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from django.core.files.base import ContentFile

from queued_storage.models import TransferRecord
from tests.conftest import Media
from tests.fixtures import MakePair, Outbox, Pair, committing, facts, finish, put, read, record_of, saved, transfer

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def overwriting(make_pair: MakePair) -> Pair:
    """A storage that replaces files."""
    return make_pair(overwrite=True)


def files(media: Media) -> list[str]:
    """Return what lies in both folders, staging included."""
    return sorted(
        str(path.name) for folder in (media.local, media.remote) for path in folder.rglob("*.*") if path.is_file()
    )


@pytest.mark.parametrize("mode", ["w", "wb", "x", "xb", "a", "ab", "w+", "w+b"])
def test_a_new_file(pair: Pair, mode: str) -> None:
    """A free name can be opened in every mode that makes a file; it is saved when it is closed."""
    content: Any = b"written" if "b" in mode else "written"
    with pair.open("new.txt", mode) as file:
        file.write(content)
        assert not pair.exists("new.txt")
    assert facts(record_of(pair, "new.txt"), b"written") == saved("new.txt", b"written")
    assert read(pair, "new.txt") == b"written"


def test_text_is_written_as_utf8(pair: Pair) -> None:
    """Text modes write and read UTF-8, whatever the locale says."""
    with pair.open("new.txt", "w") as file:
        file.write("grüße\n")
    assert read(pair, "new.txt") == "grüße\n".encode()
    with pair.open("new.txt", "r") as file:
        assert file.read() == "grüße\n"


@pytest.mark.parametrize("mode", ["w", "wb", "x", "xb", "a", "ab", "r+", "r+b", "w+"])
def test_an_existing_file_is_not_touched(pair: Pair, mode: str) -> None:
    """A storage that does not overwrite refuses to open an existing file for writing, at once."""
    put(pair, "a.txt", b"first")
    with pytest.raises(FileExistsError):
        pair.open("a.txt", mode)
    assert read(pair, "a.txt") == b"first"
    assert TransferRecord.objects.count() == 1


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(
    ("mode", "expected"), [("wb", b"XY"), ("w+b", b"XY"), ("ab", b"firstXY"), ("r+b", b"XYrst"), ("a+b", b"firstXY")]
)
def test_an_existing_file_is_replaced(overwriting: Pair, mode: str, expected: bytes, moved: bool) -> None:
    """Where files are overwritten each mode begins with the bytes it should, and ends as a record."""
    first = transfer(overwriting, "a.txt", b"first") if moved else put(overwriting, "a.txt", b"first")
    with overwriting.open("a.txt", mode) as file:
        file.write(b"XY")
        assert read(overwriting, "a.txt") == b"first"
    second = record_of(overwriting, "a.txt")
    assert (second.pk != first.pk, second.generation) == (True, 2)
    assert read(overwriting, "a.txt") == expected
    finish()
    assert read(overwriting, "a.txt") == expected


def test_reading_in_a_mode_for_both(overwriting: Pair) -> None:
    """A file opened for reading and writing can be read before it is written."""
    put(overwriting, "a.txt", b"first")
    with overwriting.open("a.txt", "r+") as file:
        assert file.read() == "first"
        file.write(" second")
    assert read(overwriting, "a.txt") == b"first second"


@pytest.mark.parametrize("mode", ["r+", "r+b"])
def test_a_missing_file_cannot_be_updated(pair: Pair, mode: str) -> None:
    """Updating a file that is not there raises ``FileNotFoundError`` and leaves nothing."""
    with pytest.raises(FileNotFoundError):
        pair.open("a.txt", mode)
    assert not TransferRecord.objects.exists()


def test_exclusive_where_files_are_replaced(overwriting: Pair) -> None:
    """Mode ``x`` refuses an existing file even where others are replaced."""
    put(overwriting, "a.txt", b"first")
    with pytest.raises(FileExistsError):
        overwriting.open("a.txt", "xb")
    assert read(overwriting, "a.txt") == b"first"


def test_exclusive_against_a_save_meanwhile(overwriting: Pair) -> None:
    """A file opened with ``x`` does not replace what somebody else saved before it was closed."""
    file = overwriting.open("a.txt", "xb")
    file.write(b"late")
    put(overwriting, "a.txt", b"first")
    with pytest.raises(FileExistsError):
        file.close()
    assert read(overwriting, "a.txt") == b"first"


@pytest.mark.parametrize("mode", ["wb", "ab", "xb"])
def test_a_save_meanwhile_wins(pair: Pair, media: Media, mode: str) -> None:
    """Closing raises if somebody else saved the name meanwhile; that file stays and nothing is left of ours."""
    file = pair.open("a.txt", mode)
    file.write(b"late")
    put(pair, "a.txt", b"first")
    with pytest.raises(FileExistsError):
        file.close()
    assert read(pair, "a.txt") == b"first"
    assert TransferRecord.objects.count() == 1
    assert files(media) == ["a.txt"]


@pytest.mark.parametrize("options", [{}, {"overwrite": True}])
@pytest.mark.parametrize("mode", ["w", "wb", "ab", "xb"])
@committing
def test_after_an_exception(
    make_pair: MakePair, media: Media, outbox: Outbox, mode: str, options: dict[str, Any]
) -> None:
    """After an exception inside ``with`` nothing is visible and nothing is owed."""
    pair = make_pair(**options)
    with pytest.raises(ZeroDivisionError), pair.open("a.txt", mode) as file:
        file.write(b"half" if "b" in mode else "half")
        raise ZeroDivisionError
    assert file.closed
    assert not pair.exists("a.txt")
    assert (TransferRecord.objects.count(), files(media), outbox.take()) == (0, [], [])


def test_after_an_exception_the_old_file_stays(overwriting: Pair) -> None:
    """After an exception the file that was to be replaced is untouched."""
    first = put(overwriting, "a.txt", b"first")
    with pytest.raises(ZeroDivisionError), overwriting.open("a.txt", "r+b") as file:
        file.write(b"XX")
        raise ZeroDivisionError
    assert read(overwriting, "a.txt") == b"first"
    assert facts(first, b"first") == saved("a.txt", b"first")


def test_a_forgotten_file(pair: Pair, media: Media) -> None:
    """A file that was never closed is not saved: nobody said that it was complete."""
    file = pair.open("a.txt", "wb")
    file.write(b"half")
    del file
    gc.collect()
    assert (pair.exists("a.txt"), files(media)) == (False, [])


def test_closing_twice(pair: Pair) -> None:
    """Closing again does nothing, and writing to a closed file raises."""
    file = pair.open("a.txt", "wb")
    file.write(b"once")
    file.close()
    file.close()
    assert TransferRecord.objects.count() == 1
    with pytest.raises(ValueError, match="closed"):
        file.write(b"more")


def test_an_empty_file(pair: Pair) -> None:
    """A file that was opened and closed is there, and empty."""
    pair.open("a.txt", "wb").close()
    assert facts(record_of(pair, "a.txt"), b"") == saved("a.txt", b"")
    finish()
    assert (read(pair, "a.txt"), pair.size("a.txt")) == (b"", 0)


def test_a_file_without_a_record_is_appended_to(overwriting: Pair, media: Media) -> None:
    """What others have put on the remote can be appended to; their file stays as it is."""
    (media.remote / "a.txt").write_bytes(b"foreign")
    with overwriting.open("a.txt", "ab") as file:
        file.write(b" and more")
    finish()
    assert read(overwriting, "a.txt") == b"foreign and more"
    assert (media.remote / "a.txt").read_bytes() == b"foreign"


def test_a_deleted_name_is_written_again(overwriting: Pair) -> None:
    """Where names are reused, a deleted name can be written at once, and appending begins with nothing."""
    put(overwriting, "a.txt", b"first")
    overwriting.delete("a.txt")
    with overwriting.open("a.txt", "ab") as file:
        file.write(b"second")
    finish()
    assert read(overwriting, "a.txt") == b"second"
    assert record_of(overwriting, "a.txt").generation == 2


def test_a_deleted_name_is_refused_where_names_are_used_once(pair: Pair) -> None:
    """Where names are used once, a deleted name cannot be opened for writing before it is pruned."""
    put(pair, "a.txt", b"first")
    pair.delete("a.txt")
    with pytest.raises(FileExistsError, match="deleted"):
        pair.open("a.txt", "wb")


@pytest.mark.parametrize("mode", ["wb", "xb", "r+b", "ab", "w"])
def test_refused_names(pair: Pair, mode: str) -> None:
    """A name that is refused is refused before anything is opened."""
    from django.core.exceptions import SuspiciousFileOperation

    with pytest.raises(SuspiciousFileOperation):
        pair.open("../a.txt", mode)


def test_a_field_file_is_opened_for_writing(pair: Pair) -> None:
    """A model's file can be opened for writing where the storage overwrites, as with any storage of Django."""
    from tests.app.models import Document

    document = Document(title="one")
    document.file.save("a.txt", ContentFile(b"first"))
    with pytest.raises(FileExistsError):
        document.file.storage.open(document.file.name, "wb")
    assert read(pair, document.file.name) == b"first"
