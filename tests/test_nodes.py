"""Hosts that do not share a disk: what lies on one of them is not for another to remove."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile

from queued_storage import sweeping
from queued_storage.exceptions import TemporarilyUnavailableError
from queued_storage.models import TransferRecord
from tests.conftest import Media
from tests.fixtures import MakePair, committing, make_due, read

pytest_plugins = ["tests.fixtures"]
Host = Callable[[str], None]


@pytest.fixture
def host(media: Media, settings: Any) -> Host:
    """Go on as another host, whose disk is another folder."""
    disks = media.local.parent

    def become(name: str) -> None:
        before = settings.QUEUED_STORAGE_NODE if hasattr(settings, "QUEUED_STORAGE_NODE") else name
        media.local.rename(disks / f"{media.local.name}-{before}")
        there = disks / f"{media.local.name}-{name}"
        there.mkdir(exist_ok=True)
        there.rename(media.local)
        settings.QUEUED_STORAGE_NODE = name

    become("one")
    return become


def facts(record: TransferRecord) -> tuple[Any, ...]:
    """Return what the ledger says of the copies."""
    record.refresh_from_db()
    return record.state, record.local_copy, record.error_kind


@committing
def test_a_file_of_another_host(make_pair: MakePair, host: Host) -> None:
    """Another host can neither read nor transfer a file that is not there; its own one transfers it."""
    pair = make_pair()
    name = pair.save("a.txt", ContentFile(b"content"))
    record = TransferRecord.objects.get()
    host("two")
    with pytest.raises(TemporarilyUnavailableError):
        pair.open(name)
    assert sweeping.process(record.pk) == "retry"
    assert facts(record) == ("queued", True, "elsewhere")
    host("one")
    assert sweeping.process(record.pk) == "transferred"
    host("two")
    assert read(pair, name) == b"content"


@committing
def test_a_deleted_file_of_another_host(make_pair: MakePair, host: Host, media: Media) -> None:
    """Another host leaves the removal of the local copy to the one that has it."""
    pair = make_pair()
    name = pair.save("a.txt", ContentFile(b"content"))
    record = TransferRecord.objects.get()
    host("two")
    pair.delete(name)
    sweeping.process(record.pk)
    assert facts(record) == ("deleted", True, "elsewhere")
    host("one")
    assert (media.local / "a.txt").exists()
    sweeping.process(record.pk)
    assert facts(record) == ("deleted", False, "")
    assert not (media.local / "a.txt").exists()


@committing
def test_an_eviction_on_another_host(make_pair: MakePair, host: Host, media: Media) -> None:
    """Another host does not call a local copy gone that it cannot see."""
    pair = make_pair(keep_local=timedelta(seconds=0.001))
    pair.save("a.txt", ContentFile(b"content"))
    record = TransferRecord.objects.get()
    assert sweeping.process(record.pk) == "transferred"
    make_due(record)
    host("two")
    sweeping.process(record.pk)
    assert facts(record) == ("transferred", True, "elsewhere")
    host("one")
    sweeping.process(record.pk)
    assert facts(record)[:2] == ("transferred", False)
    assert not (media.local / "a.txt").exists()
