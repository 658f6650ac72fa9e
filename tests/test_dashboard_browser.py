"""The dashboard in a real browser, under a strict Content-Security-Policy.

With ``QUEUED_STORAGE_SCREENSHOTS`` set to a folder, each view is saved there as a picture of few colours: those of the
documentation are ``alarm.png`` and ``dark.png`` of ``QUEUED_STORAGE_SCREENSHOTS=docs/images``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from PIL import Image

from queued_storage import heartbeat, ledger, sweeping
from queued_storage.models import DiskSample, Outcome, StorageHealth, TransferAttempt
from tests.app.models import Document
from tests.conftest import serve
from tests.factories import RecordFactory
from tests.fixtures import Pair, put, transfer
from tests.servers.browser import accessibility, browser, complaints
from tests.servers.processes import wait_until

pytest_plugins = ["tests.fixtures"]
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]
DASHBOARD = "/admin/queued_storage/transferrecord/dashboard/"
BOUND = 30


@pytest.fixture
def strict(settings: Any) -> None:
    """Send the strict policy with every page."""
    settings.MIDDLEWARE = ["tests.app.middleware.content_security_policy", *settings.MIDDLEWARE]


@pytest.fixture
def site(strict: None, live_server: Any) -> str:
    """A site with somebody who may do everything."""
    User.objects.create_superuser("admin", password="admin")
    return str(live_server.url)


def history(days: int = 30) -> None:
    """Write a month of attempts that looks like one: busy by day, quiet by night, two bad hours."""
    record = RecordFactory(transferred=True)
    now, attempts = timezone.now(), []
    for hours in range(days * 24):
        moment = now - timedelta(hours=hours, minutes=7)
        for number in range(2 + (moment.hour % 12) + (hours % 5)):
            bad = hours in (5, 6) and number % 2
            outcome = Outcome.RETRY if bad else Outcome.TRANSFERRED
            facts = {"record": record, "worker": f"host:{number % 3}", "outcome": outcome, "bytes": 10_000_000 * number}
            attempts.append(TransferAttempt(started_at=moment, finished_at=moment, **facts))
    TransferAttempt.objects.bulk_create(attempts)


def alarms() -> None:
    """Write what a bad day leaves behind."""
    RecordFactory.create_batch(3, failed=True)
    RecordFactory.create_batch(2, failed=True, error_kind="missing", error="no local file")
    RecordFactory.create_batch(4, retries=9, age=timedelta(hours=5))
    down = {"failures": 5, "last_record": 1, "error_kind": "passing", "updated_at": timezone.now()}
    StorageHealth.objects.create(
        storage="default", down_since=timezone.now() - timedelta(hours=2), error="ConnectTimeout: no answer", **down
    )
    free = shutil.disk_usage("/").free
    DiskSample.objects.create(storage="default", taken_at=timezone.now() - timedelta(hours=20), free=3 * free)


def log_in(driver: Any, site: str, path: str) -> None:
    """Log in through the admin's own page and open ``path``."""
    driver.get(f"{site}/admin/login/?next={path}")
    driver.find_element("name", "username").send_keys("admin")
    driver.find_element("name", "password").send_keys("admin")
    driver.find_element("css selector", "input[type=submit]").click()
    wait_until(lambda: driver.current_url == f"{site}{path}", bound=BOUND, what="the page after the login")


