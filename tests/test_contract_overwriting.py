"""Overwriting: new content is a new record with its own places, the old one cleans up after itself."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.db import transaction

from queued_storage import ledger, sweeping, transfers
from queued_storage.models import TransferRecord
from tests.conftest import Media
from tests.fixtures import (
    MakePair,
    Pair,
    Threads,
    committing,
    facts,
    finish,
    make_due,
    moved,
    put,
    read,
    record_of,
    saved,
    transfer,
)
from tests.storages import Gate

pytest_plugins = ["tests.fixtures"]
pytestmark = committing
OVERWRITING_LOCAL = {
    "local": "django.core.files.storage.FileSystemStorage",
    "local_options": {"allow_overwrite": True},
}


@pytest.fixture(params=["overwrite=True", "local overwrites"])
def pair(request: pytest.FixtureRequest, make_pair: MakePair) -> Pair:
    """A storage that replaces files, because it was told so or because its local storage does."""
    return make_pair(**({"overwrite": True} if "True" in request.param else OVERWRITING_LOCAL))


def bodies(media: Media) -> tuple[list[bytes], list[bytes]]:
    """Return all bytes in the local and in the remote folder, staging included."""
    found = (
        [path.read_bytes() for path in folder.rglob("*") if path.is_file()] for folder in (media.local, media.remote)
    )
    local, remote = (sorted(files) for files in found)
    return local, remote


def test_the_record_of_new_content(pair: Pair) -> None:
    """A second save keeps the name and makes a new record in places of its own; the first is deleted."""
    first, second = put(pair, "a.txt", b"first"), put(pair, "a.txt", b"second")
    assert (first.name, second.name) == ("a.txt", "a.txt")
    superseded = {"state": "deleted", "deleted": True, "keyed": False, "local_name": first.local_name}
    assert facts(first, b"first") == saved("a.txt", b"first", **superseded)
    places = {"local_name": second.local_name, "remote_name": second.remote_name}
    assert facts(second, b"second") == saved("a.txt", b"second", generation=2, **places)
    assert len({first.local_name, second.local_name}) == len({first.remote_name, second.remote_name}) == 2
    assert (read(pair, "a.txt"), pair.size("a.txt")) == (b"second", 6)


def test_overwriting_while_queued(pair: Pair, media: Media) -> None:
    """New content before the transfer: only the new bytes arrive, and the old ones go."""
    put(pair, "a.txt", b"first")
    put(pair, "a.txt", b"second")
    finish()
    assert read(pair, "a.txt") == b"second"
    assert bodies(media) == ([b"second"], [b"second"])


def test_overwriting_after_the_transfer(pair: Pair, media: Media) -> None:
    """New content after the transfer: readers see the new bytes at once, and the old ones go on both sides."""
    transfer(pair, "a.txt", b"first")
    put(pair, "a.txt", b"second")
    assert (read(pair, "a.txt"), pair.using_local("a.txt")) == (b"second", True)
    finish()
    assert (read(pair, "a.txt"), pair.using_remote("a.txt")) == (b"second", True)
    assert bodies(media) == ([b"second"], [b"second"])


def test_many_generations(pair: Pair, media: Media) -> None:
    """However often a file is replaced, the last bytes are what is left."""
    for number in range(6):
        put(pair, "a.txt", b"%d" % number)
        if number % 2:
            sweeping.sweep(sweeping.process_all)
            sweeping.process(record_of(pair, "a.txt").pk)
    finish()
    assert (read(pair, "a.txt"), record_of(pair, "a.txt").generation) == (b"5", 6)
    assert bodies(media) == ([b"5"], [b"5"])


def test_overwriting_during_the_transfer(pair: Pair, media: Media, threads: Threads) -> None:
    """New content while the old is on its way: the late end of that attempt changes nothing."""
    first, gate = put(pair, "a.txt", b"first"), Gate()
    pair.remote.faults["save"] = gate
    threads.start(sweeping.process, first.pk)
    gate.wait()
    second = put(pair, "a.txt", b"second")
    pair.remote.faults.clear()
    assert sweeping.process(second.pk) == "transferred"
    gate.open()
    assert threads.join() == ["lost"]
    assert (read(pair, "a.txt"), pair.using_remote("a.txt")) == (b"second", True)
    finish()
    assert read(pair, "a.txt") == b"second"
    assert bodies(media) == ([b"second"], [b"second"])


def test_the_late_put_of_a_zombie(pair: Pair, media: Media, threads: Threads) -> None:
    """A worker that was thought dead sends the old bytes after all has been cleaned up: the new ones stay right."""
    first, gate = put(pair, "a.txt", b"first"), Gate()
    pair.remote.faults["save"] = gate
    threads.start(sweeping.process, first.pk)
    gate.wait()
    pair.remote.faults.clear()
    put(pair, "a.txt", b"second")
    finish()
    assert bodies(media)[1] == [b"second"]
    gate.open()
    threads.join()
    assert read(pair, "a.txt") == b"second"
    make_due(first, by=timedelta(days=8))
    sweeping.sweep(sweeping.process_all)
    assert bodies(media)[1] == [b"second"]


def test_the_same_bytes_again(pair: Pair, media: Media) -> None:
    """Replacing a file by the same bytes loses none of them."""
    transfer(pair, "a.txt", b"same")
    transfer(pair, "a.txt", b"same")
    finish()
    assert read(pair, "a.txt") == b"same"
    assert bodies(media) == ([b"same"], [b"same"])


def test_deleted_names_are_used_again(pair: Pair, media: Media) -> None:
    """Where names are overwritten a deleted one can be saved at once, and the removal takes only the old bytes."""
    first = transfer(pair, "a.txt", b"first")
    pair.delete("a.txt")
    second = put(pair, "a.txt", b"second")
    assert (second.name, second.generation, read(pair, "a.txt")) == ("a.txt", 2, b"second")
    finish()
    make_due(first, by=timedelta(days=8))
    sweeping.sweep(sweeping.process_all)
    assert read(pair, "a.txt") == b"second"
    assert bodies(media) == ([b"second"], [b"second"])


def test_a_prune_of_old_generations_frees_nothing_new(pair: Pair) -> None:
    """Pruning what was superseded leaves the present record alone."""
    first = transfer(pair, "a.txt", b"first")
    second = transfer(pair, "a.txt", b"second")
    sweeping.process(first.pk)
    make_due(first, by=timedelta(days=8))
    sweeping.sweep(sweeping.process_all)
    assert list(TransferRecord.objects.values_list("pk", flat=True)) == [second.pk]
    assert read(pair, "a.txt") == b"second"


def test_nothing_is_cached(pair: Pair) -> None:
    """Nothing is final where names are overwritten, so another process's new content is seen at once."""
    transfer(pair, "a.txt", b"first")
    assert pair.exists("a.txt")
    assert cache.get(pair.get_cache_key("a.txt")) is None


