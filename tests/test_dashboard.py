"""The dashboard: who sees it, what it counts, and what it costs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.cache import caches
from django.core.signals import request_finished
from django.db import close_old_connections, connection
from django.db.models import DateTimeField, Value
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from queued_storage import access, charts, dashboard, figures, health, heartbeat
from queued_storage.models import Heartbeat, Outcome, TransferRecord
from tests.factories import BODY, AttemptFactory, RecordFactory
from tests.fixtures import MakePair

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db
PAGE = "/admin/queued_storage/transferrecord/dashboard/"


@pytest.fixture
def viewer() -> Client:
    """A member of staff who may view records."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_transferrecord"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    """Forget what the page of another test has counted."""
    figures.forget()
    yield
    figures.forget()


def test_who_sees_it(viewer: Client) -> None:
    """It takes the permission to view records; nobody changes anything there."""
    assert viewer.get(PAGE).status_code == 200
    assert "no-store" in viewer.get(PAGE)["Cache-Control"]
    assert Client().get(PAGE)["Location"] == f"/admin/login/?next={PAGE}"
    nobody = Client()
    nobody.force_login(User.objects.create_user("nobody", is_staff=True))
    assert nobody.get(PAGE).status_code == 403
    assert PAGE.rpartition("/dashboard/")[0] in viewer.get("/admin/").content.decode()
    assert f'href="{PAGE}"' in viewer.get("/admin/queued_storage/transferrecord/").content.decode()


def test_the_numbers(make_pair: MakePair) -> None:
    """States, what is owed, failures by kind, workers, and the state of each storage."""
    make_pair()
    RecordFactory.create_batch(2, age=timedelta(hours=3))
    RecordFactory(transferring=True, worker="host:7")
    RecordFactory(retries=9)
    RecordFactory(delayed=True)
    RecordFactory.create_batch(3, failed=True)
    RecordFactory(failed=True, error_kind="missing")
    RecordFactory(storage="gone", failed=True)
    AttemptFactory(worker="host:3")
    AttemptFactory(worker="host:4", finished_at=timezone.now() - timedelta(hours=2))
    found = dashboard.collect()
    assert {state: amount.files for state, amount in found.total.states.items()} == {
        "delayed": 1,
        "queued": 3,
        "transferring": 1,
        "transferred": 2,
        "failed": 5,
        "deleted": 0,
    }
    assert (found.total.owed.files, found.total.owed.bytes, found.total.stalled) == (4, 4 * len(BODY), 1)
    assert found.oldest_owed.startswith("3 h")
    assert [(each.kind, each.files) for each in found.failures] == [("refused", 4), ("missing", 1)]
    assert found.workers == ["host:3", "host:7"]
    assert [(each.summary.storage, each.status) for each in found.storages] == [("default", "up"), ("gone", "up")]
    assert found.storages[0].last_success is not None
    assert found.storages[0].disk is not None
    assert found.storages[1].disk is None


def test_the_history(settings: Any) -> None:
    """Attempts fall into the hours and the days of the site's time zone, one that is not of whole hours too."""
    settings.TIME_ZONE = "Asia/Kathmandu"
    now = timezone.now().replace(minute=20)
    for age, outcome in (
        (timedelta(0), Outcome.TRANSFERRED),
        (timedelta(0), Outcome.RETRY),
        (timedelta(hours=5), Outcome.TRANSFERRED),
        (timedelta(days=3), Outcome.LOST),
        (timedelta(days=3), Outcome.STOPPED),
        (timedelta(days=40), Outcome.TRANSFERRED),
    ):
        AttemptFactory(finished_at=now - age, outcome=outcome)
    found = dashboard.collect()
    hours = {index: bucket for index, bucket in enumerate(found.hours) if bucket.transferred or bucket.failed}
    assert {index: (each.transferred, each.failed, each.bytes) for index, each in hours.items()} == {
        18: (1, 0, len(BODY)),
        23: (1, 1, 2 * len(BODY)),
    }
    days = {each.start.date(): (each.transferred, each.failed) for each in found.days}
    assert sum(good for good, _ in days.values()) == 2
    # An hour of UTC belongs to the day in which it begins.
    assert days[timezone.localtime(now.replace(minute=0) - timedelta(days=3)).date()] == (0, 1)
    assert len(found.days) == 30


def test_when_it_is_drained() -> None:
    """What is owed divided by what the last hours did; unknown while nothing moves."""
    RecordFactory.create_batch(10)
    assert dashboard.collect().drained == "-"
    for _ in range(5):
        AttemptFactory()
    found = dashboard.collect()
    assert found.drained_in is not None
    elapsed = found.now - found.hours[-2].start
    assert found.drained_in == elapsed * 2


