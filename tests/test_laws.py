"""The laws that no other test holds, and where each of the others is held."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import OperationalError, connection, transaction

from queued_storage import ledger, removal, sweeping, transfers
from queued_storage.exceptions import LeaseLostError
from queued_storage.models import State, TransferRecord
from tests.conftest import Media
from tests.factories import RecordFactory
from tests.fixtures import (
    MakePair,
    Outbox,
    Pair,
    Threads,
    committing,
    facts,
    finish,
    moved,
    put,
    read,
    record_of,
    saved,
    transfer,
)

pytest_plugins = ["tests.fixtures"]
pytestmark = committing

LAWS = {
    1: ["laws.test_the_order_of_a_save", "laws.test_the_order_of_a_delete", "messages.test_after_the_commit"],
    2: ["sweeping.test_the_broker_is_gone_for_good", "locations.test_no_answer_changes_without_the_cache"],
    3: ["locations.test_only_final_answers_are_cached", "locations.test_a_slow_reader"],
    4: [
        "contract_same_name.test_no_two_records_share_a_local_place",
        "contract_same_name.test_a_foreign_remote_file_is_left_alone",
        "contract_overwriting.test_the_late_put_of_a_zombie",
    ],
    5: ["transfers.test_one_record_by_eight_workers", "contract_leases.test_two_attempts_by_hand"],
    6: ["contract_leases.test_progress_renews_the_lease", "laws.test_the_lease_ends_with_the_database_away"],
    7: [
        "contract_errors.test_other_bytes_on_the_remote",
        "transfers.test_the_returned_name",
        "laws.test_cannot_tell_is_not_absent",
    ],
    8: ["contract_tasks.test_transfer_and_delete", "sweeping.test_an_eviction_of_the_only_good_copy"],
    9: ["contract_counts.test_no_request_calls_the_remote", "contract_broker.test_a_silent_broker"],
    10: ["messages.test_no_secret_in_any_message", "contract_legacy.test_forged_paths"],
    11: ["ledger_rows.test_no_limbo", "laws.test_every_state_is_moved_on"],
    12: ["contract_names.test_refused_names", "contract_names.test_names_that_cannot_be_saved"],
    13: ["laws.test_names_that_a_collation_takes_for_one", "ledger_rows.test_every_key_is_taken"],
    14: ["transfers.test_a_gate_that_is_never_reached", "sweeping.test_the_broker_is_gone_for_good"],
}


@pytest.mark.parametrize("law", LAWS)
def test_every_law_is_held(law: int) -> None:
    """Every law has its tests."""
    for place in LAWS[law]:
        module, _, name = place.partition(".")
        assert callable(getattr(import_module(f"tests.test_{module}"), name))


@contextmanager
def watching(look: Callable[[str], None]) -> Iterator[None]:
    """Call ``look`` with each statement before it is executed."""

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        look(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield


def committed() -> int:
    """Return how many records another connection can see."""
    threads = Threads()
    threads.start(lambda: TransferRecord.objects.count())
    (count,) = threads.join()
    return int(count)


class Witness:
    """A task that notes how many records were committed when it was called."""

    seen: list[int] = []

    def delay(self, *args: Any) -> None:
        """Look at the ledger from another connection."""
        self.seen.append(committed())


witness = Witness()


def test_the_order_of_a_save(make_pair: MakePair, media: Media) -> None:
    """A save writes the bytes, then the row in the caller's transaction, and sends its message after the commit."""
    pair = make_pair(task="tests.test_laws.witness")
    witness.seen.clear()
    at_insert: list[bytes] = []

    def look(sql: str) -> None:
        if sql.startswith("INSERT"):
            at_insert.append((media.local / "a.txt").read_bytes())

    with transaction.atomic():
        with watching(look):
            pair.save("a.txt", ContentFile(b"content"))
        assert witness.seen == []
    assert (at_insert, witness.seen) == ([b"content"], [1])


