"""What uploads of killed workers leave on a remote is removed by the sweep: once an hour, only ours, never failing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.core.files.storage import storages

from queued_storage import leftovers, sweeping
from queued_storage.models import Heartbeat, State, StorageHealth, TransferRecord
from queued_storage.names import STAGING_DIRECTORY, generation_name
from queued_storage.remotes import s3
from queued_storage.remotes.ftp import FTPStorage
from queued_storage.remotes.registry import leftovers_of
from queued_storage.remotes.sftp import SFTPStorage
from tests.conftest import serve
from tests.factories import RecordFactory
from tests.fixtures import put
from tests.remotes.gate import Gate, gate_to
from tests.remotes.stalled import stalled_save
from tests.servers import ftp as ftp_servers, sftp as sftp_servers
from tests.servers.s3 import S3Server

pytestmark = pytest.mark.django_db(transaction=True)
NOW = timedelta(seconds=-5)
SOON = datetime(2026, 11, 22, 12, 0, 1, tzinfo=timezone.utc)


@pytest.fixture
def gate(s3_server: S3Server) -> Iterator[Gate]:
    """A gate in front of the S3 server."""
    host, _, port = s3_server.endpoint.removeprefix("http://").partition(":")
    with gate_to((host, int(port))) as gate:
        yield gate


@pytest.fixture
def pair(s3_server: S3Server, gate: Gate, media: Any, settings: Any) -> Any:
    """A queued storage on S3, with a prefix of its own; moto says of every upload that it is years old."""
    bucket = s3_server.create_bucket(f"b{uuid.uuid4().hex}")
    options = S3Server(gate.url).options(bucket, addressing_style="path", location="ours")
    configured = settings.STORAGES["default"]["OPTIONS"] | {"remote_options": options}
    configured.pop("remote")
    entry = {"BACKEND": "queued_storage.backends.QueuedS3Storage", "OPTIONS": configured}
    settings.STORAGES = settings.STORAGES | {"default": entry}
    return storages["default"]


def begin(pair: Any, *keys: str) -> None:
    """Begin uploads that nobody ends."""
    remote = pair.remote
    for key in keys:
        remote.connection.meta.client.create_multipart_upload(Bucket=remote.bucket_name, Key=key)


def left(pair: Any) -> list[str]:
    """Return the keys of the uploads that were begun and not ended, anywhere in the bucket."""
    client = pair.remote.connection.meta.client
    found = client.list_multipart_uploads(Bucket=pair.remote.bucket_name).get("Uploads", [])
    return sorted(upload["Key"] for upload in found)


def sweep() -> dict[str, int]:
    """Sweep, with nobody to do the work."""
    return sweeping.sweep(lambda records: None)


def an_hour_later() -> None:
    """Let the last sweep have been in another hour."""
    Heartbeat.objects.update(seen_at=datetime.now(timezone.utc) - timedelta(hours=1))


def test_only_ours_are_aborted(pair: Any) -> None:
    """Uploads of our names are aborted; those of others, and of a file that a worker holds, are not."""
    put(pair, "docs/a.bin")
    put(pair, "held.bin")
    TransferRecord.objects.filter(name="held.bin").update(
        state=State.TRANSFERRING, lease=uuid.uuid4(), worker="w", due_at=datetime.now(timezone.utc) + timedelta(hours=1)
    )
    RecordFactory(storage="another", name="theirs.bin")
    begin(
        pair, "ours/docs/a.bin", "ours/held.bin", "ours/theirs.bin", "ours/unknown.bin", "docs/a.bin", "oursx/held.bin"
    )
    assert sweep()["pruned"] == 1
    assert left(pair) == ["docs/a.bin", "ours/held.bin", "ours/theirs.bin", "ours/unknown.bin", "oursx/held.bin"]


def test_uploads_to_a_later_place_are_aborted(pair: Any) -> None:
    """A place that was made for a generation of our file is ours, unless a worker is at it; of an unknown name not."""
    put(pair, "docs/a.bin")
    put(pair, "held.bin")
    TransferRecord.objects.filter(name="held.bin").update(
        state=State.TRANSFERRING, lease=uuid.uuid4(), worker="w", due_at=datetime.now(timezone.utc) + timedelta(hours=1)
    )
    ours, held, theirs = (generation_name(name, 2) for name in ("docs/a.bin", "held.bin", "unknown.bin"))
    begin(pair, f"ours/{ours}", f"ours/{held}", f"ours/{theirs}")
    assert sweep()["pruned"] == 1
    assert left(pair) == sorted([f"ours/{held}", f"ours/{theirs}"])


def test_once_an_hour(pair: Any, gate: Gate) -> None:
    """The remote is asked by the first sweep of an hour and by no other one."""
    sweep()
    put(pair, "a.bin")
    begin(pair, "ours/a.bin")
    gate.requests.clear()
    # The clock may pass a full hour just here; then once is enough too.
    for _ in range(3):
        sweep()
    assert gate.counts() in ({}, {"GET": 1, "DELETE": 1})
    an_hour_later()
    sweep()
    assert left(pair) == []


def test_the_young_are_spared(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that was begun less than a day ago may be going on."""
    put(pair, "a.bin")
    begin(pair, "ours/a.bin")
    # moto's uploads are of the year 2010.
    monkeypatch.setattr(leftovers, "AGE", timedelta(days=365 * 100))
    sweep()
    assert left(pair) == ["ours/a.bin"]


