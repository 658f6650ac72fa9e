"""What LocalStorage does where nothing fails: names, contents, modes, links, uploads, leftovers."""

from __future__ import annotations

import ctypes
import hashlib
import io
import os
import stat
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile, File
from django.core.files.uploadedfile import InMemoryUploadedFile, SimpleUploadedFile, TemporaryUploadedFile
from django.db.migrations.writer import MigrationWriter
from django.test import override_settings

from queued_storage.exceptions import StorageConfigurationError
from queued_storage.local import LocalStorage
from queued_storage.names import STAGING_DIRECTORY
from tests.test_names import KEPT, REFUSED, RESPELLED


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The location of the storage, not yet made."""
    return tmp_path / "media"


@pytest.fixture
def storage(root: Path) -> LocalStorage:
    """A storage with Django's default modes."""
    return LocalStorage(root, "/media/", 0o644)


def public(root: Path) -> dict[str, bytes]:
    """Return every file below the root, links included, that is not in staging."""
    found = {}
    for directory, _, files in os.walk(root):
        for name in files:
            path = Path(directory, name)
            shown = path.relative_to(root)
            if shown.parts[0] != STAGING_DIRECTORY:
                found[str(shown)] = b"a link" if path.is_symlink() else path.read_bytes()
    return found


def staged(root: Path) -> list[str]:
    """Return what lies in staging."""
    directory = root / STAGING_DIRECTORY / "staging"
    return os.listdir(directory) if directory.exists() else []


def read(storage: LocalStorage, name: str) -> bytes:
    """Return the bytes of a file."""
    with storage.open(name) as file:
        return file.read()


# Contents


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3_000_000])
def test_a_file_comes_back_as_it_was(root: Path, size: int, durable: bool) -> None:
    """Bytes, size and digests are those of the content, for sizes around the edges of a chunk."""
    body = os.urandom(size)
    storage = LocalStorage(root, durable=durable)
    stored = storage.store("d/x.bin", ContentFile(body))
    assert (stored.name, stored.size) == ("d/x.bin", size)
    assert stored.digests == {"sha256": hashlib.sha256(body).hexdigest(), "crc32": f"{zlib.crc32(body):08x}"}
    assert read(storage, "d/x.bin") == body
    assert storage.size("d/x.bin") == size
    assert staged(root) == []


class Chunks(File):
    """Content that gives the chunks it is told to."""

    def __init__(self, *parts: Any, size: int = 0) -> None:
        super().__init__(None, "chunks")
        self.parts, self.size = parts, size

    def chunks(self, chunk_size: int | None = None) -> Iterator[Any]:
        """Yield the parts; raise those that are errors."""
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (ContentFile("größe"), "größe".encode()),
        (ContentFile(""), b""),
        (Chunks(), b""),
        (Chunks(b"a", "é", bytearray(b"b"), memoryview(b"c"), b"", memoryview(b"1234").cast("I")), "aébc1234".encode()),
        (Chunks(b"abc", size=1), b"abc"),
        (Chunks(b"abc", size=10**12), b"abc"),
        (io.BytesIO(b"plain"), b"plain"),
        (io.StringIO("text"), b"text"),
        (SimpleUploadedFile("x", b"simple"), b"simple"),
        (InMemoryUploadedFile(io.BytesIO(b"memory"), None, "x", None, 6, None), b"memory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_legal_content_is_saved(storage: LocalStorage, content: Any, body: bytes) -> None:
    """Text becomes UTF-8, every kind of buffer is taken, and a wrong size of the content has no influence."""
    name = storage.save("x", content)
    assert read(storage, name) == body
    assert storage.size(name) == len(body)


def test_content_is_read_from_its_beginning(storage: LocalStorage) -> None:
    """A file that was read to its end already is saved whole, and stays open."""
    content = ContentFile(b"whole")
    content.read()
    assert read(storage, storage.save("x", content)) == b"whole"
    assert not content.closed


def test_content_that_cannot_seek_is_saved(storage: LocalStorage) -> None:
    """A pipe has no beginning to go back to, and is saved from where it is."""
    reader, writer = os.pipe()
    os.write(writer, b"from a pipe")
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert read(storage, storage.save("x", File(pipe))) == b"from a pipe"


def closed() -> File:
    """Return content that is closed already."""
    content = File(io.BytesIO(b"x"))
    content.close()
    return content


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (Chunks(b"a", b"b", OSError("broken")), OSError),
        (Chunks(b"a", RuntimeError("broken")), RuntimeError),
        (Chunks(b"a", 1), TypeError),
        (Chunks("\ud800"), UnicodeEncodeError),
        (closed(), ValueError),
    ],
    ids=["os error", "error", "type", "surrogate", "closed"],
)
def test_content_that_breaks_leaves_nothing(
    root: Path, storage: LocalStorage, content: Any, error: type[Exception]
) -> None:
    """An error of the content reaches the caller, and neither a name nor a staged file is left."""
    with pytest.raises(error):
        storage.save("d/x", content)
    assert public(root) == {}
    assert staged(root) == []


