"""Names are found by their beginning through an index, and exactly, on every database."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, strategies as st
from hypothesis.extra.django import TestCase

from queued_storage import dashboard, draining, ledger, selecting, summary, sweeping
from queued_storage.indexes import PartialIndex, PrefixIndex
from queued_storage.models import TransferRecord
from tests.factories import RecordFactory, make_records
from tests.fixtures import Pair

pytest_plugins = ["tests.fixtures"]

# What LIKE and collations take for something else, or for the same.
LETTERS = st.text(st.sampled_from("aAbB%_\\/\u00e4\u00c4\u0131I\U0001f4a9\U0010ffff "), min_size=1, max_size=6)


@pytest.mark.django_db(transaction=True)
def test_the_index_is_used() -> None:
    """The beginning of a name is found without reading the table."""
    make_records(5000)
    rows = selecting.select(TransferRecord.objects.order_by(), prefix="123")
    assert rows.count() == 11
    assert "queued_storage_name" in rows.explain()


LOOKS: dict[str, Callable[[], object]] = {
    "sweep": lambda: sweeping.sweep(lambda records: None),
    "run": lambda: list(draining.drain()),
    "other hosts": draining.elsewhere,
    "numbers": lambda: summary.summarize(transferred=False),
    "held": lambda: list(ledger.held(timedelta(days=1))),
    "stalled": lambda: list(ledger.stalled()),
    "failures": dashboard._failures,
}
WHOLE = {
    "sqlite": re.compile(r"SCAN queued_storage_transferrecord(?! USING)"),
    "postgresql": re.compile("Seq Scan on queued_storage_transferrecord"),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor not in WHOLE, reason="MariaDB tells less of its plans")
def test_what_is_transferred_is_not_read(pair: Pair) -> None:
    """However many files are transferred, nobody reads their rows to find those that are not."""
    make_records(20_000, transferred=True)
    for name, look in LOOKS.items():
        look()
        with CaptureQueriesContext(connection) as queries:
            look()
        for statement in (query["sql"] for query in queries if query["sql"].startswith(("SELECT", "UPDATE"))):
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN {'QUERY PLAN' if connection.vendor == 'sqlite' else ''} {statement}")
                plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
            assert not WHOLE[connection.vendor].search(plan), f"{name}: {statement}\n{plan}"


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