def test_not_too_many_at_once(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sweep aborts a bounded number; the next ones do the rest."""
    monkeypatch.setattr(leftovers, "LIMIT", 2)
    monkeypatch.setattr(s3, "PAGE", 2)
    names = [f"{number}.bin" for number in range(5)]
    for name in names:
        put(pair, name)
    begin(pair, *(f"ours/{name}" for name in names))
    counts = []
    for _ in range(3):
        sweep()
        counts.append(len(left(pair)))
        an_hour_later()
    assert counts == [3, 1, 0]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_remote_in_trouble_does_not_fail_the_sweep(
    pair: Any, gate: Gate, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What the remote refuses is logged and tried again an hour later."""
    put(pair, "a.bin")
    begin(pair, "ours/a.bin")
    fault = gate.fail(method, 403, "AccessDenied", query="upload")
    assert "pruned" not in sweep()
    assert fault.hits == 1
    assert "Leftovers of uploads stay" in caplog.text
    an_hour_later()
    assert sweep()["pruned"] == 1


def test_a_remote_that_is_down_is_not_asked(pair: Any, gate: Gate) -> None:
    """A storage that waits for its remote, or is paused, is left alone."""
    now = datetime.now(timezone.utc)
    StorageHealth.objects.create(storage="default", failures=9, last_record=1, down_since=now, updated_at=now)
    begin(pair, "ours/a.bin")
    gate.requests.clear()
    sweep()
    assert gate.requests == []


def test_storages_without_leftovers_cost_nothing(media: Any, django_assert_num_queries: Any) -> None:
    """Where no storage leaves anything behind, the hour's look is no query."""
    with django_assert_num_queries(0):
        assert leftovers.remove(None, SOON) == 0


@pytest.mark.parametrize(
    ("before", "expected"), [(SOON - timedelta(seconds=2), 1), (SOON - timedelta(seconds=1), 0), (None, 1)]
)
def test_when_it_is_due(pair: Any, before: datetime | None, expected: int) -> None:
    """The first sweep of an hour does it, and the first one of all."""
    put(pair, "a.bin")
    begin(pair, "ours/a.bin")
    assert leftovers.remove(before, SOON) == expected


@pytest.mark.parametrize(("servers", "storage_class"), [(ftp_servers, FTPStorage), (sftp_servers, SFTPStorage)])
def test_staging_directories(servers: Any, storage_class: Any) -> None:
    """What a killed process left in a staging directory on FTP and SFTP goes the same way, bounded as well."""
    for server in serve(servers.server):
        storage = storage_class(**server.options())
        for number in range(3):
            with stalled_save(
                f"{storage_class.__module__}.{storage_class.__qualname__}", server.options(), f"{number}", 3 << 20
            ):
                pass
        remove = leftovers_of(storage)
        assert remove is not None
        assert remove(timedelta(days=1), 100, set) == 0
        assert [remove(NOW, 2, set), remove(NOW, 2, set)] == [2, 1]
        assert list((server.root / STAGING_DIRECTORY).iterdir()) == []
        if hasattr(storage, "close"):
            storage.close()