def test_the_alarms(viewer: Client, make_pair: MakePair) -> None:
    """Each thing that needs somebody is said in words."""
    make_pair()
    page = viewer.get(PAGE).content.decode()
    assert "The sweep is not running." in page
    assert "No files yet." in page
    heartbeat.begin(heartbeat.SWEEP)
    assert "The sweep is not running." not in viewer.get(PAGE).content.decode()
    Heartbeat.objects.update(seen_at=timezone.now() - timedelta(minutes=9))
    health.pause("default")
    RecordFactory(failed=True)
    RecordFactory(retries=9)
    page = viewer.get(PAGE).content.decode()
    assert "It was last seen 9\xa0minutes ago." in page
    assert "default is paused." in page
    assert "<strong>1 file has failed</strong> and waits for a person" in page
    assert "<strong>1 file has stalled</strong>" in page
    assert "No files yet." not in page


def test_hostile_texts_stay_texts(viewer: Client) -> None:
    """Whatever stands in the ledger is shown, not run."""
    hostile = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
    RecordFactory(storage=hostile, failed=True, error_kind="refused")
    page = viewer.get(PAGE).content.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "<img" not in page


def test_the_queries(viewer: Client) -> None:
    """At most fifteen, whatever is there."""
    for storage in range(5):
        RecordFactory(storage=f"s{storage}", failed=True)
        AttemptFactory()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        viewer.get(PAGE)
    assert len(queries) <= 15, "\n".join(query["sql"] for query in queries)


@pytest.mark.parametrize(
    ("counts", "heights"),
    [
        ([], []),
        ([(0, 0)], [(0, 0)]),
        ([(10, 0), (5, 5)], [(120, 0), (60, 60)]),
        ([(10_000, 0), (1, 1)], [(120, 0), (2, 2)]),
        ([(10_000, 1)], [(118, 2)]),
    ],
)
def test_bars(counts: list[tuple[int, int]], heights: list[tuple[int, int]]) -> None:
    """The highest bar fills the picture, every other one is in proportion, and nothing that happened is unseen."""
    buckets = [dashboard.Bucket(timezone.now(), good, bad) for good, bad in counts]
    chart = charts.draw(buckets)
    assert [(bar.good_height, bar.bad_height) for bar in chart.bars] == heights
    for bar in chart.bars:
        assert bar.good_y + bar.good_height == chart.height
        assert bar.bad_y >= 0


# Tables that take long to read


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let three rows count as many."""
    monkeypatch.setattr(figures, "SMALL", 2)


def hour(found: dashboard.Dashboard, ago: int) -> tuple[int, int, int]:
    """Return what happened in an hour."""
    bucket = found.hours[-1 - ago]
    return bucket.transferred, bucket.failed, bucket.bytes


def test_a_large_table_is_read_after_the_page_was_sent(viewer: Client, make_pair: MakePair, large: None) -> None:
    """The first page reads no whole table and says so; the next one has it all, and as of when."""
    make_pair()
    for _ in range(4):
        AttemptFactory(finished_at=timezone.now() - timedelta(days=3))
    request = RequestFactory().get(PAGE)
    request.user = User.objects.get()
    with CaptureQueriesContext(connection) as queries:
        response = admin.site.get_model_admin(TransferRecord).dashboard_view(request).render()
    whole = [query["sql"] for query in queries if "SUM" in query["sql"] and "= 'transferred' GROUP BY" in query["sql"]]
    assert whole == []
    first = response.content.decode()
    assert first.count("being counted") == 1
    assert "Being counted; it is here when the page is refreshed." in first
    assert "No files yet." not in first
    request_finished.disconnect(close_old_connections)
    response.close()
    request_finished.connect(close_old_connections)
    second = viewer.get(PAGE).content.decode()
    assert "eing counted" not in second
    assert re.search(r"<td class=\"qs-number\">4</td>", second)
    assert "The transferred files were counted 0\xa0minutes ago." in second
    found = dashboard.collect()
    assert sum(each.transferred for each in found.days) == 4


def test_one_of_many_readers_counts(large: None) -> None:
    """What somebody has begun to count is not begun again by everybody who looks meanwhile."""
    AttemptFactory.create_batch(4)
    assert [len(dashboard.collect().figures.owed) for _ in range(3)] == [2, 0, 0]


def test_numbers_grow_old(large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What took a second to count is good for a hundred; then the next page shows it still, and counts afterwards."""
    AttemptFactory.create_batch(4)
    count_all()
    AttemptFactory()
    found = dashboard.collect()
    assert found.total.states["transferred"].files == 4
    monkeypatch.setattr(figures, "REMEMBERED", 0)
    found = dashboard.collect()
    assert (found.total.states["transferred"].files, len(found.figures.owed)) == (4, 1)
    for count in found.figures.owed:
        count()
    assert dashboard.collect().total.states["transferred"].files == 5


