"""Metrics and health pages: numbers from the ledger, at the moment of the question."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import RequestFactory
from django.utils import timezone

from queued_storage import health, metrics, probes
from queued_storage.models import Heartbeat
from queued_storage.probes import Limits
from tests.factories import AttemptFactory, RecordFactory
from tests.fixtures import MakePair, Pair

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db

# The text format, as its specification has it.
SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="([^"\\\n]|\\["\\n])*"(,[a-z]+="([^"\\\n]|\\["\\n])*")*\})? [0-9.e+-]+')


@pytest.fixture
def story(pair: Pair) -> None:
    """A ledger with something of everything."""
    RecordFactory(age=timedelta(minutes=5), size=100)
    RecordFactory(retries=9, size=None)
    RecordFactory(transferring=True)
    RecordFactory(failed=True)
    RecordFactory(failed=True, error_kind="missing")
    RecordFactory(storage='p"\\\n', deleted=True)
    moved = RecordFactory(transferred=True)
    AttemptFactory(record=moved, bytes=1000)
    AttemptFactory(record=moved, bytes=10, outcome="retry", error_kind="passing")
    AttemptFactory(record=moved, finished_at=timezone.now() - timedelta(hours=2))
    health.pause("default")
    Heartbeat.objects.create(duty="sweep", seen_at=timezone.now() - timedelta(seconds=90))


def scrape(path: str = "/metrics") -> dict[str, str]:
    """Scrape and return the samples."""
    response = metrics.view(RequestFactory().get(path))
    assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = response.content.decode().splitlines()
    assert lines == [] or response.content.endswith(b"\n")
    samples = [line for line in lines if not line.startswith("#")]
    assert all(SAMPLE.fullmatch(line) for line in samples)
    return dict(line.rsplit(" ", 1) for line in samples)


def test_a_scrape(story: None) -> None:
    """Every number is that of the ledger, and every label is escaped."""
    found = scrape()
    oldest = float(found.pop('queued_storage_oldest_owed_seconds{storage="default"}'))
    assert oldest == pytest.approx(300, abs=30)
    assert float(found.pop("queued_storage_sweep_age_seconds")) == pytest.approx(90, abs=30)
    label = 'storage="default"'
    default = {key.replace(label, "").replace("queued_storage_", ""): found[key] for key in found if label in key}
    assert default == {
        'files{,state="delayed"}': "0",
        'files{,state="queued"}': "2",
        'files{,state="transferring"}': "1",
        'files{,state="failed"}': "2",
        'files{,state="deleted"}': "0",
        'bytes{,state="delayed"}': "0",
        'bytes{,state="queued"}': "100",
        'bytes{,state="transferring"}': "19",
        'bytes{,state="failed"}': "38",
        'bytes{,state="deleted"}': "0",
        "owed_files{}": "3",
        "owed_bytes{}": "119",
        "stalled_files{}": "1",
        'failed_files{,kind="missing"}': "1",
        'failed_files{,kind="refused"}': "1",
        "down{}": "0",
        "paused{}": "1",
        'attempts_last_hour{,outcome="retry",kind="passing"}': "1",
        'attempts_last_hour{,outcome="transferred",kind=""}': "1",
        "attempted_bytes_last_hour{}": "1010",
    }
    assert found['queued_storage_files{storage="p\\"\\\\\\n",state="deleted"}'] == "1"


def test_each_metric_is_explained(story: None) -> None:
    """Before its samples each metric has its help and its type, once."""
    lines = metrics.render().splitlines()
    names = [line.split()[2] for line in lines if line.startswith("# HELP")]
    assert names == [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(set(names)) == len(names) == 12
    assert {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")} == set(names)


def test_the_transferred_are_counted_on_request(story: None, django_assert_num_queries: Any) -> None:
    """They are left out otherwise: to count them reads the whole table."""
    with django_assert_num_queries(4):
        assert 'queued_storage_files{storage="default",state="transferred"}' not in scrape()
    with django_assert_num_queries(5):
        found = scrape("/metrics?transferred=1")
    assert found['queued_storage_files{storage="default",state="transferred"}'] == "1"


def test_an_empty_ledger(settings: Any) -> None:
    """Nothing to tell is no error."""
    settings.STORAGES = {"default": {"BACKEND": "django.core.files.storage.FileSystemStorage"}}
    assert scrape() == {}


def test_large_numbers_are_exact() -> None:
    """A petabyte is told to the byte, without an exponent."""
    metric = metrics.Metric("bytes", "x")
    metric.add(1234567890123456, storage="a")
    assert list(metric.lines())[-1] == 'queued_storage_bytes{storage="a"} 1234567890123456'


# Health


def page(**limits: Any) -> tuple[int, Any]:
    """Ask a health page."""
    response = probes.page(Limits(**limits))(RequestFactory().get("/health"))
    return response.status_code, json.loads(response.content)


def test_limits(make_pair: MakePair) -> None:
    """What may be owed is told where there is a limit, and whether it is reached."""
    make_pair()
    make_pair("files", max_owed_files=2)
    make_pair("bytes", max_owed_bytes="1K")
    for storage in ("files", "bytes"):
        for _ in range(2):
            RecordFactory(storage=storage, size=500)
    found = {name: value for name, value in scrape().items() if re.match("queued_storage_(max_owed|full)", name)}
    assert found == {
        'queued_storage_max_owed_files{storage="files"}': "2",
        'queued_storage_max_owed_bytes{storage="bytes"}': "1024",
        'queued_storage_full{storage="bytes"}': "0",
        'queued_storage_full{storage="files"}': "1",
    }


def test_a_health_page(story: None) -> None:
    """It answers 200 within its limits and 503 with the reasons beyond them."""
    assert page() == (200, {"ok": True, "exceeded": {}})
    wide = {"max_age": timedelta(hours=1), "max_owed": 3, "max_bytes": 119, "max_stalled": 1, "max_failed": 2}
    assert page(**wide, max_down=0, max_sweep_age=timedelta(minutes=5)) == (200, {"ok": True, "exceeded": {}})
    status, facts = page(max_owed=2, max_failed=0, max_sweep_age=timedelta(seconds=10))
    assert status == 503
    assert facts == {
        "ok": False,
        "exceeded": {
            "max_failed": "2 files have failed",
            "max_owed": "3 files are owed",
            "max_sweep_age": facts["exceeded"]["max_sweep_age"],
        },
    }
    assert re.fullmatch(r"the last sweep was (1 min \d+|\d+) s ago", facts["exceeded"]["max_sweep_age"])


def test_what_was_never_swept_is_not_well() -> None:
    """A limit for the sweep is exceeded where none ever ran."""
    assert page(max_sweep_age=timedelta(days=999)) == (
        503,
        {"ok": False, "exceeded": {"max_sweep_age": "the last sweep was never"}},
    )


def test_a_remote_that_is_down(pair: Pair) -> None:
    """It is counted."""
    moment = timezone.now()
    health.storages().create(storage="default", failures=3, last_record=1, down_since=moment, updated_at=moment)
    assert page(max_down=0) == (503, {"ok": False, "exceeded": {"max_down": "1 remotes are down"}})
    assert scrape()['queued_storage_down{storage="default"}'] == "1"


def test_a_health_page_does_not_count_the_transferred(story: None, django_assert_num_queries: Any) -> None:
    """It costs the same however many files were transferred."""
    with django_assert_num_queries(2):
        page(max_owed=10)
