"""One contract that every remote keeps, run against its real server.

A remote's test module subclasses ``RoundTrip``, names the storage class, and gives an ``options`` fixture::

    class TestCouchDB(RoundTrip):
        backend = "queued_storage.remotes.couchdb.CouchDBStorage"
        digest_algorithms = frozenset({"md5"})

        @pytest.fixture
        def options(self, couchdb):
            return {"server": couchdb.url, "database": "files"}

        def options_at(self, options, port):
            return options | {"server": f"http://127.0.0.1:{port}", "connect_timeout": 1, "read_timeout": 1}

The options are plain JSON, so that the memory tests can build the same storage in a process of its own.
"""

from __future__ import annotations

import os
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.remotes.contract import MB, NAMES
from tests.remotes.faults import Faults
from tests.remotes.material import check_bytes, text, upload
from tests.remotes.memory import peaks


class RoundTrip(Faults):
    """The whole contract: bytes there and back, nothing overwritten, the truth about what is there, and the faults."""

    # -- Bytes there and back ----------------------------------------------------------------------------------------

    def test_three_megabytes_come_back(self, storage: Any, folder: str) -> None:
        """A file of several blocks is saved under exactly its name, has its size and digests, and reads back equal."""
        name, size = f"{folder}/sub/dir/a b.bin", 3 * MB + 17
        assert storage.save(name, upload(size)) == name
        assert storage.exists(name)
        assert storage.size(name) == size
        with storage.open(name) as stream:
            assert check_bytes(stream, size) == size
        self.assert_stat(storage, name, size)

    @pytest.mark.parametrize("index", range(len(NAMES)))
    def test_every_name_round_trips(self, storage: Any, folder: str, index: int) -> None:
        """Spaces, percent signs, marks and other scripts come back from save, listdir, size and open as they went."""
        if index >= len(self.names):
            pytest.skip("this remote states fewer names")
        name = f"{folder}/{self.names[index]}"
        body = f"body of {index}".encode()
        assert storage._save(name, text(body)) == name
        assert storage.exists(name)
        assert storage.size(name) == len(body)
        with storage.open(name) as stream:
            assert stream.read() == body
        parent, _, base = name.rpartition("/")
        assert storage.listdir(parent) == ([], [base])
        storage.delete(name)
        assert not storage.exists(name)

    def test_names_that_look_alike_are_different_files(self, storage: Any, folder: str) -> None:
        """Case, composed accents, quoting and padding are never folded: eight spellings are eight files."""
        spellings = ["a", "A", "a ", "%61", "é", "e\u0301", "a+b", "a b"]
        for spelling in spellings:
            storage._save(f"{folder}/{spelling}", text(spelling.encode()))
        for spelling in spellings:
            with storage.open(f"{folder}/{spelling}") as stream:
                assert stream.read() == spelling.encode()
        assert sorted(storage.listdir(folder)[1]) == sorted(spellings)

    def test_an_empty_file_is_a_file(self, storage: Any, folder: str) -> None:
        """No bytes at all are saved, sized and read back."""
        name = f"{folder}/empty.txt"
        assert storage.save(name, upload(0)) == name
        assert storage.exists(name)
        assert storage.size(name) == 0
        with storage.open(name) as stream:
            assert stream.read() == b""
        self.assert_stat(storage, name, 0)

    def test_a_large_file_streams_both_ways(
        self, options: dict[str, Any], folder: str, record_property: Callable[[str, object], None]
    ) -> None:
        """30 MB go and come back while the process grows by far less; QUEUED_STORAGE_TEST_MB asks for more."""
        size = min(int(os.environ.get("QUEUED_STORAGE_TEST_MB", "30")) * MB, self.largest)
        grown = peaks(self.backend, options, f"{folder}/large.bin", size, timeout=60 + size // MB * 4)
        record_property("memory", {**grown, "size": size})
        assert grown["saved"] < self.memory_limit, grown
        assert grown["read"] < self.memory_limit, grown

    def test_an_opened_file_can_be_read_in_every_way(self, storage: Any, folder: str) -> None:
        """Chunks, small reads, seeking and closing work as on a local file."""
        name, size = f"{folder}/read.bin", 300_000
        storage._save(name, upload(size))
        whole = b"".join(upload(size).chunks())
        with storage.open(name) as stream:
            assert stream.size == size
            assert b"".join(stream.chunks(65_536)) == whole
            assert stream.seek(123_456) == 123_456
            assert stream.read(10) == whole[123_456:123_466]
            assert stream.tell() == 123_466
            stream.seek(-5, os.SEEK_END)
            assert stream.read() == whole[-5:]
            stream.seek(0)
            assert stream.read() == whole
        assert stream.closed

    def test_the_content_type_is_kept(self, storage: Any, folder: str) -> None:
        """The remote serves the file with the type that it was saved with."""
        if not self.keeps_content_type:
            pytest.skip("this system keeps no content type")
        storage._save(f"{folder}/typed", text(b"{}", content_type="application/vnd.test+json"))
        assert self.content_type(storage, f"{folder}/typed") == "application/vnd.test+json"

    # -- Nothing is overwritten --------------------------------------------------------------------------------------

    def test_a_taken_name_is_not_overwritten(self, storage: Any, folder: str) -> None:
        """The second writer of a name gets FileExistsError, through ``save()`` another name; the first body stays."""
        name = f"{folder}/same.txt"
        storage._save(name, text(b"first"))
        with pytest.raises(FileExistsError):
            storage._save(name, text(b"second"))
        other = storage.save(name, text(b"third"))
        assert other != name
        for each, body in [(name, b"first"), (other, b"third")]:
            with storage.open(each) as stream:
                assert stream.read() == body

    def test_a_large_body_for_a_taken_name_is_refused(self, storage: Any, folder: str) -> None:
        """The refusal is seen also when the server says it before it has read the bytes."""
        name = f"{folder}/same.bin"
        storage._save(name, text(b"first"))
        with pytest.raises(FileExistsError):
            storage._save(name, upload(8 * MB))
        assert storage.size(name) == 5

    def test_of_two_writers_at_once_one_wins(self, storage: Any, folder: str) -> None:
        """Writers that start together never mix: one body is there whole, and who got no error wrote it, if told so."""
        name, barrier = f"{folder}/race.bin", threading.Barrier(4)

        def write(number: int) -> int | None:
            barrier.wait(60)
            try:
                storage._save(name, text(bytes([number]) * 200_000))
            except FileExistsError:
                return None
            return number

        with ThreadPoolExecutor(4) as pool:
            winners = [number for number in pool.map(write, range(4)) if number is not None]
        assert len(winners) == 1 or (winners and not self.creates_atomically)
        with storage.open(name) as stream:
            assert stream.read() in [bytes([number]) * 200_000 for number in winners]

    def test_a_name_is_free_again_after_delete(self, storage: Any, folder: str) -> None:
        """Deleting leaves nothing that stands in the way of new bytes under the name."""
        name = f"{folder}/again.txt"
        storage._save(name, text(b"first"))
        storage.delete(name)
        storage._save(name, text(b"second"))
        with storage.open(name) as stream:
            assert stream.read() == b"second"

    # -- What is there and what is not -------------------------------------------------------------------------------

    def test_what_is_missing_is_said_to_be_missing(self, storage: Any, folder: str) -> None:
        """A name that was never saved does not exist, has no stat, and cannot be opened or measured."""
        name = f"{folder}/missing.txt"
        assert storage.exists(name) is False
        assert self.stat(storage, name) is None
        for method in [storage.open, storage.size] + [storage.get_modified_time] * self.has_times:
            with pytest.raises(FileNotFoundError):
                method(name)

    def test_deleting_twice_is_no_error(self, storage: Any, folder: str) -> None:
        """The second delete, and that of a name that never was, find nothing to do."""
        storage._save(f"{folder}/gone.txt", text(b"gone"))
        for _ in range(2):
            storage.delete(f"{folder}/gone.txt")
            assert not storage.exists(f"{folder}/gone.txt")
        storage.delete(f"{folder}/never.txt")

    def test_listdir_parts_folders_from_files(self, storage: Any, folder: str) -> None:
        """Each folder is named once, files below it are not shown, and a look-alike neighbour is not mixed in."""
        for name in ["a.txt", "b c.txt", "sub/one", "sub/two", "sub/deep/three", "sub2/four"]:
            storage._save(f"{folder}/{name}", text(b"x"))
        storage._save(f"{folder}x/neighbour", text(b"x"))
        folders, files = storage.listdir(folder)
        assert (sorted(folders), sorted(files)) == (["sub", "sub2"], ["a.txt", "b c.txt"])
        assert storage.listdir(f"{folder}/sub/") == storage.listdir(f"{folder}/sub")
        assert sorted(storage.listdir(f"{folder}/sub")[1]) == ["one", "two"]
        assert folder in storage.listdir("")[0]

    def test_times_are_those_of_the_save(self, storage: Any, folder: str, settings: Any) -> None:
        """Where the system knows when an object was written, the time is right, and aware if Django's are."""
        if not self.has_times:
            with pytest.raises(NotImplementedError):
                storage.get_modified_time(f"{folder}/x")
            return
        settings.USE_TZ, settings.TIME_ZONE = True, "Europe/Paris"
        storage._save(f"{folder}/timed", text(b"x"))
        aware = storage.get_modified_time(f"{folder}/timed")
        assert abs(aware - datetime.now(timezone.utc)) < timedelta(seconds=30)
        settings.USE_TZ = False
        storage._save(f"{folder}/naive", text(b"x"))
        naive = storage.get_modified_time(f"{folder}/naive")
        assert naive.tzinfo is None
        assert abs(naive - datetime.now(ZoneInfo("Europe/Paris")).replace(tzinfo=None)) < timedelta(seconds=30)

    def test_urls_are_quoted(self, storage: Any, folder: str) -> None:
        """The address of a strange name is one clean URL, and where the system is public it leads to the bytes."""
        if not self.has_url:
            pytest.skip("this system has no addresses")
        for name in self.names:
            storage._save(f"{folder}/{name}", text(name.encode()))
            url = storage.url(f"{folder}/{name}")
            assert url.isascii()
            assert " " not in url
            assert "#" not in url
            if self.has_public_url:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    assert answer.read() == name.encode()
