"""What the package ships for the tests of its users does what it says."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage, storages
from django.db import transaction

from queued_storage import sweeping
from queued_storage.models import TransferRecord
from queued_storage.remotes.base import Stat
from queued_storage.testing import (
    FaultNotHitError,
    FaultyRemoteStorage,
    FaultyStorage,
    LocalConformanceError,
    PairConformanceError,
    RemoteConformanceError,
    Store,
    capture_transfers,
    check_pair,
    run_owed,
    store,
)
from tests.machines.world import advance
from tests.servers.roots import fresh


@pytest.fixture(params=["memory", "folder"])
def faulty(request: pytest.FixtureRequest) -> Iterator[FaultyStorage]:
    """A faulty storage of either kind, empty."""
    location = str(fresh("faulty")) if request.param == "folder" else None
    yield FaultyStorage(f"test-{request.param}", location, part_size=4)
    store(f"test-{request.param}").clear()


@pytest.fixture
def bucket(faulty: FaultyStorage) -> Store:
    """Its store."""
    return faulty.store


def read(storage: Any, name: str) -> bytes:
    """Return all bytes."""
    with storage.open(name) as file:
        return bytes(file.read())


def test_without_faults(faulty: FaultyStorage) -> None:
    """It is a storage like any other."""
    assert faulty.save("a/b.txt", ContentFile(b"some bytes")) == "a/b.txt"
    assert faulty.save("a/b.txt", ContentFile(b"others")) != "a/b.txt"
    assert faulty.save("text", ContentFile("ü")) == "text"
    assert (read(faulty, "a/b.txt"), read(faulty, "text")) == (b"some bytes", "ü".encode())
    assert (faulty.exists("a/b.txt"), faulty.exists("a")) == (True, False)
    assert faulty.size("a/b.txt") == 10
    assert faulty.listdir("") == (["a"], ["text"])
    assert "b.txt" in faulty.listdir("a")[1]
    assert faulty.url("ä b") == "https://faulty.example/%C3%A4%20b"
    faulty.delete("a/b.txt")
    faulty.delete("a/b.txt")
    with pytest.raises(FileNotFoundError):
        faulty.open("a/b.txt")
    assert faulty.store.calls["delete"] == 2


def test_instances_share_a_store_by_name(faulty: FaultyStorage) -> None:
    """A worker that builds its own instance sees the same objects and the same faults."""
    other = FaultyStorage(faulty.store.name)
    faulty.save("a", ContentFile(b"1"))
    assert read(other, "a") == b"1"
    with store(faulty.store.name).fail("open", OSError("no")), pytest.raises(OSError, match="no"):
        other.open("a")


def test_overwriting(faulty: FaultyStorage) -> None:
    """With ``overwrite`` a save replaces what is there."""
    overwriting = FaultyStorage(faulty.store.name, overwrite=True)
    assert [overwriting.save("a", ContentFile(data)) for data in (b"1", b"2")] == ["a", "a"]
    assert read(faulty, "a") == b"2"


def test_fail_on_the_nth_call(faulty: FaultyStorage, bucket: Store) -> None:
    """The n-th call raises, once, and nothing is done by it."""
    with bucket.fail("save", TimeoutError("slow"), nth=2) as fault:
        faulty.save("a", ContentFile(b"1"))
        with pytest.raises(TimeoutError, match="slow"):
            faulty.save("b", ContentFile(b"2"))
        faulty.save("c", ContentFile(b"3"))
    assert (fault.calls, fault.hits, sorted(bucket.objects)) == (3, 1, ["a", "c"])


def test_fail_for_ever(faulty: FaultyStorage, bucket: Store) -> None:
    """``times=None`` goes on until the fault is taken away; ``*`` is every method."""
    with bucket.fail("*", ConnectionError("down"), times=None) as fault:
        for call in (lambda: faulty.exists("a"), lambda: faulty.size("a"), lambda: faulty.delete("a")):
            with pytest.raises(ConnectionError):
                call()
    assert fault.hits == 3
    assert not faulty.exists("a")


def test_a_part_fails(faulty: FaultyStorage, bucket: Store) -> None:
    """An upload that breaks off half way leaves no object, and nothing unfinished."""
    with bucket.fail("part", ConnectionResetError(), nth=2), pytest.raises(ConnectionResetError):
        faulty.save("a", ContentFile(b"123456789"))
    assert (list(bucket.objects), bucket.objects.unfinished(), bucket.calls["part"]) == ([], 0, 2)


def test_truncate_and_alter(faulty: FaultyStorage, bucket: Store) -> None:
    """Other bytes are stored, or given, and the call says that all is well."""
    with bucket.truncate(3), bucket.alter(bytes.upper, nth=2):
        faulty.save("short", ContentFile(b"abcdef"))
        faulty.save("other", ContentFile(b"abcdef"))
    assert (read(faulty, "short"), read(faulty, "other")) == (b"abc", b"ABCDEF")
    with bucket.truncate(1, "open"):
        assert read(faulty, "other") == b"A"
    assert read(faulty, "other") == b"ABCDEF"


def test_lose_answer(faulty: FaultyStorage, bucket: Store) -> None:
    """The work is done and the caller hears nothing of it."""
    with bucket.lose_answer(TimeoutError()), pytest.raises(TimeoutError):
        faulty.save("a", ContentFile(b"1"))
    assert bucket.objects["a"] == b"1"
    with bucket.lose_answer(TimeoutError(), "delete"), pytest.raises(TimeoutError):
        faulty.delete("a")
    assert not bucket.objects


def test_rename(faulty: FaultyStorage, bucket: Store) -> None:
    """The object lies under another name, which the call returns."""
    with bucket.rename(lambda name: f"{name}-1"):
        assert faulty.save("a", ContentFile(b"1")) == "a-1"
    assert list(bucket.objects) == ["a-1"]


def test_hide(faulty: FaultyStorage, bucket: Store) -> None:
    """What is there is not seen for some looks; a look at nothing does not count."""
    bucket.objects["a"] = b"1"
    with bucket.hide(times=2) as fault:
        assert not faulty.exists("b")
        assert fault.hits == 0
        assert not faulty.exists("a")
        with pytest.raises(FileNotFoundError):
            faulty.open("a")
        assert faulty.exists("a")


def test_hang_until_released(faulty: FaultyStorage, bucket: Store) -> None:
    """A call stands still until it is released, and then goes on as if nothing had been."""
    with bucket.hang("save") as fault:
        saver = threading.Thread(target=faulty.save, args=("a", ContentFile(b"1")), daemon=True)
        saver.start()
        fault.wait(20)
        assert "a" not in bucket.objects
        fault.release()
        saver.join(20)
    assert bucket.objects["a"] == b"1"


def test_heal_releases_what_hangs(faulty: FaultyStorage, bucket: Store) -> None:
    """After ``heal()`` there are no faults, and nobody hangs."""
    fault = bucket.hang("exists")
    looker = threading.Thread(target=faulty.exists, args=("a",), daemon=True)
    looker.start()
    fault.wait(20)
    bucket.heal()
    looker.join(20)
    assert (looker.is_alive(), bucket.faults) == (False, [])


def test_drip(faulty: FaultyStorage, bucket: Store) -> None:
    """Each part takes its time."""
    with bucket.drip(0.02) as fault:
        began = time.monotonic()
        faulty.save("a", ContentFile(b"123456789"))
    assert time.monotonic() - began >= 0.06
    assert fault.hits == 3


def test_a_fault_that_does_not_hit(faulty: FaultyStorage, bucket: Store) -> None:
    """A fault that nobody met is an error of the test, whichever way it was asked for."""
    with (
        pytest.raises(FaultNotHitError, match="call 2 of save.. of the store 'test-"),
        bucket.fail("save", OSError(), nth=2),
    ):
        faulty.save("a", ContentFile(b"1"))
    bucket.hide()
    with pytest.raises(FaultNotHitError):
        bucket.check_hits()
    with pytest.raises(FaultNotHitError):
        bucket.faults[0].wait(0.01)
    with pytest.raises(ZeroDivisionError), bucket.fail("save", OSError()):
        raise ZeroDivisionError


def test_remote_vouches_for_digests() -> None:
    """A faulty remote answers like an object store: digests, no replacing, no other name."""
    remote = FaultyRemoteStorage("test-remote", digests=("md5",))
    remote.store.clear()
    remote.save("a", ContentFile(b"1"))
    assert remote.stat("a") == Stat(1, {"md5": "c4ca4238a0b923820dcc509a6f75849b"})
    assert remote.stat("b") is None
    with pytest.raises(FileExistsError):
        remote.save("a", ContentFile(b"2"))


def test_deconstruction() -> None:
    """The storages can stand on a field: a migration names them by the path that users import."""
    for storage in (FaultyStorage("x"), FaultyRemoteStorage("x")):
        path, arguments, options = storage.deconstruct()  # type: ignore[attr-defined]
        assert (path, arguments, options) == (f"queued_storage.testing.{type(storage).__name__}", ("x",), {})


Pair = Any


@pytest.fixture
def pair(settings: Any, transactional_db: None) -> Iterator[Pair]:
    """A queued storage whose remote is faulty."""
    settings.STORAGES = settings.STORAGES | {"pair": entry()}
    yield storages["pair"]
    store("test-pair").clear()


def entry(**options: Any) -> dict[str, Any]:
    """Return an entry of STORAGES."""
    sides = {
        "local": "queued_storage.local.LocalStorage",
        "local_options": {"location": str(fresh("local"))},
        "remote": "queued_storage.testing.FaultyStorage",
        "remote_options": {"name": "test-pair"},
    }
    return {"BACKEND": "queued_storage.backends.QueuedStorage", "OPTIONS": sides | options}


def states() -> dict[str, str]:
    """Return the state of each record by name."""
    return dict(TransferRecord.objects.values_list("name", "state"))


def test_run_owed_transfers_and_removes(pair: Pair) -> None:
    """Everything queued is transferred, everything deleted is removed, and then nothing is left to do."""
    for name in ("a", "b"):
        pair.save(name, ContentFile(b"1"))
    assert run_owed() == {"transferred": 2}
    pair.delete("a")
    assert run_owed() == {"removed": 1}
    assert run_owed() == {}
    assert (states(), sorted(store("test-pair").objects)) == ({"a": "deleted", "b": "transferred"}, ["b"])


def test_run_owed_in_a_transaction(pair: Pair) -> None:
    """It needs no commit: tests that roll back can use it."""
    with transaction.atomic():
        pair.save("a", ContentFile(b"1"))
        assert run_owed() == {"transferred": 1}
        transaction.set_rollback(True)


def test_run_owed_tries_as_often_as_told(pair: Pair) -> None:
    """A record that fails is tried once, or as often as asked for, without waiting."""
    pair.save("a", ContentFile(b"1"))
    with store("test-pair").fail("save", ConnectionError(), times=4) as fault:
        assert run_owed() == {"retry": 1}
        assert fault.hits == 1
        assert run_owed(attempts=5) == {"retry": 3, "transferred": 1}
    pair.delete("a")
    with store("test-pair").fail("delete", ConnectionError()):
        assert run_owed() == {"postponed": 1}


def test_run_owed_leaves_held_files_alone(pair: Pair, settings: Any) -> None:
    """What is held stays until it is released."""
    settings.STORAGES = settings.STORAGES | {"held": entry(delayed=True), "kept": entry(keep_local=timedelta(hours=1))}
    storages["held"].save("a", ContentFile(b"1"))
    storages["kept"].save("b", ContentFile(b"2"))
    assert run_owed() == {"transferred": 1}
    storages["held"].transfer("a")
    advance(timedelta(hours=2))
    assert run_owed() == {"transferred": 1, "evicted": 1}


def test_capture_transfers(pair: Pair, settings: Any) -> None:
    """The list names what was queued inside, in the order of saving: saved, released, retried; not what was held."""
    settings.STORAGES = settings.STORAGES | {"held": entry(delayed=True)}
    pair.save("before", ContentFile(b"1"))
    held = storages["held"].save("held", ContentFile(b"1"))
    with capture_transfers() as captured:
        for name in ("b", "a"):
            pair.save(name, ContentFile(b"1"))
        storages["held"].save("still held", ContentFile(b"1"))
        storages["held"].transfer(held)
        pair.transfer("before")
        sweeping.process(TransferRecord.objects.get(name="b").pk)
        assert captured == []
    assert [record.name for record in captured] == ["held", "b", "a"]
    assert captured[1].state == "transferred"


def test_capture_nothing(pair: Pair) -> None:
    """Nothing is captured where nothing is queued."""
    pair.save("a", ContentFile(b"1"))
    with capture_transfers() as captured:
        run_owed()
        pair.delete("a")
    assert captured == []


def test_a_good_pair(pair: Pair) -> None:
    """A pair that works passes, and nothing is left on either side."""
    check_pair(pair)
    assert (list(store("test-pair").objects), [*Path(pair.local.location).rglob("*.bin")]) == ([], [])


class Forgetful(InMemoryStorage):
    """A storage that does not delete."""

    def delete(self, name: str) -> None:
        """Do nothing."""


class Trampling(InMemoryStorage):
    """A storage that writes over other files while it returns another name."""

    def save(self, name: Any, content: Any, max_length: int | None = None) -> str:
        """Write over what is there."""
        if self.exists(name):
            with self.open(name, "wb") as file:
                file.write(content.read())
        return str(super().save(name, content, max_length))


class Secretive(InMemoryStorage):
    """A storage that opens an empty file where there is none."""

    def _open(self, name: str, mode: str = "rb") -> Any:
        return super()._open(name, mode) if self.exists(name) else ContentFile(b"", name)


class Lying(FaultyRemoteStorage):
    """A remote that vouches for digests that are not right."""

    def stat(self, name: str) -> Stat | None:
        """Lie."""
        known = super().stat(name)
        return known and Stat(known.size, {"md5": "0" * 32})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"local": f"{__name__}.Forgetful", "local_options": {}}, LocalConformanceError, "still true after delete"),
        ({"remote": f"{__name__}.Forgetful", "remote_options": {}}, RemoteConformanceError, "still true after delete"),
        ({"remote": f"{__name__}.Trampling", "remote_options": {}}, RemoteConformanceError, "changed the first file"),
        ({"remote": f"{__name__}.Secretive", "remote_options": {}}, RemoteConformanceError, "raises nothing"),
        ({"remote": f"{__name__}.Lying"}, RemoteConformanceError, "vouches for a md5 that is not that"),
    ],
    ids=["local forgets", "remote forgets", "remote tramples", "remote invents", "remote lies"],
)
def test_pairs_that_cannot_be_used(
    pair: Pair, settings: Any, options: dict[str, Any], error: type[AssertionError], message: str
) -> None:
    """Each thing that a storage must not do is named, with the side that does it."""
    settings.STORAGES = settings.STORAGES | {"bad": entry(**options)}
    with pytest.raises(error, match=message):
        check_pair(storages["bad"])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda bucket: bucket.truncate(5, "save", times=None), "is 5 after saving"),
        (lambda bucket: bucket.alter(lambda data: data[::-1], "open", times=None), "gives other bytes"),
        (lambda bucket: bucket.hide(times=None), "is false after save"),
        (
            lambda bucket: bucket.fail("open", OSError("500"), nth=7, times=None),
            "raises OSError, not FileNotFoundError",
        ),
    ],
    ids=["short", "reversed", "hidden", "wrong error"],
)
def test_faults_are_found(pair: Pair, fault: Any, message: str) -> None:
    """What a remote does wrong is said in so many words."""
    with fault(store("test-pair")), pytest.raises(RemoteConformanceError, match=message):
        check_pair(pair)


def test_a_pair_whose_transfer_fails(pair: Pair) -> None:
    """A transfer that ends otherwise is told with the reason that stands in the ledger."""
    # Both sides are tried first: three files each, and one to look at.
    with (
        store("test-pair").fail("save", OSError("disk quota exceeded"), nth=8),
        pytest.raises(PairConformanceError, match="ended as retry: OSError: disk quota exceeded"),
    ):
        check_pair(pair)


def test_reading_parts_of_any_content(faulty: FaultyStorage) -> None:
    """Content that cannot be rewound is read as it comes."""

    class Pipe(BytesIO):
        def seekable(self) -> bool:
            return False

    assert read(faulty, faulty.save("a", Pipe(b"123456789"))) == b"123456789"
