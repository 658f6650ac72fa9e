"""The database does what it was told, but its answer is lost: nobody may take that for a failure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.files.base import ContentFile
from django.db import connection

from queued_storage import ledger, sweeping
from queued_storage.exceptions import SaveUnknownError
from tests.conftest import Media
from tests.fixtures import MakePair, Pair, attempts, committing, facts, finish, moved, put, read, record_of, saved
from tests.wires import Wire, wire_to_the_database

pytest_plugins = ["tests.fixtures"]
pytestmark = [
    committing,
    pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite answers by a function call, which is never lost"),
]


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A wire to the database."""
    with wire_to_the_database() as wire:
        yield wire


def test_the_insert_of_a_save(pair: Pair, wire: Wire) -> None:
    """A save whose INSERT was committed unheard is found to be saved."""
    pair.exists("a.txt")
    wire.cut_after = b"INSERT INTO"
    assert pair.save("a.txt", ContentFile(b"content")) == "a.txt"
    assert wire.cuts == 1
    assert ledger.records().count() == 1
    assert facts(record_of(pair, "a.txt"), b"content") == saved("a.txt", b"content")
    finish()
    assert read(pair, "a.txt") == b"content"


def test_the_insert_of_a_save_and_no_database_after_it(pair: Pair, wire: Wire, media: Media) -> None:
    """Where nobody can be asked whether the save was committed, its bytes stay and the error says so."""
    pair.exists("a.txt")
    wire.cut_after = b"INSERT INTO"
    settings = connection.settings_dict
    host = settings["HOST"]

    original = pair.local.store

    def store(*arguments: object) -> object:
        stored = original(*arguments)
        # The open connection goes on; a new one finds nobody.
        settings["HOST"] = "127.0.0.2"
        return stored

    pair.local.store = store
    try:
        with pytest.raises(SaveUnknownError):
            pair.save("a.txt", ContentFile(b"content"))
    finally:
        settings["HOST"] = host
    assert wire.cuts == 1
    assert (media.local / "a.txt").read_bytes() == b"content"
    assert read(pair, "a.txt") == b"content"


# Not AUTOCOMMIT: between the byte of the command and the end of the text.
COMMIT = b"\x03COMMIT" if connection.vendor == "mysql" else b"COMMIT\0"


@pytest.mark.parametrize("request_cut", [COMMIT, b"INSERT INTO", b"UPDATE "], ids=["COMMIT", "INSERT", "UPDATE"])
def test_the_commit_of_an_overwriting_save(make_pair: MakePair, wire: Wire, request_cut: bytes) -> None:
    """An overwriting save that lost an answer leaves one whole content: the new one if it said so, else either."""
    pair = make_pair(overwrite=True)
    put(pair, "a.txt", b"first")
    wire.cut_after = request_cut
    try:
        pair.save("a.txt", ContentFile(b"second"))
        acknowledged = True
    except Exception:
        acknowledged = False
    assert wire.cuts == 1
    content = read(pair, "a.txt")
    assert content in ([b"second"] if acknowledged else [b"first", b"second"])
    finish()
    assert read(pair, "a.txt") == content


@pytest.mark.parametrize("step", range(4))
def test_each_statement_of_a_transfer(make_pair: MakePair, wire: Wire, step: int) -> None:
    """Whichever answer of a transfer is lost, the file is transferred, once, and never stays in a worker's hands."""
    pair = make_pair(keep_local=False)
    record = put(pair, "a.txt")
    statement = [b"UPDATE ", b"SELECT ", b"UPDATE ", b"INSERT INTO"][step]
    if step < 2:
        wire.cut_after = statement
    else:
        pair.remote.faults["save"] = lambda name: setattr(wire, "cut_after", statement)
    outcome = sweeping.process(record.pk)
    assert (wire.cuts, outcome) == (1, "transferred")
    assert facts(record, b"content") == moved("a.txt", b"content", local_copy=False)
    assert pair.remote.calls.count("save") == 1
    assert attempts()[0] == ("transferred", "", 7)


def test_the_update_of_a_delete(pair: Pair, wire: Wire) -> None:
    """A delete whose UPDATE was committed unheard is a delete."""
    put(pair, "a.txt")
    wire.cut_after = b"UPDATE "
    pair.delete("a.txt")
    assert (wire.cuts, pair.exists("a.txt")) == (1, False)
    finish()
    assert not pair.local.exists("a.txt")
