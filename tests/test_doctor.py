"""``queued_storage_doctor``: each part that is broken is named, with what to do; a sound set-up is called sound."""

from __future__ import annotations

import json
import os
import re
import signal
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest
from celery.app.control import Inspect
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from queued_storage import doctor as examining, health, ledger, sweeping, tasks
from queued_storage.models import Heartbeat
from tests.celeryapp import app
from tests.conftest import Media
from tests.factories import RecordFactory
from tests.fixtures import MakePair, Pair, configure
from tests.servers.brokers import Broker, changed
from tests.servers.roots import fresh
from tests.servers.workers import Celery
from tests.test_commands import Ran, manage

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


def verdicts(ran: Ran) -> dict[str, tuple[str, str]]:
    """Return verdict and text of each finding by the part."""
    return {found["check"]: (found["verdict"], found["text"]) for found in ran.json["findings"]}


def doctor(*arguments: str) -> Ran:
    """Run the doctor and return JSON."""
    return manage("doctor", "--json", *arguments)


@pytest.mark.django_db(transaction=True)
def test_all_is_well(filesystem_broker: Broker, media: Media, celery_processes: Celery, settings: Any) -> None:
    """With a worker, a shared folder, a shared cache and a sweep every part is good, and nothing is left behind."""
    cache = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(fresh("cache"))}
    settings.CACHES = {"default": cache}
    celery_processes.worker(filesystem_broker)
    sweeping.sweep(tasks.send)
    ran = manage("doctor")
    assert ran.code == 0, ran.out
    assert ran.err == "All is well.\n"
    text = re.sub(r"celery@\S+", "celery@host", ran.out)
    text = re.sub(r"in [0-9.]+ s by \S+", "in 0 s by host:1", text)
    text = re.sub(r"it ran \d+ s ago", "it ran 0 s ago", text)
    # kombu says that there is no password, or says nothing.
    text = text.replace("://:**@", "://")
    assert text == (
        "good     settings: the system checks found nothing serious\n"
        f"good     database: the ledger is in 'default' ({connection.vendor})\n"
        "good     local side of default: a small file was written, read and deleted from here\n"
        "good     remote side of default: a small file was written, read and deleted from here\n"
        "good     broker: filesystem://localhost// answers\n"
        "good     workers: 1 answered: celery@host\n"
        f"good     workers for default: they know its task and listen to the queue {filesystem_broker.queue}\n"
        "good     sweep: it ran 0 s ago\n"
        "good     canary of default: transferred in 0 s by host:1\n"
        "good     cache of default: what the worker wrote is seen here\n"
        "good     ledger: 0 files are owed, none has failed or stalled\n"
    )
    assert set(ledger.records().values_list("state", flat=True)) == {"deleted"}


@pytest.mark.django_db(transaction=True)
def test_a_worker_on_another_disk(
    filesystem_broker: Broker, media: Media, celery_processes: Celery, settings: Any
) -> None:
    """A worker that does not see the local file is found out, and the cache that it does not share."""
    elsewhere = deepcopy(settings.STORAGES)
    elsewhere["default"]["OPTIONS"]["local_options"]["location"] = str(fresh("elsewhere"))
    worker = celery_processes.worker(filesystem_broker, settings={"STORAGES": elsewhere})
    ran = doctor()
    found = verdicts(ran)
    assert ran.code == 1
    assert found["canary of default"][0] == "bad"
    assert "no local file queued-storage-doctor/" in found["canary of default"][1]
    assert found["sweep"] == ("bad", "it last ran never")
    (canary,) = (each for each in ran.json["findings"] if each["check"] == "canary of default")
    assert canary["advice"] == ("Give web and worker the same local folder, or set QUEUED_STORAGE_NODE on each host.")
    worker.stop()
    celery_processes.worker(filesystem_broker)
    found = verdicts(doctor())
    assert found["canary of default"][0] == "good"
    # Each process has a LocMemCache of its own.
    assert found["cache of default"] == ("bad", "what the worker wrote into 'default' is not seen here")


