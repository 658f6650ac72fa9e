"""``queued_storage_verify``: what the remote lost is found, sent again where that can be, and never made worse."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile

from queued_storage import examining, ledger, locations, removal, signals
from queued_storage.testing import store
from tests.fixtures import MakePair, Pair, committing, facts, make_due, moved, read, record_of, transfer
from tests.test_commands import Ran, manage, rows, states

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db
FAULTY = "queued_storage.testing.FaultyRemoteStorage"


def report(verified: int = 0, requeued: int = 0, missing: int = 0, altered: int = 0, unknown: int = 0) -> str:
    """Return what ``verify`` prints."""
    return (
        f"verified: {verified}\nrequeued: {requeued}\nmissing:  {missing}\naltered:  {altered}\nunknown:  {unknown}\n"
    )


@pytest.fixture
def bucket() -> Iterator[Any]:
    """An empty object store that vouches for SHA-256."""
    store("verify").clear()
    yield store("verify")
    store("verify").clear()


@pytest.fixture
def kept(make_pair: MakePair, bucket: Any) -> Pair:
    """A storage on that store which keeps its local copies."""
    return make_pair(remote=FAULTY, remote_options={"location": None, "base_url": "x:", "name": "verify"})


def evicted(pair: Pair, name: str, content: bytes = b"content") -> Any:
    """Transfer a file and remove its local copy."""
    record = transfer(pair, name, content)
    assert removal.evict(record, pair)
    return record_of(pair, name)


class Told(list[Any]):
    """What ``file_missing`` said."""

    def __call__(self, sender: Any, name: str, kind: str, requeued: bool, **facts: Any) -> None:
        self.append((name, str(kind), requeued))


@pytest.fixture
def told() -> Iterator[Told]:
    """What is said of missing files."""
    receiver = Told()
    signals.file_missing.connect(receiver)
    yield receiver
    signals.file_missing.disconnect(receiver)


def test_all_is_well(kept: Pair, bucket: Any) -> None:
    """One question for each file, nothing is read, and the moment is noted."""
    for name in ("a.txt", "b.txt"):
        transfer(kept, name)
    bucket.calls.clear()
    assert manage("verify") == Ran(0, report(verified=2), "")
    assert dict(bucket.calls) == {"stat": 2}
    assert facts(record_of(kept, "a.txt"), b"content") == moved("a.txt", b"content")
    assert record_of(kept, "a.txt").checked_at is not None
    assert manage("verify", "--json").json == {
        "verified": 2,
        "requeued": 0,
        "missing": 0,
        "altered": 0,
        "unknown": 0,
    }


@committing
def test_what_is_gone_is_sent_again(kept: Pair, bucket: Any, told: Told) -> None:
    """A file whose object vanished, and one whose object was altered, go again from their local copies."""
    for name in ("a.txt", "b.txt", "c.txt"):
        transfer(kept, name)
    assert kept.using_remote("a.txt")
    del bucket.objects["a.txt"]
    bucket.objects["b.txt"] = b"altered"
    before = rows()
    assert manage("verify", "--dry-run") == Ran(0, "would verify: 3\n", "")
    assert manage("verify", "--dry-run", "--json").json == {"would_verify": 3}
    assert rows() == before
    assert manage("verify") == Ran(
        1,
        report(verified=1, requeued=2),
        "default: a.txt: requeued: nothing lies at a.txt on the remote\n"
        "default: b.txt: requeued: the remote vouches for another sha256 than was saved\n",
    )
    assert told == [("a.txt", "missing", True), ("b.txt", "mismatch", True)]
    assert states() == {"a.txt": "queued", "b.txt": "queued", "c.txt": "transferred"}
    # The cache forgets its former answer: readers get the local copies meanwhile.
    assert kept.using_local("a.txt")
    assert read(kept, "b.txt") == b"content"
    assert manage("run").code == 0
    assert bucket.objects["a.txt"] == b"content"
    assert bucket.objects["b.txt"] == b"altered"
    again = record_of(kept, "b.txt")
    assert again.remote_name != "b.txt"
    assert bucket.objects[again.remote_name] == b"content"
    assert facts(record_of(kept, "a.txt"), b"content") == moved("a.txt", b"content")
    assert manage("verify").out == report(verified=3)


@committing
def test_a_slow_reader_brings_no_old_answer_back(kept: Pair, bucket: Any) -> None:
    """Who has read the row before the file went again cannot put "on the remote" into the cache afterwards."""
    transfer(kept, "a.txt")
    old = locations.locate(kept, "a.txt")
    bucket.objects["a.txt"] = b"altered"
    manage("verify")
    assert old is not None
    locations._write(locations.cache_key(kept, "a.txt"), old, timedelta(days=1))
    assert kept.using_local("a.txt")
    manage("run")
    assert read(kept, "a.txt") == b"content"


def test_what_cannot_be_sent_again_is_said(kept: Pair, bucket: Any, told: Told) -> None:
    """Without the right bytes locally nothing is changed but what the record says."""
    for name in ("a.txt", "b.txt", "c.txt"):
        evicted(kept, name)
    changed = transfer(kept, "d.txt")
    Path(kept.local.path("d.txt")).write_bytes(b"changed")
    for name in ("a.txt", "d.txt"):
        del bucket.objects[name]
    bucket.objects["b.txt"] = b"other bytes"
    ran = manage("verify")
    assert ran == Ran(
        1,
        report(verified=1, missing=2, altered=1),
        "default: a.txt: missing: nothing lies at a.txt on the remote\n"
        "default: b.txt: altered: the remote copy has 11 bytes in place of 7\n"
        "default: d.txt: missing: nothing lies at d.txt on the remote\n",
    )
    assert told == [("a.txt", "missing", False), ("b.txt", "mismatch", False), ("d.txt", "missing", False)]
    assert facts(record_of(kept, "a.txt"), b"content") == moved(
        "a.txt",
        b"content",
        local_copy=False,
        error_kind="missing",
        error="nothing lies at a.txt on the remote",
    )
    assert bucket.objects["b.txt"] == b"other bytes"
    assert Path(kept.local.path("d.txt")).read_bytes() == b"changed"
    # Put back, all is well, and the record says so.
    bucket.objects["a.txt"] = b"content"
    assert manage("verify", "--prefix", "a").out == report(verified=1)
    assert record_of(kept, "a.txt").error == ""
    assert changed.pk


def test_deep_reads(pair: Pair, tmp_path: Path) -> None:
    """A remote that vouches for nothing is believed its size, until its bytes are read."""
    transfer(pair, "a.txt")
    Path(pair.remote.path("a.txt")).write_bytes(b"CONTENT")
    assert manage("verify").out == report(verified=1)
    assert manage("verify", "--deep") == Ran(
        1, report(requeued=1), "default: a.txt: requeued: the remote copy has other bytes than were saved\n"
    )
    assert manage("run").out.startswith("transferred: 1\n")
    assert manage("verify", "--deep").out == report(verified=1)
    assert Path(pair.remote.path("a.txt")).read_bytes() == b"CONTENT"


def test_a_round_goes_on(kept: Pair, bucket: Any, settings: Any) -> None:
    """With --every each file is looked at once in a round, whatever was found, also by several runs."""
    first, second, third = (evicted(kept, name) for name in ("a.txt", "b.txt", "c.txt"))
    assert manage("verify", "--every", "7d").out == report()
    make_due(first, second, third, by=timedelta(days=8))
    del bucket.objects["a.txt"]
    assert manage("verify", "--every", "7d", "--limit", "2", "--no-progress").out == report(verified=1, missing=1)
    assert manage("verify", "--every", "7d").out == report(verified=1)
    assert manage("verify", "--every", "7d") == Ran(0, report(), "")
    ledger.records().filter(pk=second.pk).update(checked_at=ledger.after(timedelta(days=-7)))
    assert manage("verify", "--every", "7d").out == report(verified=1)


def test_a_remote_that_does_not_answer_is_left_alone(kept: Pair, bucket: Any, settings: Any) -> None:
    """No answer is not "gone": nothing is changed, and after three of them nobody is asked."""
    for number in range(6):
        transfer(kept, f"{number}.txt")
    before = rows()
    bucket.calls.clear()
    with bucket.fail("stat", ConnectionError("no route"), times=None):
        ran = manage("verify")
    assert (ran.code, ran.out) == (1, report(unknown=6))
    assert ran.err == "".join(f"default: {n}.txt: unknown: ConnectionError: no route\n" for n in range(3))
    assert bucket.calls["stat"] == 3
    assert rows() == before


def test_a_storage_that_is_gone(kept: Pair, settings: Any) -> None:
    """Records of a storage that is not configured are counted as unknown and the others are verified."""
    transfer(kept, "a.txt")
    record = transfer(kept, "b.txt")
    ledger.records().filter(pk=record.pk).update(storage="gone")
    ran = manage("verify")
    assert (ran.code, ran.out) == (1, report(verified=1, unknown=1))
    assert ran.err.startswith("gone: b.txt: unknown: UnknownStorageError: no queued storage has the alias 'gone'")


def test_verify_is_interrupted(kept: Pair, bucket: Any) -> None:
    """Ctrl-C ends in 130 and reports what was done; nothing else is changed."""
    for name in ("a.txt", "b.txt", "c.txt"):
        transfer(kept, name)
    bucket.fail("stat", KeyboardInterrupt(), nth=2)
    assert manage("verify") == Ran(130, report(verified=1), "")


def test_other_states_are_told_to_callers(kept: Pair) -> None:
    """The function says of each record that is not transferred in which state it is."""
    from queued_storage import verifying
    from queued_storage.results import tally

    transfer(kept, "a.txt")
    kept.save("b.txt", ContentFile(b"b"))
    result = tally(verifying.verify(ledger.records()))
    assert (result.changed, result.bytes, dict(result.unchanged)) == (1, 7, {"queued": 1})


def test_the_throttle() -> None:
    """No more than so many a second, whatever the work takes; without a rate nobody waits."""
    waited: list[float] = []
    assert list(examining.throttled(range(3), 10, waited.append)) == [0, 1, 2]
    assert waited == [pytest.approx(0.1, abs=0.05), pytest.approx(0.2, abs=0.05)]
    assert list(examining.throttled("ab", None, waited.append)) == ["a", "b"]
    assert len(waited) == 2
