"""A batch that could not be recorded at once is recorded when the run ends."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError

from queued_storage import batches, draining, ledger
from tests.fixtures import Pair, committing, put

pytest_plugins = ["tests.fixtures"]
pytestmark = committing


def test_an_outage_of_the_database(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived is not forgotten, and what was only claimed is given back."""
    for number in range(4):
        put(pair, f"{number}.txt")
    ledger.records().filter(name="3.txt").update(retries=1)
    complete, calls = batches.complete, []

    def fail_once(*args: Any) -> set[int]:
        calls.append(args)
        if len(calls) == 1:
            raise OperationalError("the database system is starting up")
        return complete(*args)

    monkeypatch.setattr(batches, "complete", fail_once)
    with pytest.raises(OperationalError):
        list(draining.drain())
    assert len(calls) == 2
    found = dict(ledger.records().values_list("name", "state"))
    assert found == {"0.txt": "transferred", "1.txt": "transferred", "2.txt": "transferred", "3.txt": "queued"}