# Names


METHODS: dict[str, Callable[[LocalStorage, Any], Any]] = {
    "save": lambda storage, name: storage.save(name, ContentFile(b"x")),
    "store": lambda storage, name: storage.store(name, ContentFile(b"x")),
    "open": lambda storage, name: storage.open(name),
    "delete": lambda storage, name: storage.delete(name),
    "exists": lambda storage, name: storage.exists(name),
    "size": lambda storage, name: storage.size(name),
    "url": lambda storage, name: storage.url(name),
    "path": lambda storage, name: storage.path(name),
    "get_accessed_time": lambda storage, name: storage.get_accessed_time(name),
    "get_created_time": lambda storage, name: storage.get_created_time(name),
    "get_modified_time": lambda storage, name: storage.get_modified_time(name),
    "get_available_name": lambda storage, name: storage.get_available_name(name),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_refuses_every_hostile_name(root: Path, storage: LocalStorage, method: str) -> None:
    """The check stands in front of each public method, before anything is made on the disk."""
    for name in REFUSED:
        shortened = method in ("save", "get_available_name") and name in ("x" * 256, "d/" + "x" * 256 + "/x", "é" * 128)
        if not shortened:
            with pytest.raises(SuspiciousFileOperation):
                METHODS[method](storage, name)
    for wrong in (b"x", 1, None):
        with pytest.raises(TypeError):
            METHODS[method](storage, wrong if method != "save" else b"x")
    assert not root.exists()


def test_a_save_without_any_name_says_so(root: Path, storage: LocalStorage) -> None:
    """No name, and none of the content, is an error that says what a name is."""
    for content in (ContentFile(b"x"), io.BytesIO(b"x")):
        with pytest.raises(TypeError, match="must be a str or a pathlib path, not NoneType"):
            storage.save(None, content)
    assert not root.exists()


def test_the_name_of_the_content_is_read_once(storage: LocalStorage) -> None:
    """A content whose name changes between two reads is saved under the one that was checked."""

    class Sly(ContentFile):
        names = iter(["good", "../bad"])

        @property
        def name(self) -> str:
            return next(self.names)

        @name.setter
        def name(self, value: object) -> None:
            pass

    assert storage.save(None, Sly(b"x")) == "good"


@pytest.mark.parametrize(("name", "spelling"), RESPELLED, ids=ascii)
def test_two_spellings_are_one_file(root: Path, storage: LocalStorage, name: Any, spelling: str) -> None:
    """The returned name is the one spelling, and the file is found under both."""
    assert storage.save(name, ContentFile(b"x")) == spelling
    assert list(public(root)) == [spelling]
    assert storage.exists(name)
    assert storage.path(name) == str(root / spelling)
    assert storage.save(spelling, ContentFile(b"y")) != spelling


@pytest.mark.parametrize("name", KEPT, ids=lambda name: ascii(name[:30]))
def test_an_odd_name_makes_the_round(root: Path, storage: LocalStorage, name: str) -> None:
    """Save, open, listdir, url, times and delete agree on the very bytes of the name."""
    assert storage.save(name, ContentFile(b"x")) == name
    assert public(root) == {name: b"x"}
    assert read(storage, name) == b"x"
    directory, _, base = name.rpartition("/")
    assert storage.listdir(directory) == ([], [base])
    url = storage.url(name)
    assert url.startswith("/media/")
    assert not set(url) & set('?#<>"\\{}|;:` \n')
    assert unquote(url) == "/media/" + name
    storage.delete(name)
    assert public(root) == {}


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("x" * 256, "x" * 255),
        ("a" * 200 + "." + "b" * 100, "a" * 154 + "." + "b" * 100),
        ("d/" + "é" * 200 + ".jpeg", "d/" + "é" * 125 + ".jpeg"),
    ],
)
def test_a_component_that_is_too_long_is_cut_by_save(storage: LocalStorage, name: str, saved: str) -> None:
    """save() and generate_filename() shorten what the file system cannot hold; the extension stays."""
    assert storage.save(name, ContentFile(b"1")) == saved
    assert storage.generate_filename(name) == saved
    again = storage.save(name, ContentFile(b"2"))
    assert again != saved
    assert os.path.splitext(again)[1] == os.path.splitext(saved)[1]
    assert (read(storage, saved), read(storage, again)) == (b"1", b"2")


