"""What LocalStorage does when everything fails: races, dead processes, broken system calls, power cuts, full disks."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from django.core.files.base import ContentFile, File
from django.test import override_settings

from queued_storage import handles, local, staging
from queued_storage.exceptions import StorageConfigurationError
from queued_storage.local import LocalStorage
from queued_storage.names import STAGING_DIRECTORY
from tests.test_local import public, read, staged, temporary_upload, uploaded

BODY = b"0123456789" * 10_000


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The location of the storage, not yet made; in memory where that can be had, for thousands of saves with fsync."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK):
        with tempfile.TemporaryDirectory(prefix="queued-storage-", dir=memory) as directory:
            yield Path(directory, "above", "media")
    else:
        yield tmp_path / "above" / "media"


class Scene:
    """A save that meets what a save can meet; each time on a fresh root."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.kind, self.attempts = root, kind, itertools.count()
        self.before: dict[str, bytes] = {}
        self.content: File | None = None

    def set(self) -> LocalStorage:
        """Make everything as it was."""
        shutil.rmtree(self.root.parent, ignore_errors=True)
        self.root.parent.mkdir()
        storage = LocalStorage(self.root, "/m/", 0o644, 0o755, durable=False)
        self.before = {}
        if self.kind != "new":
            storage.save("other/file", ContentFile(b"before"))
            self.before["other/file"] = b"before"
        if self.kind == "taken":
            storage.save("a/b/x.bin", ContentFile(b"taken"))
            self.before["a/b/x.bin"] = b"taken"
        if self.kind == "blocked":
            storage.save("a", ContentFile(b"blocking"))
            self.before["a"] = b"blocking"
        if self.content is not None:
            self.content.close()
        self.content = temporary_upload(self.root.parent, BODY) if self.kind == "upload" else ContentFile(BODY)
        if self.kind == "upload":
            self.content.flush()
        return LocalStorage(self.root, "/m/", 0o644, 0o755)

    def save(self, storage: LocalStorage) -> str:
        """Do what is to be survived."""
        assert self.content is not None
        return storage.store("a/b/x.bin", self.content).name

    def added(self) -> dict[str, bytes]:
        """Return the files that are new, after checking that the old ones are as they were."""
        found = public(self.root)
        assert {name: found.pop(name, None) for name in self.before} == self.before
        return found


