"""The flags that are the same everywhere, where they came late: dry runs, ages, limits and progress."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from queued_storage import health, ledger
from queued_storage.management.commands import _progress
from tests.factories import RecordFactory
from tests.fixtures import Outbox, Pair, make_due, put, transfer
from tests.test_commands import Ran, Terminal, manage, rows, states

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db

PAST = timedelta(seconds=-5)


def everything_is_due(settings: Any) -> None:
    """Write a record for each duty of the sweep, and some that it leaves alone."""
    settings.QUEUED_STORAGE_RELEASE_AFTER = timedelta(days=1)
    RecordFactory(name="sent.txt", due=PAST)
    RecordFactory(name="later.txt")
    RecordFactory(name="lost.txt", transferring=True, due=PAST)
    RecordFactory(name="running.txt", transferring=True)
    RecordFactory(name="held-long.txt", delayed=True, age=timedelta(days=2))
    RecordFactory(name="held.txt", delayed=True)
    RecordFactory(name="evicted.txt", transferred=True, due_at=timezone.now() - timedelta(seconds=5))
    RecordFactory(name="gone.txt", deleted=True, due=PAST)
    RecordFactory(name="failed.txt", failed=True)
    RecordFactory(name="paused.txt", storage="papers", due=PAST)
    delayed = RecordFactory(name="delayed.txt", delayed=True)
    ledger.records().filter(pk=delayed.pk).update(due_at=timezone.now() - timedelta(seconds=5))
    health.pause("papers")


def test_a_sweep_that_changes_nothing(pair: Pair, outbox: Outbox, settings: Any) -> None:
    """It lists each record that a sweep would move on, with what would be done to it."""
    everything_is_due(settings)
    before = rows()
    assert manage("sweep", "--dry-run") == Ran(
        0,
        "default: lost.txt: rescue\ndefault: held-long.txt: release\ndefault: delayed.txt: release\n"
        "default: sent.txt: send\ndefault: evicted.txt: evict\ndefault: gone.txt: remove\npapers: paused.txt: wait\n",
        "Would do: rescue 1, release 2, send 1, evict 1, remove 1, wait 1.\n",
    )
    assert manage("sweep", "--dry-run", "--in-process", "--json").json == {
        "would_rescue": 1,
        "would_release": 2,
        "would_send": 1,
        "would_evict": 1,
        "would_remove": 1,
        "would_wait": 1,
    }
    assert (rows(), outbox.take()) == (before, [])
    assert manage("status", "--json").json["sweep_age"] is None


def test_a_sweep_does_what_its_dry_run_said(pair: Pair, outbox: Outbox, settings: Any) -> None:
    """The numbers of the dry run are those of the sweep that follows; what was released is sent as well."""
    everything_is_due(settings)
    counts = manage("sweep", "--dry-run", "--json").json
    swept = manage("sweep", "--json").json
    assert (swept["rescued"], swept["released"]) == (counts["would_rescue"], counts["would_release"])
    sent = sum(counts[f"would_{duty}"] for duty in ("send", "evict", "remove"))
    # The one whose delay has ended goes at once; the one that was held goes with the next sweep.
    assert swept["sent"] == sent + 1


def test_run_by_age(pair: Pair, outbox: Outbox) -> None:
    """``--older-than`` chooses what was saved longer ago, for the dry run as for the run, which then tidies nothing."""
    old = put(pair, "old.txt")
    put(pair, "young.txt")
    make_due(old, by=timedelta(days=3))
    RecordFactory(name="gone.txt", deleted=True, due=PAST)
    assert manage("run", "--older-than", "2d", "--dry-run").out == "default: old.txt\n"
    assert manage("run", "--older-than", "2d", "--json").json["transferred"] == 1
    assert states() == {"old.txt": "transferred", "young.txt": "queued", "gone.txt": "deleted"}


def test_reconcile_some_of_it(pair: Pair) -> None:
    """``--limit`` ends after so many files, and ``--dry-run`` wins over ``--apply``."""
    for name in ("a.txt", "b.txt", "c.txt"):
        transfer(pair, name)
        pair.remote.delete(name)
    young = ("--older-than", "0s")
    before = rows()
    ran = manage("reconcile", "--storage", "default", "--limit", "2", *young, "--json")
    assert [row["name"] for row in ran.json["plan"]] == ["a.txt", "b.txt"]
    ran = manage("reconcile", "--storage", "default", "--apply", "--dry-run", *young, "--json")
    assert (ran.code, ran.json["left"], rows()) == (1, 3, before)
    ran = manage("reconcile", "--storage", "default", "--apply", "--limit", "1", *young, "--json")
    assert (ran.json["left"], states()) == (0, {"a.txt": "queued", "b.txt": "transferred", "c.txt": "transferred"})


MOVES = {"retry": {"failed": True}, "release": {"delayed": True}, "hold": {}}


@pytest.mark.parametrize("command", MOVES)
def test_moves_count_on_a_terminal(pair: Pair, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Who waits for many files sees how far it is, unless told not to, and nothing stays of it on the line."""
    monkeypatch.setattr(_progress, "_bar", lambda stream, total: None)
    RecordFactory.create_batch(3, **MOVES[command])
    assert manage(command, "--all", "--no-progress", "--limit", "1", stderr=Terminal()).err == ""
    assert manage(command, "--all", stderr=Terminal()).err == "\r2 of 2 files\r\x1b[K"
