"""M7: several processes, real servers behind faulty wires, kills and stops; nothing may be lost or served wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

import pytest
from django.db import connection

from tests.chaos.controller import Chaos
from tests.chaos.report import Report, seeded
from tests.chaos.subjects import SETTINGS
from tests.servers.databases import url_of
from tests.servers.s3 import S3Server

# A small dose for every run; CI and long runs ask for more.
SECONDS = float(os.environ.get("QUEUED_STORAGE_CHAOS_SECONDS", "40"))
# Two pairs of broker and database, one for each database that the suite may run on.
BROKERS = {"postgresql": "redis", "mysql": "rabbitmq"}
# Long enough for every fault to have had its turn twice.
LONG = 170
# Seconds in which nothing happens but kills of a worker.
RECOVERY = 60.0
# What a busy machine may take beyond the lease until a file is back: sweep, messages before it, upload.
PATIENCE = 45


pytestmark = [
    pytest.mark.timeout(2 * SECONDS + 900),
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no connection that could be cut"),
]


@pytest.fixture
def broken(request: Any, redis_server: str, s3_server: S3Server, capsys: Any) -> Callable[..., Report]:
    """Run the chaos on this database and its broker, print the report, and check that nothing was lost."""

    def run(seconds: float, only: Collection[str] | None = None) -> Report:
        kind = BROKERS[connection.vendor]
        address = redis_server if kind == "redis" else request.getfixturevalue("rabbitmq_url")
        cache = redis_server.replace("/0", "/1")
        with seeded(os.environ.get("QUEUED_STORAGE_SEED")) as seed:
            report = Chaos(seed, url_of(connection.settings_dict), address, cache, s3_server).run(seconds, only)
            with capsys.disabled():
                print(f"\nchaos on {connection.vendor} and {kind}\n{report.lines()}")  # noqa: T201
            assert report.violations == []
            assert (report.lost, report.wrong, report.unreadable, report.stranded) == (0, 0, 0, 0)
            assert report.acknowledged > 20
            assert report.reads["ok"] > 50
        return report

    return run


def test_chaos(broken: Callable[..., Report]) -> None:
    """Whatever dies, every acknowledged file is readable or temporarily not, and ends on the remote, once."""
    _took_effect(broken(SECONDS))


def test_recovery(broken: Callable[..., Report]) -> None:
    """What a worker killed with -9 had in its hand arrives soon after its lease has ended."""
    report = broken(min(SECONDS, RECOVERY), only=["kill worker1"])
    assert report.recoveries, "no worker was killed with a file in hand"
    assert max(report.recoveries) < SETTINGS["QUEUED_STORAGE_LEASE"] + PATIENCE


def _took_effect(report: Report) -> None:
    """A fault that nobody met proves nothing."""
    wires = {fault for fault in report.faults if fault.split()[0] in ("s3", "cache", "broker", "database")}
    met = {fault for fault in wires if report.hits.get(fault)}
    assert met, "no fault took effect"
    if report.seconds >= LONG:
        assert met == wires, f"nobody met {wires - met}"
        assert report.recoveries, "no worker was killed with a file in hand"
