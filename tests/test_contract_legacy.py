"""The six-argument messages of 0.8, which may still wait in the broker, and forged ones."""

from __future__ import annotations

from typing import Any

import pytest
from celery.exceptions import MaxRetriesExceededError

from queued_storage import ledger
from tests.celeryapp import app
from tests.conftest import Media
from tests.factories import RecordFactory
from tests.fixtures import MakePair, Outbox, Pair, committing, facts, moved, put, read, record_of, saved, transfer

pytest_plugins = ["tests.fixtures"]
pytestmark = committing
TRANSFER = "queued_storage.tasks.Transfer"
DELETING = "queued_storage.tasks.TransferAndDelete"
FILES = "django.core.files.storage.FileSystemStorage"


def call(*arguments: Any, task: str = TRANSFER) -> Any:
    """Run a message of six arguments as a worker would."""
    return app.tasks[task].apply(list(arguments)).result


def arguments_of(pair: Pair, name: str) -> tuple[Any, ...]:
    """Return what 0.8 sent for a file of this storage."""
    options = pair.local_options, pair.remote_options
    return name, pair.get_cache_key(name), pair.local_path, pair.remote_path, *options


def test_a_file_without_a_record(pair: Pair, media: Media) -> None:
    """A message of 0.8 about a file of a configured storage takes it into the ledger and moves it."""
    (media.local / "a.txt").write_bytes(b"content")
    assert call(*arguments_of(pair, "a.txt")) is True
    assert facts(record_of(pair, "a.txt"), b"content") == moved("a.txt", b"content")
    assert read(pair.remote, "a.txt") == b"content"


def test_a_file_with_a_record(pair: Pair) -> None:
    """A message of 0.8 about a recorded file is one attempt at its record."""
    record = put(pair, "a.txt")
    assert call(*arguments_of(pair, "a.txt")) is True
    assert facts(record, b"content") == moved("a.txt", b"content")
    assert ledger.records().count() == 1


def test_a_moved_file(pair: Pair) -> None:
    """A message of 0.8 about a file that has moved is answered without doing anything."""
    transfer(pair, "a.txt")
    pair.remote.forget()
    assert call(*arguments_of(pair, "a.txt")) is True
    assert pair.remote.calls == []


def test_a_deleted_file(pair: Pair) -> None:
    """A message of 0.8 about a deleted file brings nothing back."""
    record = transfer(pair, "a.txt")
    pair.delete("a.txt")
    assert call(*arguments_of(pair, "a.txt")) is False
    assert (pair.exists("a.txt"), ledger.records().get().pk) == (False, record.pk)


def test_the_options_of_the_message_are_not_used(pair: Pair, media: Media, tmp_path: Any) -> None:
    """Where a storage is configured its own options count, whatever the message says."""
    (media.local / "a.txt").write_bytes(b"content")
    name, key, local, remote, _, _ = arguments_of(pair, "a.txt")
    assert call(name, key, local, remote, {}, {"location": str(tmp_path)}) is True
    assert ((media.remote / "a.txt").read_bytes(), list(tmp_path.iterdir())) == (b"content", [])


def unconfigured(tmp_path: Any, name: str = "a.txt") -> tuple[Any, ...]:
    """Return the arguments of a pair that nobody has configured, with a file on its local side."""
    for side in ("local", "remote"):
        (tmp_path / side).mkdir()
    (tmp_path / "local" / "a.txt").write_bytes(b"content")
    options = {"location": str(tmp_path / "local")}, {"location": str(tmp_path / "remote")}
    return name, "queued_storage_x", FILES, FILES, *options


def test_an_unconfigured_pair(pair: Pair, tmp_path: Any) -> None:
    """A message of 0.8 about a pair that is not configured is done as 0.8 did it, without a record."""
    assert call(*unconfigured(tmp_path)) is True
    assert (tmp_path / "remote" / "a.txt").read_bytes() == b"content"
    assert (tmp_path / "local" / "a.txt").exists()
    assert ledger.records().count() == 0


def test_an_unconfigured_pair_with_delete(pair: Pair, tmp_path: Any) -> None:
    """``TransferAndDelete`` of an unconfigured pair removes the local file after the verified transfer."""
    assert call(*unconfigured(tmp_path), task=DELETING) is True
    assert (tmp_path / "remote" / "a.txt").read_bytes() == b"content"
    assert not (tmp_path / "local" / "a.txt").exists()


