"""A worker that was thought dead comes back with its upload done."""

from __future__ import annotations

import time
import uuid

from queued_storage import ledger, sweeping, transfers
from queued_storage.models import Outcome
from tests.fixtures import MakePair, committing, facts, make_due, put, read

pytest_plugins = ["tests.fixtures"]
pytestmark = committing


def test_what_a_zombie_had_uploaded_belongs_to_its_successor(make_pair: MakePair) -> None:
    """The second worker finds the bytes and completes; the first one loses its lease and takes nothing away."""
    pair = make_pair(keep_local=False)
    record = put(pair, "a.txt")
    zombie = transfers.Attempt(ledger.claim(record.pk, uuid.uuid4(), "zombie:1").get(), time.monotonic())
    zombie.storage = pair
    zombie.copy()
    make_due(record)
    assert sweeping.rescue(10) == 1
    make_due(record)
    assert sweeping.process(record.pk) == Outcome.TRANSFERRED
    settled = facts(record, b"content")
    assert transfers.complete(zombie) == Outcome.LOST
    assert facts(record, b"content") == settled
    assert read(pair, "a.txt") == b"content"
