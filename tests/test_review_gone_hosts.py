"""Deleted files whose host is gone: what stood in the record before the deletion keeps nobody from the remote copy."""

from __future__ import annotations

from datetime import timedelta

from queued_storage import removal, sweeping, tasks
from tests.fixtures import Outbox, Pair, committing, facts, make_due, put, record_of
from tests.test_node_queues import following as following, only
from tests.test_nodes import Host, host as host

pytest_plugins = ["tests.fixtures"]
pytestmark = committing


def test_an_eviction_was_tried_elsewhere(following: Pair, host: Host, outbox: Outbox, settings: object) -> None:
    """The remote copy goes after an hour, also where another host has tried to evict the local one before."""
    following.keep_local = timedelta(0)
    record = put(following, "a.txt")
    following.keep_local = timedelta(hours=1)
    sweeping.process(record.pk)
    host("two")
    following.keep_local = timedelta(0)
    removal.evict_due(record_of(following, "a.txt"))
    assert facts(record)["error_kind"] == "elsewhere"
    following.delete("a.txt")
    outbox.take("files-one")
    make_due(record, by=timedelta(hours=2))
    sweeping.sweep(tasks.send)
    only(outbox.take("files-two")).deliver()
    assert not following.remote.exists("a.txt")