@pytest.mark.parametrize("name", ["../x", "a/../x", "/x", "..\\x", "a/..", "a\n/x", "a/.", f"{STAGING_DIRECTORY}/x"])
def test_a_filename_for_a_field_is_checked_too(storage: LocalStorage, name: str) -> None:
    """What upload_to made of a hostile name does not get past generate_filename()."""
    with pytest.raises(SuspiciousFileOperation):
        storage.generate_filename(name)


def test_a_taken_name_gives_way_to_another(root: Path, storage: LocalStorage) -> None:
    """Ten saves of one name are ten files, each with its own bytes and the extensions of the name."""
    names = [storage.save("d/x.tar.gz", ContentFile(str(n))) for n in range(10)]
    assert len(set(names)) == 10
    assert {name: read(storage, name) for name in names} == public(root)
    assert all(name.startswith("d/x") and name.endswith(".tar.gz") for name in names)


@pytest.mark.parametrize(("first", "second"), [("x", "x/y"), ("x/y", "x"), ("d/x.y", "d/x.y/z/a"), ("x", "x/y/z")])
def test_file_and_directory_of_one_name_get_out_of_each_others_way(
    root: Path, storage: LocalStorage, first: str, second: str
) -> None:
    """A file where a directory is needed, and the reverse, leads to another name and to nothing half done."""
    assert storage.save(first, ContentFile(b"1")) == first
    other = storage.save(second, ContentFile(b"2"))
    assert other != second
    assert other.count("/") == second.count("/")
    assert os.path.basename(other) == os.path.basename(second) or second == "x"
    assert public(root) == {first: b"1", other: b"2"}


@pytest.mark.parametrize(("name", "max_length"), [("abcde.txt", 10), ("a/bcd.txt", 12), ("x.txt", 5)])
def test_a_collision_without_room_is_a_clear_error(
    root: Path, storage: LocalStorage, name: str, max_length: int
) -> None:
    """Where no other name fits, save() and store() say so and leave nothing."""
    storage.save(name, ContentFile(b"1"), max_length=max_length)
    for method in (storage.save, storage.store):
        with pytest.raises(SuspiciousFileOperation, match=f"max_length={max_length}"):
            method(name, ContentFile(b"2"), max_length=max_length)
    assert public(root) == {name: b"1"}
    assert staged(root) == []


def test_max_length_is_kept_by_save_and_by_store(storage: LocalStorage) -> None:
    """A name that is too long, or taken, becomes one that is short enough; a blocked directory likewise."""
    assert len(storage.save("x" * 40 + ".txt", ContentFile(b"1"), max_length=20)) <= 20
    names = [storage.store("abcdefghijkl.txt", ContentFile(str(n)), max_length=20).name for n in range(5)]
    assert len(set(names)) == 5
    assert max(len(name) for name in names) <= 20
    storage.save("directory", ContentFile(b"file"))
    assert len(storage.store("directory/x", ContentFile(b"2"), max_length=12).name) <= 12


def test_max_length_is_kept_when_the_name_is_lost_in_a_race(root: Path, storage: LocalStorage) -> None:
    """A name that somebody takes between the look and the link gives way to one that is as short as asked for."""

    class Raced(ContentFile):
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            storage.store("abcdefghijkl.txt", ContentFile(b"first"))
            yield b"second"

    name = storage.save("abcdefghijkl.txt", Raced(b""), max_length=16)
    assert public(root) == {"abcdefghijkl.txt": b"first", name: b"second"}
    assert len(name) <= 16


def test_a_subclass_may_extend_the_save(root: Path) -> None:
    """_save() of a subclass is called with name and content, as in Django, and what it returns is checked."""

    class Prefixed(LocalStorage):
        def _save(self, name: str, content: File) -> str:
            return super()._save(f"prefix/{name}", content)

    assert Prefixed(root).save("x", ContentFile(b"x"), max_length=10) == "prefix/x"


