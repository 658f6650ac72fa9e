"""Fixtures: real servers, fresh folders, and Celery processes that end with the test."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from django.core.cache import caches
from django.core.cache.backends.db import DatabaseCache
from django.db import connection

from tests.celeryapp import app
from tests.machines import report
from tests.servers import brokers, postgres, rabbitmq, redis, s3, workers
from tests.servers.processes import Unavailable
from tests.servers.roots import fresh

T = TypeVar("T")


def serve(start: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """Yield from a server; skip with the reason when it cannot be had, or fail where CI requires all of them."""
    running = start()
    try:
        server = running.__enter__()
    except Unavailable as reason:
        if os.environ.get("QUEUED_STORAGE_TESTS_REQUIRE") == "all":
            pytest.fail(f"required here: {reason}")
        pytest.skip(str(reason))
    try:
        yield server
    finally:
        running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.S3Server]:
    """A private S3 server over HTTP."""
    yield from serve(s3.server)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a private Redis."""
    yield from serve(redis.server)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a private PostgreSQL, whatever database the suite itself runs on."""
    yield from serve(postgres.server)


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """The URL of a RabbitMQ, with a virtual host of this run."""
    yield from serve(rabbitmq.virtual_host)


@pytest.fixture
def filesystem_broker() -> Iterator[brokers.Broker]:
    """A broker that keeps its messages in files; this process publishes to it."""
    with brokers.used_by(app, brokers.filesystem()) as broker:
        yield broker


@pytest.fixture(params=brokers.KINDS)
def broker(request: pytest.FixtureRequest) -> Iterator[brokers.Broker]:
    """Each broker in turn, with a queue of this test; this process publishes to it."""
    if request.param == "redis":
        chosen = brokers.Broker(request.getfixturevalue("redis_server"))
    elif request.param == "rabbitmq":
        chosen = brokers.Broker(request.getfixturevalue("rabbitmq_url"))
    else:
        chosen = brokers.filesystem()
    with brokers.used_by(app, chosen):
        yield chosen


@dataclass(frozen=True)
class Media:
    """The folders behind the default storage of one test."""

    local: Path
    remote: Path


@pytest.fixture
def media(settings: Any) -> Media:
    """Give the default storage fresh folders on both sides."""
    folders = Media(fresh("local"), fresh("remote"))
    storages = deepcopy(settings.STORAGES)
    options = storages["default"]["OPTIONS"]
    options["local_options"]["location"] = str(folders.local)
    options["remote_options"]["location"] = str(folders.remote)
    settings.STORAGES = storages
    settings.MEDIA_ROOT = str(folders.local)
    return folders


@pytest.fixture
def celery_processes(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[workers.Celery]:
    """Start real workers and beats on this test's database; a failed test shows what they printed."""
    celery = workers.Celery()
    request.node.stash[_CELERY] = celery
    try:
        yield celery
    finally:
        celery.end()


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    """Let no answer of one test reach the next one."""
    yield
    # Most tests may not touch the database, where that cache is cleared by rolling back.
    if not isinstance(caches["default"], DatabaseCache):
        caches["default"].clear()


_CELERY = pytest.StashKey[workers.Celery]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the output of Celery's processes to the report of a failed test."""
    report = yield
    if report.failed and _CELERY in item.stash:
        for process in item.stash[_CELERY].processes:
            report.sections.append((process.name, process.output()[-20_000:]))
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the shorter run for the second and third database."""
    parser.addoption("--database-only", action="store_true", help="leave out the tests that touch no database")
    parser.addoption("--brief", action="store_true", help="leave out what is long and the same on every version")


def pytest_configure(config: pytest.Config) -> None:
    """Name the machines, so that ``-m machines`` runs them alone and ``-m "not machines"`` the rest; take Ctrl-C."""
    # A shell starts what runs in the background without Ctrl-C, which some tests send to themselves.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "machines: kills, failing calls, model and seeded bugs; see QUEUED_STORAGE_DOSE")


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the machines by their file, before anybody chooses by marks."""
    if item.path.name.startswith(MACHINES):
        item.add_marker(pytest.mark.machines)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show the figures of the machines."""
    if report.lines:
        terminalreporter.section("machines")
        for line in report.lines:
            terminalreporter.write_line(line)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--database-only``, keep the tests that could differ from one database to another; see ``--brief`` too."""
    brief, database_only = config.getoption("--brief"), config.getoption("--database-only")
    left_out = (*(LONG if brief else ()), *(SAME if database_only else ()))
    kept = [
        item
        for item in items
        if not item.path.name.startswith(left_out)
        and not (brief and item.path.parent.name == "remotes")
        and (_touches_database(item) or not database_only)
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


# Long, and the same on every version of Python and Django, or with a run of its own for those.
LONG = (
    *("test_machine_", "test_workers", "test_faults_workers", "test_faults_rabbitmq", "test_local_faults"),
    *("test_contract_broker", "test_two_hosts"),
    *("test_dashboard_browser", "test_demo", "test_docs", "test_migrations_check", "test_package"),
)
# Some database is needed, whichever it is; the remote that is a database has its own tests, which go by their name.
SAME = (
    *("test_dashboard_browser", "test_docs", "test_fits_", "test_figures", "test_migrations_check"),
    *("test_queued_faults", "test_queued_path"),
)
# Those that take a dose.
MACHINES = tuple(f"test_machine_{name}" for name in ("calls", "crash", "model", "seeded"))


def _touches_database(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", ())
    return item.get_closest_marker("django_db") is not None or "db" in names or "transactional_db" in names


def pytest_report_header() -> str:
    """Name what the suite runs on: a green run says which one it was."""
    import celery
    import django

    return f"django {django.__version__}, celery {celery.__version__}, database {connection.vendor}"
