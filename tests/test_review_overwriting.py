"""Where names are overwritten no two records share a local place, however slow one save was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.files.base import ContentFile

from queued_storage import ledger, sweeping
from tests.fixtures import MakePair, Pair, put, read, record_of

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


class SlowFile(ContentFile):  # type: ignore[type-arg]
    """A file during whose save another one is saved, transferred and evicted."""

    pair: Pair

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Yield all bytes, after the other save."""
        sweeping.process(put(self.pair, "a.txt").pk)
        yield from super().chunks(chunk_size)


@pytest.mark.parametrize("noted", [True, False], ids=["", "killed"])
def test_a_place_that_another_save_has_left(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch, noted: bool) -> None:
    """The removal of the one, whose eviction was cut short, takes nothing from the other."""
    pair = make_pair(overwrite=True, keep_local=False)
    slow = SlowFile(b"content")
    slow.pair = pair
    if not noted:
        monkeypatch.setattr(ledger, "evicted", lambda pk: False)
    pair.save("a.txt", slow)
    monkeypatch.undo()
    first, second = ledger.records().order_by("pk")
    assert first.local_name != second.local_name
    assert first.remote_name != second.remote_name
    sweeping.process(first.pk)
    assert read(pair, "a.txt") == b"content"
    assert sweeping.process(second.pk) == "transferred"
    assert record_of(pair, "a.txt").pk == second.pk