def test_a_max_length_below_the_extension_is_refused(root: Path, storage: LocalStorage) -> None:
    """A name is never cut down to its extension."""
    with pytest.raises(SuspiciousFileOperation, match="max_length=3"):
        storage.save("a.jpeg", ContentFile(b"x"), max_length=3)
    assert not root.exists()


def test_the_search_for_a_name_is_bounded(root: Path) -> None:
    """A storage whose other name is always the same one gets an error, not an endless loop."""

    class Stubborn(LocalStorage):
        def get_alternative_name(self, file_root: str, file_ext: str) -> str:
            return f"{file_root}_1{file_ext}"

    storage = Stubborn(root)
    assert [storage.save("x", ContentFile(b"")) for _ in range(2)] == ["x", "x_1"]
    for method in (storage.save, storage.store):
        with pytest.raises(FileExistsError, match="100 tries"):
            method("x", ContentFile(b""))
    assert sorted(public(root)) == ["x", "x_1"]
    assert staged(root) == []


def test_a_subclass_may_choose_its_names(root: Path) -> None:
    """get_available_name() of a subclass is asked, and what it returns is checked."""

    class Chooser(LocalStorage):
        answer = "chosen/x"

        def get_available_name(self, name: Any, max_length: int | None = None) -> str:
            return self.answer

    storage = Chooser(root)
    assert storage.save("x", ContentFile(b"x")) == "chosen/x"
    storage.answer = "../x"
    with pytest.raises(SuspiciousFileOperation):
        storage.save("x", ContentFile(b"x"))


def test_no_url_without_a_base(root: Path) -> None:
    """A storage without base_url has no URLs, as in Django."""
    with override_settings(MEDIA_URL=None), pytest.raises(ValueError, match="not accessible via a URL"):
        LocalStorage(root).url("x")


# Reading and deleting


def test_what_is_missing_is_file_not_found(root: Path, storage: LocalStorage) -> None:
    """Without the root, the directory or the file, reading raises FileNotFoundError; deleting is content."""
    for _ in range(2):
        for method in ("open", "size", "get_accessed_time", "get_created_time", "get_modified_time"):
            for name in ("x", "d/x"):
                with pytest.raises(FileNotFoundError):
                    METHODS[method](storage, name)
        assert not storage.exists("d/x")
        storage.delete("d/x")
        root.mkdir(exist_ok=True)
    with pytest.raises(FileNotFoundError):
        storage.listdir("d")


def test_a_directory_is_no_file(storage: LocalStorage) -> None:
    """A directory exists, so that nobody is given its name, but cannot be read or measured."""
    storage.save("d/x", ContentFile(b"x"))
    assert storage.exists("d")
    for method in ("open", "size", "get_modified_time"):
        with pytest.raises(IsADirectoryError):
            METHODS[method](storage, "d")
    assert not storage.exists("d/x/y")
    storage.delete("d/x/y")
    with pytest.raises(OSError, match="not empty"):
        storage.delete("d")
    storage.delete("d/x")
    assert storage.exists("d")
    storage.delete("d")
    assert not storage.exists("d")


def test_a_device_or_pipe_is_never_opened(root: Path, storage: LocalStorage) -> None:
    """A FIFO under the root neither blocks a reader nor passes for a file."""
    root.mkdir()
    os.mkfifo(root / "pipe")
    for method in ("open", "size"):
        with pytest.raises(OSError, match="Not a regular file"):
            METHODS[method](storage, "pipe")
    assert storage.listdir("") == ([], [])


@pytest.mark.parametrize("mode", ["w", "wb", "ab", "r+", "rb+", "x", "w+b"])
def test_files_are_not_opened_for_writing(storage: LocalStorage, mode: str) -> None:
    """Writing in place could be seen half done; the error names the way that cannot."""
    storage.save("x", ContentFile(b"x"))
    for name in ("x", "new"):
        with pytest.raises(io.UnsupportedOperation, match=r"write with save\(\)"):
            storage.open(name, mode)
    assert read(storage, "x") == b"x"
    assert not storage.exists("new")


def test_an_open_file_is_what_django_gives(root: Path, storage: LocalStorage) -> None:
    """The opened file has the path for its name, a size, text where asked, and can be opened again."""
    storage.save("d/x.txt", ContentFile("größe"))
    with storage.open("d/x.txt", "r") as file:
        assert isinstance(file, File)
        assert (file.name, file.size, file.read()) == (str(root / "d/x.txt"), 7, "größe")
    with file.open() as again:
        assert again.read() == "größe"


