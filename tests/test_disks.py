"""The disks of local storages: how full, and full when at the pace of the last day."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from html import unescape
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from queued_storage import disks, heartbeat, sweeping
from queued_storage.models import DiskSample, Heartbeat
from queued_storage.pairs import configured
from tests.factories import AttemptFactory, RecordFactory
from tests.fixtures import MakePair, Pair
from tests.staff import LIST, LogIn

pytest_plugins = ["tests.fixtures", "tests.staff"]
pytestmark = pytest.mark.django_db

GIGABYTE = 1024**3
HOUR = timedelta(hours=1)
SetFree = Callable[[int], None]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> SetFree:
    """Say how many gigabytes of a hundred are free, whatever disk is asked for."""

    def become(gigabytes: int) -> None:
        usage = SimpleNamespace(total=100 * GIGABYTE, used=(100 - gigabytes) * GIGABYTE, free=gigabytes * GIGABYTE)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    return become


def sampled(ago: timedelta, gigabytes: int, storage: str = "default", node: str = "") -> None:
    """Have the sweep have noted so much."""
    moment = timezone.now() - ago
    DiskSample.objects.create(storage=storage, node=node, taken_at=moment, free=gigabytes * GIGABYTE)


def swept(ago: timedelta) -> None:
    """Have the last sweep have been so long ago."""
    Heartbeat.objects.update_or_create(duty=heartbeat.SWEEP, defaults={"seen_at": timezone.now() - ago})


def sweep() -> None:
    """Sweep, and send nothing."""
    sweeping.sweep(lambda records: None)


def read(client: Client) -> str:
    """Return the text of the dashboard."""
    page = client.get(f"{LIST}dashboard/").content.decode()
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def test_the_first_sweep_of_an_hour_takes_samples(make_pair: MakePair, free: SetFree) -> None:
    """Once an hour the free bytes of each local disk are noted; what is older than a day is forgotten."""
    make_pair()
    make_pair("broken", local_options={"location": "/proc/nowhere"})
    sampled(timedelta(hours=25), 90)
    sampled(timedelta(hours=23), 80)
    free(70)
    swept(HOUR)
    sweep()
    assert list(DiskSample.objects.order_by("taken_at", "storage").values_list("storage", "node", "free")) == [
        ("default", "", 80 * GIGABYTE),
        ("broken", "", 70 * GIGABYTE),
        ("default", "", 70 * GIGABYTE),
    ]


def test_the_others_take_none(pair: Pair, free: SetFree, django_assert_num_queries: Any) -> None:
    """A sweep in the same hour as the one before it asks for nothing."""
    free(70)
    now = datetime(2026, 1, 1, 12, 59, 59)
    with django_assert_num_queries(0):
        disks.sample(now - timedelta(minutes=59), now)
    disks.sample(now, now + timedelta(seconds=1))
    disks.sample(None, now)
    assert DiskSample.objects.count() == 2


def test_no_disk_no_sample(make_pair: MakePair) -> None:
    """A folder that is not there, and a local storage without a disk, cost a sweep nothing."""
    make_pair(local_options={"location": "/proc/nowhere"})
    make_pair("memory", local="django.core.files.storage.InMemoryStorage", local_options={})
    disks.sample(None, timezone.now())
    assert DiskSample.objects.count() == 0
    assert disks.collect(configured()) == {}


@pytest.mark.parametrize(
    ("samples", "left"),
    [
        ([(10, 100), (1, 55)], timedelta(hours=10)),
        ([(24, 51)], timedelta(hours=24 * 50)),
        ([(23, 50), (1, 60)], None),
        ([(23, 40)], None),
        ([(0.5, 90)], None),
        ([], None),
    ],
    ids=["filling", "slowly", "as before", "emptying", "too early", "never sampled"],
)
def test_when_a_disk_is_full(
    pair: Pair, free: SetFree, samples: list[tuple[float, int]], left: timedelta | None
) -> None:
    """The pace is that from the oldest sample of the last day to now; other hosts have other disks."""
    sampled(timedelta(hours=20), 1000, node="elsewhere")
    sampled(timedelta(hours=20), 1000, storage="other")
    for hours, gigabytes in samples:
        sampled(timedelta(hours=hours), gigabytes)
    free(50)
    disk = disks.collect(configured())["default"]
    assert (disk.used, disk.total, disk.percent) == (50 * GIGABYTE, 100 * GIGABYTE, 50)
    if left is None:
        assert disk.full_in is None
    else:
        assert disk.full_in is not None
        assert abs(disk.full_in - left) < timedelta(minutes=1)


def test_a_year_is_too_far(pair: Pair, free: SetFree) -> None:
    """A disk that takes more than a year to fill is not said to fill."""
    DiskSample.objects.create(storage="default", taken_at=timezone.now() - 24 * HOUR, free=50 * GIGABYTE + 10**6)
    free(50)
    assert disks.collect(configured())["default"].full_in is None


def test_the_dashboard_tells(make_pair: MakePair, log_in: LogIn, free: SetFree) -> None:
    """Each storage shows when its disk is full, what it may owe, and its own workers."""
    make_pair(max_owed_files=3, max_owed_bytes="1K", when_full="refuse")
    make_pair("papers")
    for _ in range(3):
        RecordFactory(size=100)
    AttemptFactory(record=RecordFactory(storage="papers", transferred=True), worker="host:1")
    RecordFactory(storage="papers", transferring=True, worker="host:2")
    sampled(timedelta(hours=10), 100)
    free(50)
    html = read(log_in("view_transferrecord"))
    assert "The local disk of default is 50 % full. At the pace of the last day it will be full in 10 h 0 min." in html
    assert "The local disk of papers" not in html
    assert "default owes as much as it may. Saves are refused until workers have caught up." in html
    assert "300 bytes of at most 1.0 KB 3 of at most 3 files" in html
    assert "50 % of 100.0 GB full in 10 h 0 min" in html
    assert "Workers in the last hour 2" in html
    assert "by 2 workers" in html