def test_a_save_whose_row_cannot_be_written(pair: Pair, media: Media, outbox: Outbox) -> None:
    """Where the row cannot be written the save raises, and neither bytes nor a message are left."""

    def refuse(sql: str) -> None:
        if sql.startswith("INSERT"):
            raise ZeroDivisionError

    with watching(refuse), pytest.raises(ZeroDivisionError):
        pair.save("a.txt", ContentFile(b"content"))
    assert ([path for path in media.local.rglob("*") if path.is_file()], outbox.take()) == ([], [])
    assert TransferRecord.objects.count() == 0


def test_a_save_whose_bytes_cannot_be_written(pair: Pair, media: Media, outbox: Outbox) -> None:
    """Where the bytes cannot be written the save raises, and there is no row and no message."""

    class BrokenFile(ContentFile):
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            yield b"half"
            raise OSError("the client went away")

    with pytest.raises(OSError, match="went away"):
        pair.save("a.txt", BrokenFile(b"content"))
    assert ([path for path in media.local.rglob("*") if path.is_file()], outbox.take()) == ([], [])
    assert TransferRecord.objects.count() == 0


@pytest.mark.parametrize("meddle", [lambda data: data[:-1], lambda data: b"", lambda data: data + b"!"])
def test_a_local_storage_that_keeps_other_bytes(
    make_pair: MakePair, media: Media, meddle: Callable[[bytes], bytes]
) -> None:
    """Where the local storage kept more or less than it was given the save raises, and nothing is left."""
    pair = make_pair(local="tests.storages.MeddlingStorage")
    pair.local.meddle = meddle
    with pytest.raises(OSError, match="kept other than the 7 bytes"):
        pair.save("a.txt", ContentFile(b"content"))
    assert ([path for path in media.local.rglob("*") if path.is_file()], TransferRecord.objects.count()) == ([], 0)


def test_the_order_of_a_delete(pair: Pair, media: Media) -> None:
    """A delete commits its row, then removes the remote bytes, then the local ones."""
    record = transfer(pair, "a.txt")
    seen: list[tuple[str, str, bool, bool]] = []

    def look(side: str) -> None:
        state = ledger.records().get(pk=record.pk).state
        seen.append((side, state, (media.local / "a.txt").exists(), (media.remote / "a.txt").exists()))

    original = pair.local.delete

    def delete(name: str) -> None:
        look("local")
        original(name)

    pair.remote.faults["delete"] = lambda name: look("remote")
    pair.local.delete = delete
    with transaction.atomic():
        pair.delete("a.txt")
        assert seen == []
    sweeping.process(record.pk)
    assert seen == [("remote", "deleted", True, True), ("local", "deleted", True, False)]


def test_the_lease_ends_with_the_database_away(pair: Pair, settings: Any) -> None:
    """While the database is away an upload goes on, but no longer than its lease by its own clock."""
    settings.QUEUED_STORAGE_LEASE = 3
    record = put(pair, "a.txt")
    started = time.monotonic() - 1.2
    attempt = transfers.Attempt(ledger.claim(record.pk, uuid.uuid4(), "host:1").get(), started)

    def away(sql: str) -> None:
        raise OperationalError("the server has gone away")

    with watching(away):
        attempt.progress(1)
    attempt.ends_at = time.monotonic()
    with watching(away), pytest.raises(LeaseLostError):
        attempt.progress(1)
    assert attempt.bytes == 2


@pytest.mark.parametrize("error", [PermissionError("403"), TimeoutError("slow"), RuntimeError("500")])
def test_cannot_tell_is_not_absent(pair: Pair, error: Exception) -> None:
    """Where the remote cannot tell whether something lies there, nothing is sent and nothing is completed."""
    record = put(pair, "a.txt")

    def fault(name: str) -> None:
        raise error

    pair.remote.faults["exists"] = fault
    assert sweeping.process(record.pk) == "retry"
    assert pair.remote.calls == ["exists"]
    assert facts(record, b"content")["state"] == "queued"


