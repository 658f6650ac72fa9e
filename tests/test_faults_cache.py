"""Other caches than that of the suite: none at all, one in files, one in the tables of the same database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.management import call_command
from django.db import connection, transaction

from tests.fixtures import MakePair, committing, read, transfer
from tests.test_faults_database import live

pytest_plugins = ["tests.fixtures"]
pytestmark = committing

TABLE = "cache_of_the_faults"


@pytest.fixture(params=["db.DatabaseCache", "dummy.DummyCache", "filebased.FileBasedCache"])
def kind(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> Iterator[str]:
    """Each kind of cache in turn."""
    in_database = request.param == "db.DatabaseCache"
    location = TABLE if in_database else str(tmp_path / "cache")
    settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{request.param}", "LOCATION": location}}
    if in_database:
        call_command("createcachetable", verbosity=0)
    yield request.param
    if in_database:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {TABLE}")


def test_a_life_with_another_cache(make_pair: MakePair, kind: str) -> None:
    """With any cache a file lives its whole life, and what a rollback takes back was never said."""
    pair = make_pair(keep_local=False)
    live(pair)
    transfer(pair, "b.txt")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        pair.delete("b.txt")
        pair.save("c.txt", ContentFile(b"c"))
        assert (pair.exists("b.txt"), pair.exists("c.txt")) == (False, True)
        raise ZeroDivisionError
    assert read(pair, "b.txt") == b"content"
    pair.delete("b.txt")
    assert not pair.exists("b.txt")
