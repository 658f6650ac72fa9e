"""Local bytes that are others than were saved are nobody's to evict, not even by the worker that has just finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from queued_storage import sweeping
from tests.fixtures import MakePair, facts, moved, put, record_of
from tests.test_verify import FAULTY, bucket as bucket

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


def test_a_local_file_that_was_changed_while_its_transfer_was_repeated(make_pair: MakePair, bucket: Any) -> None:
    """The first answer was lost, then somebody wrote over the local file: the remote has ours, the other one stays."""
    pair = make_pair(
        remote=FAULTY, remote_options={"location": None, "base_url": "x:", "name": "verify"}, keep_local=False
    )
    record = put(pair, "a.txt")
    with bucket.lose_answer(ConnectionError("lost")):
        assert sweeping.process(record.pk) == "retry"
    local = Path(pair.local.path("a.txt"))
    local.write_bytes(b"changed")
    assert sweeping.process(record.pk) == "transferred"
    assert local.read_bytes() == b"changed"
    assert facts(record_of(pair, "a.txt"), b"content") == moved("a.txt", b"content", retries=2, local_copy=False)