@pytest.mark.parametrize("task", [TRANSFER, DELETING])
def test_an_unconfigured_pair_with_a_foreign_file(pair: Pair, tmp_path: Any, task: str) -> None:
    """Where another file lies under the name on the remote nothing is replaced, nothing deleted, and it is retried."""
    arguments = unconfigured(tmp_path)
    (tmp_path / "remote" / "a.txt").write_bytes(b"foreign")
    assert isinstance(call(*arguments, task=task), MaxRetriesExceededError)
    assert (tmp_path / "remote" / "a.txt").read_bytes() == b"foreign"
    assert (tmp_path / "local" / "a.txt").read_bytes() == b"content"


def test_an_unconfigured_pair_without_the_file(pair: Pair, tmp_path: Any) -> None:
    """A missing local file of an unconfigured pair is retried, as in 0.8."""
    arguments = unconfigured(tmp_path)
    (tmp_path / "local" / "a.txt").unlink()
    assert isinstance(call(*arguments), MaxRetriesExceededError)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (None,) * 6,
        (42, "k", FILES, FILES, {}, {}),
        ("../a.txt", "k", FILES, FILES, {}, {}),
        ("/etc/passwd", "k", FILES, FILES, {}, {}),
        ("a\x00.txt", "k", FILES, FILES, {}, {}),
        (["a.txt"], "k", FILES, FILES, {}, {}),
        ("", "k", FILES, FILES, {}, {}),
    ],
)
def test_forged_names(pair: Pair, arguments: tuple[Any, ...]) -> None:
    """A message without a usable name is ignored before anything is opened or built."""
    assert call(*arguments) is False
    assert (ledger.records().count(), pair.remote.calls) == (0, [])


@pytest.mark.parametrize(
    "path", ["no.such.Storage", "os.system", "subprocess.Popen", "", None, 42, ["x"], "builtins.dict"]
)
def test_forged_paths(pair: Pair, path: Any, tmp_path: Any) -> None:
    """A path that is no storage class is refused: what it names is neither called nor kept."""
    evidence = tmp_path / "evidence"
    result = call("a.txt", "k", path, FILES, {"args": ["touch", str(evidence)]}, {})
    assert result is False or isinstance(result, Exception)
    assert (ledger.records().count(), evidence.exists()) == (0, False)


def test_two_storages_with_the_same_paths(make_pair: MakePair, tmp_path: Any) -> None:
    """Of several storages with the same paths, the one that has the file is meant."""
    make_pair()
    (tmp_path / "local").mkdir()
    options = {"local_options": {"location": str(tmp_path / "local")}}
    other = make_pair("other", **options, remote_options={"location": str(tmp_path / "remote")})
    (tmp_path / "local" / "a.txt").write_bytes(b"content")
    assert call(*arguments_of(other, "a.txt")) is True
    assert facts(record_of(other, "a.txt"), b"content") == moved("a.txt", b"content", storage="other")


def test_adopting_by_transfer(pair: Pair, media: Media, outbox: Outbox) -> None:
    """``transfer()`` of a local file without a record takes it into the ledger and sends its message."""
    (media.local / "a.txt").write_bytes(b"content")
    assert pair.transfer("a.txt") is not None
    record = record_of(pair, "a.txt")
    assert facts(record) == saved("a.txt", b"content", size=None, digest="")
    assert (pair.size("a.txt"), read(pair, "a.txt")) == (7, b"content")
    outbox.deliver()
    assert facts(record, b"content") == moved("a.txt", b"content")


def test_adopting_a_held_file(make_pair: MakePair, media: Media, outbox: Outbox) -> None:
    """``transfer()`` of an unrecorded file of a delayed storage moves it as well: it says so."""
    pair = make_pair(delayed=True)
    (media.local / "a.txt").write_bytes(b"content")
    pair.transfer("a.txt")
    outbox.deliver()
    assert record_of(pair, "a.txt").state == "transferred"


def test_nothing_to_adopt(pair: Pair) -> None:
    """``transfer()`` of a file that is nowhere raises ``FileNotFoundError``."""
    with pytest.raises(FileNotFoundError):
        pair.transfer("a.txt")
    assert ledger.records().count() == 0


def test_an_adopted_file_that_fails(pair: Pair, outbox: Outbox) -> None:
    """A record without size and digest whose file is gone fails with its reason."""
    record = RecordFactory(name="a.txt", size=None, digest="")
    call(*arguments_of(pair, "a.txt"))
    assert facts(record)["error_kind"] == "missing"
