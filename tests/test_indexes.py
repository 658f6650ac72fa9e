"""Names are found by their beginning through an index, and exactly, on every database."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.django import TestCase

from queued_storage import selecting
from queued_storage.indexes import PartialIndex, PrefixIndex
from queued_storage.models import TransferRecord
from tests.factories import RecordFactory, make_records

# What LIKE and collations take for something else, or for the same.
LETTERS = st.text(st.sampled_from("aAbB%_\\/\u00e4\u00c4\u0131I\U0001f4a9\U0010ffff "), min_size=1, max_size=6)


@pytest.mark.django_db(transaction=True)
def test_the_index_is_used() -> None:
    """The beginning of a name is found without reading the table."""
    make_records(5000)
    rows = selecting.select(TransferRecord.objects.order_by(), prefix="123")
    assert rows.count() == 11
    assert "queued_storage_name" in rows.explain()


class Prefixes(TestCase):
    """Names and beginnings of all sorts."""

    @given(names=st.lists(LETTERS, unique=True, max_size=6), prefix=LETTERS)
    def test_every_beginning_and_no_other(self, names: list[str], prefix: str) -> None:
        """The names found are those for which Python says so."""
        for name in names:
            RecordFactory(name=name)
        found = selecting.select(TransferRecord.objects.all(), prefix=prefix)
        assert set(found.values_list("name", flat=True)) == {name for name in names if name.startswith(prefix)}


@pytest.mark.parametrize("index", TransferRecord._meta.indexes, ids=lambda index: index.name)
def test_an_index_is_described_whole(index: PartialIndex | PrefixIndex) -> None:
    """What a migration makes of an index is that index again."""
    path, args, named = index.deconstruct()
    assert path == f"queued_storage.indexes.{type(index).__name__}"
    assert type(index)(*args, **named) == index