def test_listdir_hides_staging_and_tells_files_from_directories(root: Path, storage: LocalStorage) -> None:
    """The root and a directory can be listed in every spelling; what is on its way is not shown."""
    for name in ("b", "a", "d/e/x", f"d/{STAGING_DIRECTORY}/x"):
        storage.save(name, ContentFile(b"x"))
    for spelling in ("", ".", "./"):
        directories, files = storage.listdir(spelling)
        assert (directories, sorted(files)) == (["d"], ["a", "b"])
    assert sorted(storage.listdir("d/")[0]) == [STAGING_DIRECTORY, "e"]
    assert storage.listdir(Path("d/e")) == ([], ["x"])
    for path in (STAGING_DIRECTORY, "..", "/", "d/.."):
        with pytest.raises(SuspiciousFileOperation):
            storage.listdir(path)


@pytest.mark.parametrize("use_tz", [True, False])
def test_times_follow_use_tz(root: Path, use_tz: bool) -> None:
    """Times are aware in UTC with USE_TZ, else naive in local time, as in Django."""
    storage = LocalStorage(root)
    storage.save("x", ContentFile(b"x"))
    os.utime(root / "x", (1, 2))
    zone = timezone.utc if use_tz else None
    with override_settings(USE_TZ=use_tz):
        assert storage.get_accessed_time("x") == datetime.fromtimestamp(1, tz=zone)
        assert storage.get_modified_time("x") == datetime.fromtimestamp(2, tz=zone)
        created = storage.get_created_time("x")
        assert abs(created - datetime.now(tz=zone)) < timedelta(minutes=1)


# Symbolic links


@pytest.fixture
def outside(tmp_path: Path, root: Path) -> Path:
    """A directory outside, with links to it and to its file planted under the root, and one that leads nowhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    root.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "file").symlink_to(outside / "secret")
    (root / "directory").symlink_to(outside)
    (root / "nowhere").symlink_to(outside / "new")
    return outside


def test_a_link_at_the_name_is_left_alone_by_save(root: Path, storage: LocalStorage, outside: Path) -> None:
    """A name where a link sits, dangling or not, is taken; nothing is written through it."""
    for name in ("file", "nowhere"):
        for saved in (storage.save(name, ContentFile(b"x")), storage.store(name, ContentFile(b"x")).name):
            assert saved != name
            assert public(root)[saved] == b"x"
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"secret": b"secret"}


def test_a_link_in_the_way_is_never_entered_by_save(root: Path, storage: LocalStorage, outside: Path) -> None:
    """Where a directory of the name is a link, the file goes into another directory under the root."""
    for name in ("directory/x", "directory/secret", "nowhere/x", "file/x"):
        saved = storage.save(name, ContentFile(b"x"))
        assert saved.split("/")[0] != name.split("/")[0]
        assert public(root)[saved] == b"x"
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_links_are_never_followed_by_readers(storage: LocalStorage, outside: Path) -> None:
    """No method reads, measures, lists or deletes anything through a link, but a link itself can be deleted."""
    for method in ("open", "size", "get_accessed_time", "get_created_time", "get_modified_time"):
        for name in ("file", "directory/secret", "nowhere"):
            with pytest.raises(OSError, match=r"links|Not a directory"):
                METHODS[method](storage, name)
    with pytest.raises(NotADirectoryError):
        storage.listdir("directory")
    assert storage.listdir("") == ([], [])
    assert not storage.exists("directory/secret")
    storage.delete("directory/secret")
    for link in ("file", "directory", "nowhere"):
        assert storage.exists(link)
        storage.delete(link)
        assert not storage.exists(link)
    assert (outside / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize("planted", [STAGING_DIRECTORY, f"{STAGING_DIRECTORY}/staging"])
def test_a_link_in_place_of_staging_is_an_error(
    root: Path, storage: LocalStorage, tmp_path: Path, planted: str
) -> None:
    """Nobody can have the files written elsewhere, or elsewhere swept, by planting staging."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "old").write_bytes(b"keep")
    (root / planted).parent.mkdir(parents=True)
    (root / planted).symlink_to(elsewhere)
    for action in (lambda: storage.save("x", ContentFile(b"x")), lambda: storage.collect_staging(timedelta(0))):
        with pytest.raises(NotADirectoryError):
            action()
    assert [path.name for path in elsewhere.iterdir()] == ["old"]