@pytest.fixture(params=["new", "old", "taken", "blocked", "upload"])
def scene(root: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Each scene in turn: no root yet, a root in use, the name taken, a file in the way, a temporary upload."""
    scene = Scene(root, request.param)
    yield scene
    if scene.content is not None:
        scene.content.close()


# Races


@pytest.mark.parametrize("kind", ["content", "upload"])
def test_threads_that_save_one_name_lose_nothing(root: Path, kind: str) -> None:
    """Sixteen threads save the same seventy-five names at once: 1,200 files, each with its own bytes."""
    storage, saved, barrier = LocalStorage(root), {}, threading.Barrier(16)
    root.mkdir(parents=True)

    def work(number: int) -> None:
        for turn in range(75):
            body = f"{number} {turn}".encode()
            with uploaded(body) if kind == "upload" else ContentFile(body) as content:
                barrier.wait()
                saved[body] = storage.save(f"d{turn}/e/x.txt", content)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    with override_settings(FILE_UPLOAD_TEMP_DIR=str(root.parent)):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(saved.values())) == 1200
    assert public(root) == {name: body for body, name in saved.items()}
    assert staged(root) == []


def test_processes_that_save_one_name_lose_nothing(root: Path, tmp_path: Path) -> None:
    """Four processes save one name three hundred times each: 1,200 files, each with its own bytes."""
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                storage = LocalStorage(root, durable=False)
                names = [storage.save("d/x.txt", ContentFile(f"{number} {turn}")) for turn in range(300)]
                (tmp_path / str(number)).write_text("\n".join(names))
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    saved = {}
    for number in range(4):
        for turn, name in enumerate((tmp_path / str(number)).read_text().splitlines()):
            saved[name] = f"{number} {turn}".encode()
    assert len(saved) == 1200
    assert public(root) == saved


def test_a_directory_that_is_removed_on_the_way_is_made_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that removes empty directories between mkdir and link costs a save another try, no more."""
    storage, real_link, removed = LocalStorage(root), os.link, []

    def tidy(*args: Any, **kwargs: Any) -> None:
        if len(removed) < 3:
            removed.append((root / "a/b").rmdir())
        real_link(*args, **kwargs)

    monkeypatch.setattr(os, "link", tidy)
    assert storage.save("a/b/x", ContentFile(b"x")) == "a/b/x"
    assert len(removed) == 3
    assert public(root) == {"a/b/x": b"x"}


def test_a_link_whose_answer_was_lost_is_recognised(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS may report the storage's own link as one that exists already: that is a success under that name."""
    storage, real_link = LocalStorage(root), os.link

    def lost(*args: Any, **kwargs: Any) -> None:
        real_link(*args, **kwargs)
        real_link(*args, **kwargs)

    monkeypatch.setattr(os, "link", lost)
    assert storage.save("x", ContentFile(b"x")) == "x"
    monkeypatch.undo()
    assert storage.save("x", ContentFile(b"y")) != "x"
    assert read(storage, "x") == b"x"


# Dead processes

TRACED = {module.__file__ for module in (local, staging, handles)}


def in_child(action: Callable[[LocalStorage], object], storage: LocalStorage, killed_at: int) -> bool:
    """Run ``action`` in a child that is killed at the given executed line; return whether it came to that."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            count = itertools.count(1)

            def trace(frame: FrameType, event: str, argument: object) -> Any:
                if frame.f_code.co_filename not in TRACED:
                    return None
                if event == "line" and next(count) == killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return trace

            sys.settrace(trace)
            action(storage)
            sys.settrace(None)
            status = 0
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_a_kill_at_any_line_leaves_no_partial_file(scene: Scene) -> None:
    """Killed at every executed line in turn, a save leaves the whole file or none, and the sweep nothing else."""
    seen = Counter[str]()
    for line in itertools.count(1):
        if not in_child(scene.save, scene.set(), line):
            break
        seen["killed"] += 1
        storage = LocalStorage(scene.root, durable=False)
        added = scene.added()
        assert list(added.values()) in ([], [BODY])
        seen["visible"] += bool(added)
        seen["half written"] += bool(staged(scene.root)) and not added
        seen["both"] += bool(staged(scene.root)) and bool(added)
        storage.collect_staging(timedelta(0))
        assert staged(scene.root) == []
        assert scene.added() == added
        again = storage.save("a/b/x.bin", ContentFile(b"again"))
        assert read(storage, again) == b"again"
        seen["again elsewhere"] += again != "a/b/x.bin"
    assert list(scene.added().values()) == [BODY]
    # Not vacuous: kills landed before, during and after the file became visible.
    assert seen["killed"] > 80
    assert min(seen["half written"], seen["both"], seen["visible"] - seen["both"]) > 3
    assert seen["again elsewhere"] >= seen["visible"]


# Power cuts


class Disk:
    """Keeps a book of what the disk may still lose, in a file, so that a killed process leaves its entries too.

    The strict reading: bytes are safe after the fsync of their file, a name after the fsync of its directory.
    """

    def __init__(self, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.book = os.open(book, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.path = book
        real = {name: getattr(os, name) for name in ("write", "link", "mkdir", "fsync")}

        def note(*words: object) -> None:
            real["write"](self.book, (" ".join(map(str, words)) + "\n").encode())

        def write(handle: int, data: Any) -> int:
            note("bytes", os.fstat(handle).st_ino)
            return real["write"](handle, data)

        def link(source: Any, base: str, **kwargs: Any) -> None:
            note("entry", os.fstat(kwargs["dst_dir_fd"]).st_ino, base)
            real["link"](source, base, **kwargs)

        def mkdir(base: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            if dir_fd is not None:
                note("entry", os.fstat(dir_fd).st_ino, base)
            real["mkdir"](base, mode, dir_fd=dir_fd)

        def fsync(handle: int) -> None:
            real["fsync"](handle)
            note("fsync", os.fstat(handle).st_ino)

        for function in (write, link, mkdir, fsync):
            monkeypatch.setattr(os, function.__name__, function)

    def bytes_written(self, path: str) -> None:
        """Enter bytes that were written before the book was opened."""
        with open(self.path, "a") as book:
            book.write(f"bytes {os.stat(path).st_ino}\n")

    def forget(self) -> None:
        """Begin a new book."""
        os.truncate(self.path, 0)

    def would_lose(self, root: Path, name: str) -> list[str]:
        """Return what a power cut now may take of the path from the root's parent to the file, and of its bytes."""
        loose, entries = set(), set()
        for line in self.path.read_text().splitlines():
            kind, inode, *base = line.split(" ")
            if kind == "bytes":
                loose.add(inode)
            elif kind == "entry":
                entries.add((inode, *base))
            else:
                loose.discard(inode)
                entries = {entry for entry in entries if entry[0] != inode}
        path, lost = root.parent, []
        for part in (root.name, *name.split("/")):
            lost += [f"entry {part}"] if (str(path.stat().st_ino), part) in entries else []
            path /= part
        return lost + (["bytes"] if str(path.stat().st_ino) in loose else [])


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A book kept from now on."""
    disk = Disk(tmp_path / "book", monkeypatch)
    yield disk
    os.close(disk.book)


def test_a_power_cut_after_save_takes_nothing(scene: Scene, disk: Disk) -> None:
    """Once save() has returned, the bytes and every name on the way to them are fsynced."""
    storage = scene.set()
    disk.forget()
    if scene.kind == "upload":
        disk.bytes_written(scene.content.temporary_file_path())
    name = scene.save(storage)
    assert disk.would_lose(scene.root, name) == []
    assert disk.path.read_text().count("entry") >= 2
    assert disk.path.read_text().count("bytes") >= 1


def test_a_power_cut_after_a_save_that_followed_a_killed_one_takes_nothing(root: Path, disk: Disk) -> None:
    """Directories that a killed process made and did not fsync are fsynced by the next one that uses them."""
    scene, inherited = Scene(root, "old"), 0
    for line in itertools.count(1):
        storage = scene.set()
        disk.forget()
        if not in_child(scene.save, storage, line):
            break
        inherited += (root / "a").exists() and disk.would_lose(root, "a") != []
        name = scene.save(storage)
        assert disk.would_lose(root, name) == [], line
    assert inherited > 3


def test_without_durable_there_is_no_fsync(root: Path, disk: Disk) -> None:
    """durable=False does what it says: a power cut may take the file."""
    storage = LocalStorage(root, durable=False)
    name = storage.save("a/x", ContentFile(b"x"))
    storage.delete(storage.save("a/y", ContentFile(b"y")))
    assert disk.would_lose(root, name) == ["entry media", "entry a", "entry x", "bytes"]


def test_a_second_save_fsyncs_only_its_file_and_its_directory(root: Path, disk: Disk) -> None:
    """What has been made safe once by this process is not fsynced again; a delete is one fsync."""
    storage = LocalStorage(root)
    storage.save("a/b/c/x", ContentFile(b"x"))
    disk.forget()
    storage.save("a/b/c/y", ContentFile(b"y"))
    assert disk.path.read_text().count("fsync") == 2
    storage.delete("a/b/c/x")
    assert disk.path.read_text().count("fsync") == 3


# Broken system calls

CALLS = ("open", "mkdir", "fchmod", "write", "read", "fsync", "close", "link", "unlink", "stat", "fstat", "dup")
ERRORS = {
    "open": (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EACCES, errno.EROFS, errno.EIO),
    "mkdir": (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO, errno.EEXIST),
    "write": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EINTR),
    "fsync": (errno.ENOSPC, errno.EDQUOT, errno.EIO),
    "close": (errno.ENOSPC, errno.EDQUOT, errno.EIO),
    "link": (errno.ENOSPC, errno.EDQUOT, errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EIO, errno.EMLINK),
}


# The calls without which a save cannot succeed.
COPY = {"open", "mkdir", "fchmod", "write", "fsync", "close", "link", "fstat", "dup"}
NEEDED = {
    "new": COPY,
    "old": COPY,
    "taken": COPY - {"mkdir"} | {"stat"},
    "blocked": COPY,
    "upload": COPY - {"write", "close"} | {"read", "stat"},
}


class Faults:
    """Counts the calls into the system, and makes the n-th of one kind fail, once or from then on."""

    def __init__(self, call: str = "", number: int = 0, code: int = 0, for_ever: bool = False) -> None:
        self.fault = call, number, code, for_ever
        self.counts, self.hits = Counter[str](), 0

    def __enter__(self) -> Faults:
        self.real = {call: getattr(os, call) for call in CALLS}
        for call in CALLS:
            setattr(os, call, self._wrap(call))
        return self

    def __exit__(self, *error: object) -> None:
        for call, function in self.real.items():
            setattr(os, call, function)

    def _wrap(self, call: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.counts[call] += 1
            wanted, number, code, for_ever = self.fault
            if call == wanted and (self.counts[call] == number or (for_ever and self.counts[call] > number)):
                self.hits += 1
                # What close() reports does not keep the handle open.
                if call == "close":
                    self.real["close"](*args)
                raise OSError(code, os.strerror(code))
            return self.real[call](*args, **kwargs)

        return wrapped


def open_handles() -> int:
    """Return how many file descriptors this process has."""
    return len(os.listdir("/dev/fd"))


def sweep(storage: LocalStorage, scene: Scene) -> None:
    """Check that the sweep leaves nothing in staging."""
    if scene.root.exists():
        storage.collect_staging(timedelta(0))
    assert staged(scene.root) == []


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("call", CALLS)
def test_any_call_may_fail_with_any_error(scene: Scene, call: str, for_ever: bool) -> None:
    """Whichever call fails, and how: save() raises and nothing is visible, or it returns and all is there."""
    storage = scene.set()
    with Faults() as dry:
        scene.save(storage)
    raised = 0
    for number in range(1, dry.counts[call] + 1):
        for code in ERRORS.get(call, (errno.EIO, errno.EACCES)):
            storage, before = scene.set(), open_handles()
            with Faults(call, number, code, for_ever) as faults:
                try:
                    name = scene.save(storage)
                except (OSError, StorageConfigurationError):
                    name = None
            where = f"{call} number {number}: {errno.errorcode[code]}"
            assert faults.hits >= 1, where
            assert scene.added() == ({name: BODY} if name else {}), where
            assert open_handles() == before, where
            assert name is None or call != "fsync", where
            raised += name is None
            sweep(storage, scene)
            if name is None and scene.kind == "upload":
                assert os.path.exists(scene.content.temporary_file_path()), where
            # The next save meets no trace of the fault.
            assert read(storage, storage.save("a/b/x.bin", ContentFile(b"next"))) == b"next"
    assert (raised > 0) == (call in NEEDED[scene.kind])


def test_a_failed_fsync_is_not_believed_the_next_time(root: Path) -> None:
    """After a directory's fsync failed, the next save makes the new directory anew rather than trust a second fsync."""
    scene = Scene(root, "old")
    storage = scene.set()
    with Faults("fsync", 2, errno.EIO) as faults, pytest.raises(OSError, match="Input/output"):
        scene.save(storage)
    assert faults.hits == 1
    assert not (root / "a").exists()
    with Faults() as counted:
        scene.save(storage)
    assert counted.counts["mkdir"] == 2


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_short_writes_are_counted(root: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A system that takes a few bytes at a time gets the whole file."""
    real_write, calls = os.write, Counter[str]()

    def short(handle: int, data: Any) -> int:
        calls["write"] += 1
        return real_write(handle, data[:size])

    monkeypatch.setattr(os, "write", short)
    storage = LocalStorage(root)
    storage.save("x", ContentFile(BODY[:10_000]))
    assert read(storage, "x") == BODY[:10_000]
    assert calls["write"] >= 10_000 // size


def test_a_system_that_takes_no_bytes_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write of nothing raises instead of going round for ever."""
    monkeypatch.setattr(os, "write", lambda handle, data: 0)
    with pytest.raises(OSError, match="took no bytes"):
        LocalStorage(root).save("x", ContentFile(b"x"))
    assert (public(root), staged(root)) == ({}, [])


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV])
def test_a_file_system_without_links_is_named(root: Path, code: int) -> None:
    """Where no hard link can be made, the error says so and what to use instead."""
    scene = Scene(root, "old")
    storage = scene.set()
    with Faults("link", 1, code), pytest.raises(StorageConfigurationError, match="use FileSystemStorage"):
        scene.save(storage)
    assert (scene.added(), staged(root)) == ({}, [])


@pytest.mark.parametrize("call", ["open", "stat"])
def test_what_cannot_be_told_is_not_called_absent(root: Path, call: str) -> None:
    """exists() raises where the disk fails, so that nobody takes an unreadable file for a missing one."""
    storage = LocalStorage(root)
    storage.save("x", ContentFile(b"x"))
    for code in (errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE):
        with Faults(call, 1, code), pytest.raises(OSError, match=os.strerror(code)):
            storage.exists("x")


# Full disks, for real


def test_a_limit_on_the_size_of_files_leaves_nothing(root: Path) -> None:
    """A process that may not write a file that large gets the error, and nothing is visible or left."""
    root.mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
            LocalStorage(root).save("x", ContentFile(BODY))
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.EFBIG
    assert (public(root), staged(root)) == ({}, [])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a small file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_nothing_and_recovers(small_disk: Path) -> None:
    """When the disk is full, save() raises and gives the space back; when there is room again, it works."""
    storage = LocalStorage(small_disk / "media")
    first = storage.save("a", ContentFile(BODY))
    for _ in range(3):
        with pytest.raises(OSError, match="No space left") as caught:
            storage.save("b/b", ContentFile(BODY + BODY))
        assert caught.value.errno == errno.ENOSPC
    assert public(small_disk / "media") == {"a": BODY}
    assert staged(small_disk / "media") == []
    storage.delete(first)
    assert read(storage, storage.save("b/b", ContentFile(BODY))) == BODY


def test_a_mount_below_the_location_is_an_error_that_says_so(small_disk: Path) -> None:
    """A directory of the storage on another file system cannot be linked into; the error says what to do."""
    storage = LocalStorage(small_disk.parent)
    with pytest.raises(StorageConfigurationError, match="lies as a whole on one file system"):
        storage.save("small/x", ContentFile(b"x"))
    assert os.listdir(small_disk) == []
    assert STAGING_DIRECTORY in os.listdir(small_disk.parent)
    assert staged(small_disk.parent) == []


def test_an_upload_that_belongs_to_somebody_else_is_copied(root: Path) -> None:
    """Where the temporary file may be linked but not be given our mode, its bytes are saved in a file of our own."""
    scene = Scene(root, "upload")
    storage = scene.set()
    inode = os.stat(scene.content.temporary_file_path()).st_ino
    with Faults("fchmod", 1, errno.EPERM) as faults:
        name = scene.save(storage)
    assert faults.hits == 1
    assert scene.added() == {name: BODY}
    assert (root / name).stat().st_ino != inode
    assert staged(root) == []
    scene.content.close()