def test_a_stated_staleness_is_cached(make_pair: MakePair) -> None:
    """With a stated staleness the final answer is cached for that long, and costs no query."""
    pair = make_pair(overwrite=True, staleness=timedelta(seconds=30))
    transfer(pair, "a.txt", b"first")
    assert cache.get(pair.get_cache_key("a.txt")) is not None


def test_overwriting_is_rolled_back(pair: Pair, media: Media) -> None:
    """After a rollback the old content is what it was: readable, owed and whole."""
    first = put(pair, "a.txt", b"first")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        pair.save("a.txt", ContentFile(b"second"))
        assert read(pair, "a.txt") == b"second"
        raise ZeroDivisionError
    assert facts(first, b"first") == saved("a.txt", b"first", local_name=first.local_name)
    assert read(pair, "a.txt") == b"first"
    finish()
    assert (read(pair, "a.txt"), bodies(media)[1]) == (b"first", [b"first"])


def test_eight_writers_of_one_name(pair: Pair, media: Media, threads: Threads) -> None:
    """Eight writers at once: one of their contents remains, whole, with eight generations in order."""
    contents = [b"%d" % number * 1000 for number in range(8)]
    names = threads.together(8, lambda number: pair.save("a.txt", ContentFile(contents[number])))
    assert names == ["a.txt"] * 8
    rows = TransferRecord.objects.order_by("generation").values_list("generation", "state")
    assert list(rows) == [*((number, "deleted") for number in range(1, 8)), (8, "queued")]
    final = read(pair, "a.txt")
    assert final in contents
    finish()
    assert read(pair, "a.txt") == final
    assert bodies(media) == ([final], [final])


def test_readers_never_see_a_gap(pair: Pair, threads: Threads) -> None:
    """While a file is replaced again and again, moved and cleaned up, each reader gets one whole content."""
    contents = {b"%d" % number * 500 for number in range(12)}
    put(pair, "a.txt", b"0" * 500)
    done: list[bool] = []

    def look(number: int) -> set[bytes]:
        seen = set()
        while not done:
            seen.add(read(pair, "a.txt"))
            assert pair.exists("a.txt")
        return seen

    def write() -> set[bytes]:
        try:
            for content in sorted(contents):
                pair.save("a.txt", ContentFile(content))
                for record in ledger.records().exclude(local_copy=False):
                    transfers.run(record.pk)
                    sweeping.process(record.pk)
        finally:
            done.append(True)
        return set()

    for number in range(3):
        threads.start(look, number)
    threads.start(write)
    assert set().union(*threads.join()) <= contents


def test_max_length_where_names_are_kept(pair: Pair) -> None:
    """A name that is too long is cut; the cut name is then overwritten like any other."""
    name = pair.save("a" * 50 + ".txt", ContentFile(b"first"), max_length=20)
    assert len(name) <= 20
    assert pair.save(name, ContentFile(b"second"), max_length=20) == name
    assert read(pair, name) == b"second"


def test_moved_generation(pair: Pair) -> None:
    """A later generation is recorded like a first one once it is transferred."""
    put(pair, "a.txt", b"first")
    second = transfer(pair, "a.txt", b"second")
    places = {"local_name": second.local_name, "remote_name": second.remote_name}
    assert facts(second, b"second") == moved("a.txt", b"second", generation=2, **places)