def test_the_location_itself_may_be_a_link(tmp_path: Path) -> None:
    """Where the media lie is the operator's choice."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "media").symlink_to(tmp_path / "disk")
    storage = LocalStorage(tmp_path / "media")
    assert read(storage, storage.save("d/x", ContentFile(b"x"))) == b"x"
    assert (tmp_path / "disk/d/x").read_bytes() == b"x"


def test_swapping_a_directory_for_a_link_gains_nothing(root: Path, tmp_path: Path) -> None:
    """While somebody swaps a directory and a link to outside all the time, no save or read ever gets outside."""
    exchange = getattr(ctypes.CDLL(None), "renameat2", None)
    if exchange is None:
        pytest.skip("no renameat2() here to swap two names at once")
    storage = LocalStorage(root, durable=False)
    storage.save("d/secret", ContentFile(b"ours"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"theirs")
    (root / "link").symlink_to(outside)
    stop, results = threading.Event(), Counter[str]()

    def swap() -> None:
        here = os.open(root, os.O_RDONLY)
        while not stop.is_set():
            results["swapped"] += exchange(here, b"d", here, b"link", 2) == 0
        os.close(here)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(3000):
            results[attempt(storage, "d/secret")] += 1
            if number % 10 == 0:
                results[storage.save(f"d/{number}", ContentFile(b"x")).partition("/")[0]] += 1
    finally:
        stop.set()
        thread.join()
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert results["theirs"] == 0
    # Not vacuous: both sides of the swap were met by both.
    assert min(results["swapped"], results["ours"], results["refused"], results["d"]) > 10
    assert len([name for name in results if name.startswith("d_")]) > 10


def attempt(storage: LocalStorage, name: str) -> str:
    """Return what a reader gets."""
    try:
        return read(storage, name).decode()
    except OSError:
        return "refused"


# Modes


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_are_exact_under_any_umask(root: Path, umask: int) -> None:
    """Files and new directories have the modes that were set, staging is private; the umask has no say."""
    storage = LocalStorage(root, None, 0o640, 0o2750)
    before = os.umask(umask)
    try:
        storage.save("a/b/x", ContentFile(b"x"))
        with temporary_upload(root.parent, b"y") as upload:
            storage.save("a/y", upload)
    finally:
        os.umask(before)
    modes = {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}
    inner = f"{STAGING_DIRECTORY}/staging"
    assert modes == {"a": 0o2750, "a/b": 0o2750, "a/b/x": 0o640, "a/y": 0o640, STAGING_DIRECTORY: 0o700, inner: 0o700}
    assert stat.S_IMODE(root.stat().st_mode) == 0o2750


def test_without_modes_the_umask_decides(root: Path) -> None:
    """None leaves modes to the umask, as in Django; staging is private all the same."""
    with override_settings(FILE_UPLOAD_PERMISSIONS=None, FILE_UPLOAD_DIRECTORY_PERMISSIONS=None):
        before = os.umask(0o027)
        try:
            LocalStorage(root).save("d/x", ContentFile(b"x"))
        finally:
            os.umask(before)
    modes = [stat.S_IMODE((root / name).stat().st_mode) for name in ("d/x", "d", STAGING_DIRECTORY)]
    assert modes == [0o640, 0o750, 0o700]


def test_existing_directories_keep_their_modes(root: Path) -> None:
    """A mode is only given to what the storage makes."""
    (root / "d").mkdir(parents=True, mode=0o711)
    LocalStorage(root, None, 0o600, 0o700).save("d/x", ContentFile(b"x"))
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o711


def test_a_file_is_private_until_it_is_whole(root: Path) -> None:
    """While its bytes arrive, a file can be read by its owner only and has no public name."""
    seen = []

    class Watched(ContentFile):
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            yield b"first"
            (part,) = (root / STAGING_DIRECTORY / "staging").iterdir()
            seen.append((part.stat().st_size, stat.S_IMODE(part.stat().st_mode), public(root)))
            yield b"last"

    LocalStorage(root, None, 0o644).save("x", Watched(b""))
    assert seen == [(5, 0o600, {})]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a directory to a foreign group")
def test_a_file_gets_the_group_of_the_location(root: Path, storage: LocalStorage) -> None:
    """As in Django, a file belongs to the group of the root, so that the web server can read it."""
    root.mkdir()
    os.chown(root, -1, 12345)
    storage.save("d/x", ContentFile(b"x"))
    assert (root / "d/x").stat().st_gid == 12345
    assert stat.S_IMODE((root / "d/x").stat().st_mode) == 0o644


# Temporary uploads


def uploaded(body: bytes) -> TemporaryUploadedFile:
    """Return an upload that Django's handler put into a file."""
    upload = TemporaryUploadedFile("x.bin", "application/octet-stream", len(body), None)
    upload.write(body)
    return upload