def count_all() -> None:
    """Do what a first page leaves to be done."""
    for count in dashboard.collect().figures.owed:
        count()


def test_the_last_hours_are_always_fresh(large: None) -> None:
    """Of the remembered history only hours that are over come from memory, each attempt counted once."""
    now = timezone.now()
    for ago in (0, 1, 3, 5, 30):
        AttemptFactory(finished_at=now - timedelta(hours=ago))
    # Within what clocks may differ by, before the hours that may still change.
    AttemptFactory(finished_at=now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1, seconds=9))
    count_all()
    before = dashboard.collect()
    assert [hour(before, ago)[0] for ago in (0, 1, 2, 3, 5)] == [1, 1, 1, 1, 1]
    assert sum(each.transferred for each in before.days) == 6
    AttemptFactory(finished_at=now)
    AttemptFactory(finished_at=now, outcome=Outcome.RETRY)
    found = dashboard.collect()
    assert hour(found, 0) == (2, 1, 3 * len(BODY))
    assert sum(each.transferred for each in found.days) == 7
    assert found.figures.is_whole


def test_the_history_is_carried_on(large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some hours those that are over by then are added to what is remembered; nothing is counted twice."""
    now = timezone.now()
    later = now + timedelta(hours=6)
    for ago in (0, 1, 2, 5, 24 * 28):
        AttemptFactory(finished_at=now - timedelta(hours=ago))
    count_all()
    AttemptFactory(finished_at=now + timedelta(hours=4))
    monkeypatch.setattr(timezone, "now", lambda: later)
    monkeypatch.setattr(access, "DatabaseNow", lambda: Value(later, DateTimeField()))
    found = dashboard.collect()
    assert [hour(found, ago)[0] for ago in (2, 6, 7, 8, 11)] == [1, 1, 1, 1, 1]
    assert sum(each.transferred for each in found.days) == 6
    with CaptureQueriesContext(connection) as queries:
        for count in found.figures.owed:
            count()
    assert len(queries) <= 2
    found = dashboard.collect()
    assert sum(each.transferred for each in found.days) == 6
    assert found.figures.owed == []


@pytest.mark.parametrize("remembered", ["nonsense", 7, {"rows": []}, None])
def test_nonsense_in_the_cache_is_not_believed(large: None, remembered: Any) -> None:
    """What cannot be a figure of this version is counted anew."""
    AttemptFactory.create_batch(4)
    for name in ("transferred", "history"):
        caches["default"].set(f"queued_storage_dashboard_{name}", remembered)
    assert dashboard.collect().is_counting
    caches["default"].clear()
    count_all()
    assert dashboard.collect().total.states["transferred"].files == 4


def test_without_a_cache_the_process_remembers(large: None, settings: Any) -> None:
    """A project without a cache has the same page."""
    settings.QUEUED_STORAGE_CACHE = None
    AttemptFactory.create_batch(4)
    assert dashboard.collect().is_counting
    count_all()
    found = dashboard.collect()
    assert (found.is_counting, found.figures.is_whole, found.total.states["transferred"].files) == (False, True, 4)


def test_a_count_that_fails_fails_quietly(large: None, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """The page has been sent by then: the log tells, and a later page counts again."""
    AttemptFactory.create_batch(4)
    owed = dashboard.collect().figures.owed
    monkeypatch.setattr(connection, "cursor", lambda: 1 // 0)
    for count in owed:
        count()
    found = [record.error for record in caplog.records if record.message == "The dashboard could not count"]
    assert found == ["ZeroDivisionError"] * 2


def test_the_last_success_is_fresh(large: None, make_pair: MakePair) -> None:
    """Whatever was counted when, the latest attempts say when a storage had its last success."""
    make_pair()
    AttemptFactory.create_batch(4, finished_at=timezone.now() - timedelta(hours=5))
    count_all()
    last = AttemptFactory(finished_at=timezone.now() - timedelta(minutes=2))
    AttemptFactory(outcome=Outcome.RETRY)
    assert dashboard.collect().storages[0].last_success == last.finished_at