@pytest.mark.django_db(transaction=True)
def test_no_worker(filesystem_broker: Broker, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a worker the canary is not taken; it is deleted all the same."""
    ran = doctor("--timeout", "0")
    found = verdicts(ran)
    assert ran.code == 1
    assert found["workers"] == ("bad", "none answered within 10 seconds")
    assert found["canary of default"] == ("bad", "no worker took it within 0 s")
    assert ran.json["bad"] == 3
    assert ledger.records().get().state == "deleted"
    monkeypatch.setattr(examining, "PATIENCE", (0.1,))
    assert "canary of default" not in verdicts(doctor("--no-canary"))


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_slow_to_answer(
    filesystem_broker: Broker, media: Media, celery_processes: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that lets the first question go by is asked once more before it is called missing."""
    worker = celery_processes.worker(filesystem_broker)
    os.kill(worker.pid, signal.SIGSTOP)
    questions: list[float] = []

    def inspect(timeout: float, **named: Any) -> Any:
        questions.append(timeout)
        if len(questions) == 2:
            os.kill(worker.pid, signal.SIGCONT)
        return Inspect(timeout=timeout, app=app, **named)

    monkeypatch.setattr(app.control, "inspect", inspect)
    assert verdicts(doctor("--no-canary"))["workers"][0] == "good"
    assert questions == [2, 8]


@pytest.mark.django_db(transaction=True)
def test_a_worker_of_something_else(
    filesystem_broker: Broker, make_pair: MakePair, celery_processes: Celery, settings: Any
) -> None:
    """A worker that does not listen to the queue of a storage, or does not know its task, is of no use to it."""
    make_pair("queued", queue="of-its-own", remote_options={"location": str(fresh("a"))})
    make_pair("tasked", task="tests.usertasks.TransferAndNotify", remote_options={"location": str(fresh("b"))})
    celery_processes.worker(filesystem_broker)
    found = verdicts(doctor("--no-canary"))
    assert found["workers for queued"] == ("bad", "no worker listens to the queue of-its-own")
    assert found["workers for default"][0] == "good"
    assert found["workers for tasked"][0] in ("good", "bad")


def test_tables_of_another_release(pair: Pair) -> None:
    """Migrations that are not applied are told first, and nothing else is tried before they are."""
    MigrationRecorder(connection).record_unapplied("queued_storage", "0001_initial")
    found = verdicts(doctor())
    assert found.pop("settings")[0] == "good"
    assert found == {"database": ("bad", "its tables are not those of this release (default)")}


def test_a_worker_too_busy_to_answer(make_pair: MakePair) -> None:
    """A worker that told its tasks, and not in time its queues, is no finding against the set-up."""
    pair = make_pair("default", remote_options={"location": str(fresh("a"))})
    (finding,) = examining._check_worker_for(pair, {pair.task.name}, None)
    assert (finding.verdict, finding.advice) == ("unclear", "")


def test_sides_that_do_not_work(make_pair: MakePair) -> None:
    """Each side is tried by itself, and no secret is told."""
    make_pair(local_options={"location": "/proc/nowhere"})
    make_pair("gone", remote="no.such.Storage")
    pair = make_pair("other", local_options={"location": str(fresh("local"))})

    def denied(name: str) -> None:
        raise PermissionError("403 for password=hunter2")

    pair.remote.faults["delete"] = denied
    ran = doctor("--no-canary")
    found = verdicts(ran)
    assert found["local side of default"][0] == "bad"
    assert found["local side of default"][1].startswith("FileNotFoundError: ")
    assert found["remote side of default"][0] == "good"
    assert found["remote side of other"] == ("bad", "PermissionError: 403 for password=********")
    assert found["storage gone"][1].startswith("StorageConfigurationError: no.such.Storage cannot be imported")
    assert ran.code == 1
    assert [name for name in verdicts(doctor("--no-canary", "--storage", "other")) if "side" in name] == [
        "local side of other",
        "remote side of other",
    ]


def test_a_remote_that_gives_other_bytes(make_pair: MakePair) -> None:
    """A remote that cannot be trusted is found out by the first small file."""
    pair = make_pair(remote="tests.storages.MeddlingStorage")
    pair.remote.meddle = lambda data: data[:-1]
    assert verdicts(doctor("--no-canary"))["remote side of default"] == (
        "bad",
        "it gave other bytes than it was given",
    )


def test_brokers_that_do_not_work(pair: Pair) -> None:
    """A broker in memory, and one that does not answer, are of no use; without one workers are not asked."""
    found = verdicts(doctor("--no-canary"))
    assert found["broker"] == ("bad", "it is in memory: no worker ever sees a message")
    assert "workers" not in found
    with changed(app, broker_url="redis://127.0.0.1:1//", CELERY_BROKER_URL="redis://127.0.0.1:1//"):
        verdict, text = verdicts(doctor("--no-canary"))["broker"]
    assert verdict == "bad"
    assert "127.0.0.1:1" in text


def test_eager_tasks(pair: Pair) -> None:
    """Eager tasks need no broker, and nobody is to use them elsewhere than in tests."""
    with changed(app):
        configure(task_always_eager=True)
        found = verdicts(doctor("--timeout", "1"))
    assert found["broker"] == ("unclear", "tasks run eagerly, in this process")
    assert found["canary of default"][0] in ("good", "bad")


@pytest.mark.parametrize(("minutes", "verdict"), [(2, "good"), (6, "bad")])
def test_the_sweep_is_seen(pair: Pair, minutes: int, verdict: str) -> None:
    """A sweep that has not run for minutes is missed."""
    Heartbeat.objects.create(duty="sweep", seen_at=timezone.now() - timedelta(minutes=minutes))
    assert verdicts(doctor("--no-canary"))["sweep"][0] == verdict


def test_what_the_ledger_says(pair: Pair) -> None:
    """Failed and stalled files, and storages that wait, are told."""
    RecordFactory(failed=True)
    RecordFactory(retries=9)
    health.pause("default")
    ran = doctor()
    texts = [(each["verdict"], each["text"]) for each in ran.json["findings"] if each["check"] == "ledger"]
    assert texts == [
        ("unclear", "1 files have failed"),
        ("unclear", "1 files have used up their retries"),
        ("unclear", "default is paused"),
    ]
    assert verdicts(ran)["canary of default"][0] == "unclear"
    moment = timezone.now()
    health.storages().update(paused_at=None, failures=3, down_since=moment)
    down = [each for each in doctor().json["findings"] if each["check"] == "ledger"][-1]
    assert (down["verdict"], down["text"]) == (
        "bad",
        f"the remote of default has been down since {moment:%Y-%m-%d %H:%M}",
    )


def test_no_storage_at_all(settings: Any) -> None:
    """A project that configures none is told so."""
    settings.STORAGES = {"default": {"BACKEND": "django.core.files.storage.FileSystemStorage"}}
    assert verdicts(doctor())["storages"] == ("bad", "no queued storage is configured")


def test_settings_that_are_wrong(pair: Pair, settings: Any) -> None:
    """What the system checks find is told with their hint."""
    settings.QUEUED_STORAGE_RETRIES = -1
    ran = manage("doctor", "--no-canary")
    assert ran.code == 1
    first, advice = ran.out.splitlines()[:2]
    assert first.startswith("bad      settings: queued_storage.E005: QUEUED_STORAGE_RETRIES = -1")
    assert advice.startswith("         ")
    assert ran.err.endswith("things are wrong.\n")


def test_the_doctor_is_interrupted(pair: Pair) -> None:
    """Ctrl-C ends in 130 with what was found so far."""

    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    pair.remote.faults["save"] = interrupt
    ran = doctor()
    assert ran.code == 130
    assert list(verdicts(ran)) == ["settings", "database", "local side of default"]
    assert json.loads(ran.out)["bad"] == 0