def temporary_upload(directory: Path, body: bytes) -> TemporaryUploadedFile:
    """Return an upload that Django's handler put into a file below ``directory``."""
    with override_settings(FILE_UPLOAD_TEMP_DIR=str(directory)):
        return uploaded(body)


@pytest.mark.parametrize("size", [0, 4, 3_000_001])
def test_an_upload_on_the_same_file_system_is_moved(root: Path, storage: LocalStorage, size: int) -> None:
    """The temporary file itself becomes the file, with its digests, mode and buffered bytes; its close is harmless."""
    body = os.urandom(size)
    with temporary_upload(root.parent, body) as upload:
        path = upload.temporary_file_path()
        inode = os.stat(path).st_ino
        stored = storage.store("d/x.bin", upload)
        assert not os.path.exists(path)
    assert (root / "d/x.bin").stat().st_ino == inode
    assert (root / "d/x.bin").stat().st_nlink == 1
    assert stat.S_IMODE((root / "d/x.bin").stat().st_mode) == 0o644
    assert (stored.size, stored.digests["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert read(storage, "d/x.bin") == body
    assert staged(root) == []


@pytest.fixture
def other_device(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is not a second, writable file system here")
    directory = shm / f"queued-storage-{os.getpid()}-{tmp_path.name}"
    directory.mkdir()
    yield directory
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def test_an_upload_on_another_file_system_is_copied_and_counted(
    root: Path, storage: LocalStorage, other_device: Path
) -> None:
    """Where no link can be made the bytes are copied, and the temporary file goes as if it had been moved."""
    body = os.urandom(3_000_001)
    with temporary_upload(other_device, body) as upload:
        stored = storage.store("d/x.bin", upload)
        assert list(other_device.iterdir()) == []
    assert (stored.size, stored.digests["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert read(storage, "d/x.bin") == body
    assert stat.S_IMODE((root / "d/x.bin").stat().st_mode) == 0o644


def test_a_copied_upload_that_is_short_is_an_error(root: Path, storage: LocalStorage, other_device: Path) -> None:
    """A copy with other than the bytes of the temporary file is never published, and that file stays."""

    class Short(TemporaryUploadedFile):
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            yield b"shor"

    with override_settings(FILE_UPLOAD_TEMP_DIR=str(other_device)), Short("x", "", 0, None) as upload:
        upload.write(b"short")
        with pytest.raises(OSError, match="changed while it was saved"):
            storage.save("x", upload)
        assert len(list(other_device.iterdir())) == 1
    assert (public(root), staged(root)) == ({}, [])


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite", "replace"])
def test_an_upload_that_changes_under_way_is_an_error(
    root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A temporary file with a writer left is not published with digests of other bytes."""
    body = b"x" * 2_000_000
    with temporary_upload(root.parent, body) as upload:
        path = Path(upload.temporary_file_path())
        upload.flush()
        os.utime(path, (1, 1))
        real_read, real_link = os.read, os.link

        def meddle(handle: int, size: int) -> bytes:
            data = real_read(handle, size)
            monkeypatch.setattr(os, "read", real_read)
            with open(path, "r+b") as file:
                file.truncate({"grow": 2_500_000, "shrink": 1_500_000, "rewrite": 2_000_000}[change])
                file.write(b"y")
            return data

        def swap(*args: Any, **kwargs: Any) -> None:
            monkeypatch.setattr(os, "link", real_link)
            path.unlink()
            path.write_bytes(body)
            os.utime(path, (1, 1))
            real_link(*args, **kwargs)

        if change == "replace":
            monkeypatch.setattr(os, "link", swap)
        else:
            monkeypatch.setattr(os, "read", meddle)
        with pytest.raises(OSError, match="changed while it was saved"):
            storage.save("x", upload)
        assert path.exists()
    assert (public(root), staged(root)) == ({}, [])


def test_an_upload_that_failed_can_be_saved_again(root: Path, storage: LocalStorage) -> None:
    """An error takes nothing from the temporary file."""
    storage.save("x.bin", ContentFile(b"1"))
    with temporary_upload(root.parent, b"body") as upload:
        with pytest.raises(SuspiciousFileOperation):
            storage.store("x.bin", upload, max_length=5)
        name = storage.save("x.bin", upload)
    assert read(storage, name) == b"body"


def test_an_upload_behind_a_link_is_copied(root: Path, storage: LocalStorage, tmp_path: Path) -> None:
    """The path of a temporary file may be a link: its bytes are saved, and no link gets into the root."""
    (tmp_path / "real").write_bytes(b"body")
    (tmp_path / "link").symlink_to("real")

    class Linked(File):
        def temporary_file_path(self) -> str:
            return str(tmp_path / "link")

    with open(tmp_path / "real", "rb") as file:
        storage.save("x", Linked(file))
    assert not (root / "x").is_symlink()
    assert public(root) == {"x": b"body"}
    assert (tmp_path / "real").read_bytes() == b"body"


# Leftovers


def leave(storage: LocalStorage, root: Path) -> str:
    """Let a process die in the middle of a save; return what it left in staging."""

    class Killer(ContentFile):
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            yield b"half"
            os._exit(0)

    pid = os.fork()
    if pid == 0:
        storage.save("x", Killer(b""))
    os.waitpid(pid, 0)
    (leftover,) = staged(root)
    return leftover


def test_leftovers_are_collected_by_age(root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what has not been touched for long enough goes; the count says how much."""
    assert storage.collect_staging(timedelta(0)) == 0
    leftover = leave(storage, root)
    os.utime(root / STAGING_DIRECTORY / "staging" / leftover, (1, 1))
    assert storage.collect_staging(timedelta(hours=1)) == 0
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert storage.collect_staging(timedelta(minutes=61)) == 0
    assert storage.collect_staging(timedelta(minutes=59)) == 1
    assert storage.collect_staging(timedelta(0)) == 0
    assert (public(root), staged(root)) == ({}, [])


def test_collecting_does_not_harm_a_saver_at_work(root: Path, storage: LocalStorage) -> None:
    """A save goes on while others collect by a sane age, and fails cleanly if its staged file is taken away."""

    class Collected(ContentFile):
        age = timedelta(hours=1)

        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            yield b"a"
            storage.collect_staging(self.age)
            yield b"b"

    content = Collected(b"")
    assert read(storage, storage.save("x", content)) == b"ab"
    content.age = timedelta(0)
    with pytest.raises(FileNotFoundError):
        storage.save("d/y", content)
    assert public(root) == {"x": b"ab"}


def test_what_others_put_into_staging_does_not_stop_the_collection(root: Path, storage: LocalStorage) -> None:
    """A directory in staging is left alone, a link is removed without being followed."""
    storage.save("x", ContentFile(b"x"))
    staging = root / STAGING_DIRECTORY / "staging"
    (staging / "directory").mkdir()
    (staging / "link").symlink_to(root / "x")
    assert storage.collect_staging(timedelta(0)) == 1
    assert staged(root) == ["directory"]
    assert read(storage, "x") == b"x"


# Configuration


def test_options_survive_a_migration(root: Path) -> None:
    """The storage is deconstructed with exactly the options that it was given."""
    storage = LocalStorage(location="/srv/media", durable=False)
    written, imports = MigrationWriter.serialize(storage)
    assert written == "queued_storage.local.LocalStorage(durable=False, location='/srv/media')"
    assert imports == {"import queued_storage.local"}


def test_settings_are_followed_as_in_django(tmp_path: Path) -> None:
    """Without options the storage takes MEDIA_ROOT, MEDIA_URL and the upload permissions, also when they change."""
    storage = LocalStorage()
    for number in range(2):
        media = tmp_path / str(number)
        with override_settings(MEDIA_ROOT=str(media), MEDIA_URL=f"/m{number}/", FILE_UPLOAD_PERMISSIONS=0o600 + number):
            storage.save("d/x", ContentFile(b"x"))
            assert storage.url("d/x") == f"/m{number}/d/x"
            assert stat.S_IMODE((media / "d/x").stat().st_mode) == 0o600 + number


def test_a_system_without_directory_handles_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows the storage cannot be made, and the error names the storage that can."""
    monkeypatch.setattr("queued_storage.handles.SUPPORTED", False)
    with pytest.raises(StorageConfigurationError, match="use FileSystemStorage"):
        LocalStorage()
