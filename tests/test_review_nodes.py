"""Hosts without a shared disk: what lies there by chance under the name of another host's file is never its bytes."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.test import Client

from queued_storage import ledger, restoring, sweeping
from queued_storage.exceptions import TemporarilyUnavailableError
from queued_storage.models import TransferRecord
from tests.conftest import Media
from tests.fixtures import MakePair, committing, read
from tests.test_nodes import Host, host as host

pytest_plugins = ["tests.fixtures"]


@committing
def test_a_file_of_the_same_name_on_this_host(make_pair: MakePair, host: Host, media: Media) -> None:
    """A save that was rolled back has left its bytes here; the file of the other host is not read from them."""
    pair: Any = make_pair()
    name = pair.save("a.txt", ContentFile(b"content"))
    host("two")
    (media.local / name).write_bytes(b"another")
    with pytest.raises(TemporarilyUnavailableError):
        read(pair, name)
    host("one")
    assert read(pair, name) == b"content"
    assert sweeping.process(TransferRecord.objects.get().pk) == "transferred"
    host("two")
    assert read(pair, name) == b"content"


@pytest.mark.django_db
@pytest.mark.parametrize("sendfile", ["", "X-Sendfile"])
def test_a_file_of_the_same_name_is_not_given_out(
    make_pair: MakePair, host: Host, media: Media, client: Client, settings: Any, sendfile: str
) -> None:
    """Neither does the view give it out, nor has it the web server do so."""
    settings.ROOT_URLCONF, settings.QUEUED_STORAGE_SENDFILE = "tests.app.urls_with_files", sendfile
    pair = make_pair(remote="tests.storages.SigningStorage")
    name = pair.save("a.txt", ContentFile(b"content"))
    host("two")
    (media.local / name).write_bytes(b"another")
    response = client.get(pair.url(name))
    assert (response.status_code, response.headers.get("X-Sendfile")) == (503, None)


@committing
def test_a_host_under_a_new_name(make_pair: MakePair, settings: Any) -> None:
    """The right bytes are read wherever they lie: the host may have been renamed."""
    settings.QUEUED_STORAGE_NODE = "one"
    pair = make_pair()
    name = pair.save("a.txt", ContentFile(b"content"))
    settings.QUEUED_STORAGE_NODE = "two"
    assert read(pair, name) == b"content"


@committing
def test_two_hosts_restore_a_file_at_once(make_pair: MakePair, host: Host, media: Media, settings: Any) -> None:
    """The copy of the slower one, which the ledger knows nothing of, does not stay on its disk."""
    pair = make_pair(keep_local=False)
    name = pair.save("a.txt", ContentFile(b"content"))
    record = TransferRecord.objects.get()
    sweeping.process(record.pk)
    host("two")

    def faster(name: str) -> None:
        settings.QUEUED_STORAGE_NODE = "one"
        assert ledger.restored(record.pk)
        settings.QUEUED_STORAGE_NODE = "two"

    pair.remote.faults["open"] = faster
    assert [item.outcome for item in restoring.restore(ledger.records())] == [restoring.PRESENT]
    assert not (media.local / name).exists()
    record.refresh_from_db()
    assert (record.local_copy, record.node) == (True, "one")