def picture(driver: Any, name: str) -> None:
    """Save the whole page where pictures are wanted."""
    folder = os.environ.get("QUEUED_STORAGE_SCREENSHOTS")
    if folder:
        size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        metrics = {"width": int(size["width"]), "height": int(size["height"]), "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        with Image.open(BytesIO(driver.get_screenshot_as_png())) as shot:
            shot.convert("RGB").quantize(64).save(Path(folder) / f"{name}.png", optimize=True)


@pytest.fixture
def driver() -> Iterator[Any]:
    """A browser."""
    yield from serve(browser)


VIEWS = {
    "light": ({}, (history,)),
    "dark": ({"dark": True}, (history, alarms)),
    "phone": ({"width": 390, "height": 844}, (history, alarms)),
    "alarm": ({}, (history, alarms)),
    "empty": ({}, ()),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view(pair: Pair, site: str, view: str) -> None:
    """Each view keeps to the policy, says nothing in the console, and has no serious barrier for anybody."""
    options, scenes = VIEWS[view]
    for scene in scenes:
        scene()
    heartbeat.begin(heartbeat.SWEEP)
    for driver in serve(lambda: browser(**options)):
        log_in(driver, site, DASHBOARD)
        assert complaints(driver) == []
        assert accessibility(driver) == []
        width = driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert width <= 0
        picture(driver, view)


def tile(driver: Any, name: str) -> str:
    """Return the number under a title."""
    # By one script: an element that was found may be replaced by the refresh before it is read.
    script = """
        for (const tile of document.querySelectorAll(".qs-tiles div"))
            if (tile.querySelector("dt").textContent === arguments[0]) return tile.querySelector("dd").innerText;
    """
    return str(driver.execute_script(script, name))


def test_failures_are_retried_from_the_dashboard(pair: Pair, site: str, driver: Any) -> None:
    """Somebody on call reads the numbers, retries all failures of one kind, and sees them arrive without a reload."""
    records = [put(pair, f"{number}.txt") for number in range(3)]
    for record in records:
        ledger.records().filter(pk=record.pk).update(
            state="failed", due_at=None, retries=1, error_kind="refused", error="EntityTooLarge: too large"
        )
    RecordFactory(failed=True, error_kind="missing")
    log_in(driver, site, DASHBOARD)
    assert (tile(driver, "Failed"), tile(driver, "Owed")) == ("4", "0 0\xa0bytes")
    driver.find_element("link text", "refused by the remote").click()
    wait_until(lambda: "error_kind" in driver.current_url, bound=BOUND, what="the list of the failures")
    driver.find_element("id", "action-toggle").click()
    driver.find_element("css selector", "select[name=action] option[value=retry_selected]").click()
    driver.find_element("css selector", "button[name=index]").click()
    question = wait_until(
        lambda: driver.find_elements("css selector", "input[type=submit].default"), bound=BOUND, what="the question"
    )
    assert "Queue these files afresh" in driver.find_element("id", "content").text
    assert accessibility(driver) == []
    question[0].click()
    success = wait_until(
        lambda: driver.find_elements("css selector", ".messagelist .success"), bound=BOUND, what="an answer"
    )
    assert success[0].text == "Retry selected transfers: 3 files were changed."
    driver.get(f"{site}{DASHBOARD}")
    assert tile(driver, "Owed").startswith("3 ")
    driver.execute_script("window.untouched = true")
    for record in records:
        sweeping.process(record.pk)
    driver.find_element("id", "qs-reload").click()
    wait_until(lambda: tile(driver, "Owed").startswith("0 "), bound=BOUND, what="the arrival on the page")
    assert tile(driver, "Failed") == "1"
    assert driver.execute_script("return window.untouched")
    assert complaints(driver) == []


def test_the_page_of_a_record(pair: Pair, site: str, driver: Any) -> None:
    """Somebody on call has both sides asked, by the keyboard alone, and reads what is wrong."""
    record = transfer(pair, "a.txt")
    pair.remote.delete("a.txt")
    Document.objects.create(title="Minutes", file="a.txt")
    log_in(driver, site, f"/admin/queued_storage/transferrecord/{record.pk}/change/")
    driver.find_element("link text", "Look now").send_keys("\n")
    found = wait_until(
        lambda: driver.find_elements("css selector", ".qs-found"), bound=BOUND, what="what lies on both sides"
    )
    assert [each.text for each in found] == ["there, as saved", "absent"]
    assert driver.find_element("link text", "Minutes").get_attribute("href").startswith(f"{site}/admin/testapp/")
    assert complaints(driver) == []
    assert accessibility(driver) == []
    picture(driver, "record")


def moment(driver: Any) -> str:
    """Return the moment that the page is of."""
    return str(driver.execute_script("return document.querySelector('.qs-refresh time').dateTime"))


def test_refreshing_rests(pair: Pair, site: str, driver: Any) -> None:
    """The page refreshes itself, rests when told to, keeps a table open, and says when the server is away."""
    RecordFactory()
    log_in(driver, site, DASHBOARD)
    before = moment(driver)
    driver.find_element("css selector", "#qs-table-hours summary").click()
    driver.find_element("id", "qs-reload").click()
    wait_until(lambda: moment(driver) != before, bound=BOUND, what="a fresh page")
    assert driver.find_element("id", "qs-table-hours").get_attribute("open") is not None
    button = driver.find_element("id", "qs-pause")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    driver.execute_script("window.fetch = () => Promise.reject(new Error('away'))")
    driver.find_element("id", "qs-reload").click()
    stale = wait_until(lambda: driver.find_elements("id", "qs-stale"), bound=BOUND, what="a word on the failure")
    assert stale[0].text == "Not refreshed: the server did not answer."
