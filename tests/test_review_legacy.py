"""A message with the six arguments that comes late, after its file was saved anew, makes no record of its own."""

from __future__ import annotations

import pytest

from queued_storage import ledger, publishing, tasks
from tests.fixtures import MakePair, finish, put, read, record_of

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("generation", [1, 2])
def test_a_message_about_a_superseded_file(make_pair: MakePair, generation: int) -> None:
    """It is taken as one about the file that bears the name now."""
    pair = make_pair(overwrite=True)
    arguments = {}
    for body in (b"first", b"second", b"third"):
        record = put(pair, "a.txt", body)
        arguments[record.generation] = publishing.task_arguments(pair, record)
    assert tasks.Transfer().run(*arguments[generation]) is True
    assert sorted(ledger.records().values_list("name", "state")) == [
        ("a.txt", "deleted"),
        ("a.txt", "deleted"),
        ("a.txt", "transferred"),
    ]
    finish()
    assert read(pair, "a.txt") == b"third"
    assert record_of(pair, "a.txt").generation == 3