@pytest.mark.parametrize("method", ["exists", "size", "open"])
def test_cannot_tell_is_not_verified(pair: Pair, method: str) -> None:
    """Where the remote cannot be asked after the upload, the file is not transferred yet; the next attempt finds it."""
    record, saves = put(pair, "a.txt"), []

    def after_save(name: str) -> None:
        if "save" in pair.remote.calls and not saves:
            saves.append(name)
            raise ConnectionError("away")

    pair.remote.faults[method] = after_save
    assert sweeping.process(record.pk) == "retry"
    assert saves == ["a.txt"]
    assert record_of(pair, "a.txt").state == State.QUEUED
    assert sweeping.process(record.pk) == "transferred"
    assert pair.remote.calls.count("save") == 1


def test_every_state_is_moved_on(make_pair: MakePair) -> None:
    """From every state a record comes to rest by the sweep alone, or by the one act of a person that it waits for."""
    pair = make_pair()
    RecordFactory(name="a.txt", state=State.DELAYED, due_at=None)
    put(pair, "b.txt")
    RecordFactory(name="c.txt", transferring=True)
    transfer(pair, "d.txt")
    RecordFactory(name="e.txt", failed=True)
    pair.delete(put(pair, "f.txt").name)
    for name in ("a.txt", "c.txt", "e.txt"):
        pair.local.save(name, ContentFile(b"the bytes of a file"))
    pair.transfer("a.txt")
    pair.transfer("e.txt")
    finish()
    states = dict(ledger.records().values_list("name", "state"))
    moved_on = dict.fromkeys(["a.txt", "b.txt", "c.txt", "d.txt", "e.txt"], "transferred")
    assert states == moved_on | {"f.txt": "deleted"}


# Case, accents, padding, ligatures, the letters i of Turkish, digits of another script, what is not printed, symbols.
STEMS = ["a", "A", "\xe4", "a\u0308", "\xe0", "a.txt ", "\ufb01", "fi", "ss", "\xdf", "i", "I", "\u0130", "\u0131"]
ONE_FOR_A_COLLATION = [f"{stem}.txt" for stem in [*STEMS, "1", "\u0661", "a\xad", "\U0001f600", "\U0001f601"]]


def test_names_that_a_collation_takes_for_one(pair: Pair) -> None:
    """Names that differ in case, accents, padding or spelling are different files on every database."""
    for name in ONE_FOR_A_COLLATION:
        assert pair.save(name, ContentFile(name.encode())) == name
    finish()
    for name in ONE_FOR_A_COLLATION:
        assert read(pair, name) == name.encode()
        assert pair.remote.exists(record_of(pair, name).remote_name)
    pair.delete("a.txt")
    assert [name for name in ONE_FOR_A_COLLATION if not pair.exists(name)] == ["a.txt"]


def test_a_failed_eviction_undoes_nothing(make_pair: MakePair) -> None:
    """Where the local copy cannot be removed the transfer stands."""
    pair = make_pair()
    record = transfer(pair, "a.txt")

    def fail(name: str) -> None:
        raise OSError("read-only file system")

    pair.local.delete = fail
    assert removal.evict(record, pair) is False
    row = facts(record, b"content")
    assert (row["state"], row["local_copy"], row["error"]) == ("transferred", True, "OSError: read-only file system")


def test_a_transfer_costs_no_row_of_others(pair: Pair) -> None:
    """No step of a transfer touches any other row of the ledger."""
    other, record = put(pair, "other.txt"), put(pair, "a.txt")
    sweeping.process(record.pk)
    assert facts(other, b"content") == saved("other.txt", b"content")
    assert facts(record, b"content") == moved("a.txt", b"content")
    assert facts(other)["due"] == timedelta(seconds=60)
