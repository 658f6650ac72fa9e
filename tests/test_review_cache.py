"""A file goes to the remote again while the cache is away: its former place is not believed for long."""

from __future__ import annotations

from typing import Any

import pytest

from queued_storage import ledger, locations
from tests.fixtures import Pair, committing, read, transfer
from tests.test_commands import manage, states
from tests.test_verify import bucket as bucket, kept as kept

pytest_plugins = ["tests.fixtures"]


@committing
def test_the_cache_is_away_when_a_file_is_queued_again(kept: Pair, bucket: Any) -> None:
    """What the verification could not tell the cache, the transfer tells: nobody reads the altered object after it."""
    transfer(kept, "a.txt")
    assert kept.using_remote("a.txt")
    bucket.objects["a.txt"] = b"altered"
    locations.breaker.failed()
    assert manage("verify").code == 1
    locations.breaker.succeeded()
    assert states() == {"a.txt": "queued"}
    assert manage("run").code == 0
    assert read(kept, "a.txt") == b"content"


@committing
def test_the_attempt_itself_fails(kept: Pair, bucket: Any) -> None:
    """Before its first attempt is over, a file that goes again is read from the local side."""
    transfer(kept, "a.txt")
    bucket.objects["a.txt"] = b"altered"
    locations.breaker.failed()
    manage("verify")
    locations.breaker.succeeded()
    with bucket.fail("save", ConnectionError("away")):
        manage("run")
    assert states() == {"a.txt": "queued"}
    assert read(kept, "a.txt") == b"content"


@committing
def test_the_cache_comes_back_during_the_attempt(kept: Pair, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the cache is away: what it forgets last is the former place."""
    transfer(kept, "a.txt")
    bucket.objects["a.txt"] = b"altered"
    locations.breaker.failed()
    manage("verify")
    complete = ledger.complete

    def back(*args: Any) -> bool:
        locations.breaker.succeeded()
        return complete(*args)

    monkeypatch.setattr(ledger, "complete", back)
    manage("run")
    assert states() == {"a.txt": "transferred"}
    assert read(kept, "a.txt") == b"content"
