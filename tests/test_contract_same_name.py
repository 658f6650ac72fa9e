"""The same name twice: while the first file waits, after it has moved, after it was deleted, in two storages."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.core.files.base import ContentFile

from queued_storage import ledger, sweeping
from queued_storage.exceptions import TemporarilyUnavailableError
from queued_storage.models import TransferRecord
from tests.conftest import Media
from tests.fixtures import (
    MakePair,
    Pair,
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
from tests.storages import _unreachable

pytest_plugins = ["tests.fixtures"]
pytestmark = committing
DELETING = "queued_storage.tasks.TransferAndDelete"


def test_second_upload_while_first_is_queued(pair: Pair) -> None:
    """A second upload gets another name while the first waits, and both arrive."""
    first, second = put(pair, "a.txt", b"first"), put(pair, "a.txt", b"second")
    assert first.name == "a.txt"
    assert second.name != "a.txt"
    assert facts(first, b"first") == saved("a.txt", b"first")
    assert facts(second, b"second") == saved(second.name, b"second")
    finish()
    assert [read(pair.remote, record.remote_name) for record in (first, second)] == [b"first", b"second"]
    assert [read(pair, record.name) for record in (first, second)] == [b"first", b"second"]


def test_second_upload_after_the_first_left(make_pair: MakePair) -> None:
    """A second upload gets another name when the first is only on the remote, and both can be read throughout."""
    pair = make_pair(task=DELETING)
    first = transfer(pair, "a.txt", b"first")
    assert facts(first, b"first") == moved("a.txt", b"first", local_copy=False)
    second = put(pair, "a.txt", b"second")
    assert second.name != "a.txt"
    assert (read(pair, "a.txt"), read(pair, second.name)) == (b"first", b"second")
    finish()
    assert (read(pair, "a.txt"), read(pair, second.name)) == (b"first", b"second")


def test_no_two_records_share_a_local_place(make_pair: MakePair) -> None:
    """A file saved under the name of one that left the disk does not take its place there."""
    pair = make_pair(task=DELETING)
    first = transfer(pair, "a.txt", b"first")
    second = put(pair, "a.txt", b"second")
    assert first.local_name != second.local_name
    assert read(pair.local, second.local_name) == b"second"


def test_deleting_the_first_keeps_the_second(make_pair: MakePair) -> None:
    """Deleting a file that left the disk takes nothing from a later file of that name."""
    pair = make_pair(task=DELETING)
    transfer(pair, "a.txt", b"first")
    second = put(pair, "a.txt", b"second")
    pair.delete("a.txt")
    for record in TransferRecord.objects.filter(state="deleted"):
        sweeping.process(record.pk)
    assert read(pair, second.name) == b"second"
    finish()
    assert read(pair, second.name) == b"second"


def test_an_evicted_file_is_never_read_from_anothers_bytes(make_pair: MakePair) -> None:
    """With the remote away, a file that left the disk is unavailable; a later file of that name is not shown for it."""
    pair = make_pair(task=DELETING)
    transfer(pair, "a.txt", b"first")
    put(pair, "a.txt", b"secnd")
    pair.remote.faults["*"] = _unreachable
    with pytest.raises(OSError, match="reached|try again"):
        read(pair, "a.txt")


def test_a_queued_file_is_never_read_from_a_foreign_remote_file(pair: Pair) -> None:
    """A file whose local bytes are away is temporarily unavailable; what others have on the remote is not it."""
    pair.remote.save("a.txt", ContentFile(b"foreign"))
    put(pair, "a.txt", b"content")
    pair.local.delete("a.txt")
    with pytest.raises(TemporarilyUnavailableError):
        read(pair, "a.txt")


def test_a_foreign_local_file_is_never_read_for_an_evicted_one(make_pair: MakePair) -> None:
    """What others put where an evicted copy was is not shown for it when the remote is away, nor deleted with it."""
    pair = make_pair(task=DELETING)
    record = transfer(pair, "a.txt", b"content")
    pair.local.save("a.txt", ContentFile(b"foreign"))
    pair.remote.faults["*"] = _unreachable
    with pytest.raises(OSError, match="reached|try again"):
        read(pair, "a.txt")
    pair.remote.faults.clear()
    pair.delete("a.txt")
    sweeping.process(record.pk)
    assert read(pair.local, "a.txt") == b"foreign"


def test_two_storages_with_one_relative_name(make_pair: MakePair, tmp_path: object) -> None:
    """The same name in two storages is two files, with two records and two cache keys."""
    one = make_pair()
    options = {"location": f"{tmp_path}/local"}, {"location": f"{tmp_path}/remote"}
    two = make_pair("other", local_options=options[0], remote_options=options[1])
    first, second = transfer(one, "a.txt", b"one"), transfer(two, "a.txt", b"two")
    assert facts(first, b"one") == moved("a.txt", b"one")
    assert facts(second, b"two") == moved("a.txt", b"two", storage="other")
    assert (read(one, "a.txt"), read(two, "a.txt")) == (b"one", b"two")
    assert one.get_cache_key("a.txt") != two.get_cache_key("a.txt")
    one.delete("a.txt")
    finish()
    assert (one.exists("a.txt"), read(two, "a.txt")) == (False, b"two")


@pytest.mark.parametrize("task", ["queued_storage.tasks.Transfer", DELETING])
def test_two_storages_in_one_folder(make_pair: MakePair, task: str) -> None:
    """Two storages may even share both folders: each file stays what it is until it itself is deleted."""
    one = make_pair(task=task)
    two = make_pair("other", task=task)
    transfer(one, "a.txt", b"one")
    name = transfer(two, "a.txt", b"two").name
    assert (read(one, "a.txt"), read(two, name)) == (b"one", b"two")
    one.delete("a.txt")
    finish()
    assert (read(two, name), record_of(one, "a.txt").state) == (b"two", "deleted")


def test_names_of_deleted_files_are_free_after_the_prune(pair: Pair) -> None:
    """A name is not handed out while its deleted record is there, and is once that is pruned."""
    record = transfer(pair, "a.txt", b"first")
    pair.delete("a.txt")
    sweeping.process(record.pk)
    assert pair.get_available_name("a.txt") != "a.txt"
    other = put(pair, "a.txt", b"second")
    assert other.name != "a.txt"
    make_due(record, by=timedelta(days=8))
    cache.clear()
    sweeping.sweep(sweeping.process_all)
    assert ledger.get(record.pk) is None
    assert pair.get_available_name("a.txt") == "a.txt"
    assert put(pair, "a.txt", b"third").name == "a.txt"
    assert (read(pair, "a.txt"), read(pair, other.name)) == (b"third", b"second")


def test_a_name_that_was_pruned_is_not_gone_in_the_cache(pair: Pair) -> None:
    """A file saved under a pruned name is found, however lately somebody has asked for the deleted one."""
    record = transfer(pair, "a.txt", b"first")
    pair.delete("a.txt")
    sweeping.process(record.pk)
    make_due(record, by=timedelta(days=8))
    cache.clear()
    assert not pair.exists("a.txt")
    sweeping.sweep(sweeping.process_all)
    assert put(pair, "a.txt", b"second").name == "a.txt"
    assert pair.exists("a.txt")
    assert read(pair, "a.txt") == b"second"


@pytest.mark.parametrize("stem", ["a" * 251, "é" * 125 + "a"])
def test_a_name_of_the_greatest_length_twice(make_pair: MakePair, stem: str) -> None:
    """The longest possible name can be saved again after the first file has left the disk."""
    pair = make_pair(task=DELETING)
    name = f"{stem}.txt"
    transfer(pair, name, b"first")
    second = pair.save(name, ContentFile(b"second"))
    assert second != name
    assert (read(pair, name), read(pair, second)) == (b"first", b"second")


def test_a_foreign_remote_file_is_left_alone(pair: Pair, media: Media) -> None:
    """What others have put under the name on the remote is neither replaced nor removed; ours goes elsewhere."""
    (media.remote / "a.txt").write_bytes(b"foreign")
    record = transfer(pair, "a.txt", b"content")
    assert facts(record, b"content") == moved("a.txt", b"content", remote_name=record.remote_name)
    assert record.remote_name.startswith("a.g1-")
    assert (media.remote / "a.txt").read_bytes() == b"foreign"
    assert read(pair, "a.txt") == b"content"
    pair.delete("a.txt")
    finish()
    assert [path.read_bytes() for path in media.remote.iterdir()] == [b"foreign"]


def test_a_foreign_remote_file_of_the_same_size_with_verify_size(make_pair: MakePair, media: Media) -> None:
    """Where only sizes are compared, a foreign file of our size is still not taken for ours."""
    pair = make_pair(verify="size")
    (media.remote / "a.txt").write_bytes(b"foreign")
    record = transfer(pair, "a.txt", b"content")
    assert (media.remote / "a.txt").read_bytes() == b"foreign"
    assert read(pair.remote, record_of(pair, "a.txt").remote_name) == b"content"
    assert record.remote_name != "a.txt"


def test_a_directory_listing_names_every_file_once(make_pair: MakePair) -> None:
    """Both files of one wanted name are listed under the names that they got, wherever they are."""
    pair = make_pair(task=DELETING)
    transfer(pair, "docs/a.txt", b"first")
    second = put(pair, "docs/a.txt", b"second")
    assert pair.listdir("docs") == ([], sorted(["a.txt", second.name.removeprefix("docs/")]))
    finish()
    assert pair.listdir("docs") == ([], sorted(["a.txt", second.name.removeprefix("docs/")]))
