"""A database that is replicated late: what the ledger says is read where it is written."""

from __future__ import annotations

from typing import Any

from django.core.cache import cache
from django.core.files.base import ContentFile
from django.db import connection

from queued_storage import sweeping
from queued_storage.models import TransferRecord
from tests.fixtures import MakePair, committing

pytestmark = committing
pytest_plugins = ["tests.fixtures"]


class LateReplica:
    """Sends every read to a database that has nothing yet, and is not even there."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


def test_no_row_is_read_from_a_replica(make_pair: MakePair, settings: Any) -> None:
    """A file is saved, read, moved, evicted and deleted without one question to the replica."""
    pair = make_pair(keep_local=False)
    settings.DATABASE_ROUTERS = [LateReplica()]
    name = pair.save("a.txt", ContentFile(b"content"))
    for side in ("local", "remote"):
        assert pair.exists(name)
        with pair.open(name) as file:
            assert file.read() == b"content"
        assert pair.get_storage(name) is getattr(pair, side)
        sweeping.sweep(sweeping.process_all)
        sweeping.process_all(TransferRecord.objects.using("default"))
        cache.clear()
    pair.delete(name)
    sweeping.process_all(TransferRecord.objects.using("default"))
    assert not pair.exists(name)
    assert connection.alias == "default"
