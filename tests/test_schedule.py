"""The sweep in django-celery-beat's tables."""

from __future__ import annotations

from typing import Any

import pytest

from queued_storage import schedule
from tests.test_commands import Ran, manage

pytestmark = pytest.mark.django_db

needs_beat = pytest.mark.skipif(not schedule.available(), reason="django-celery-beat has no release for this Django")


def table(name: str) -> list[dict[str, Any]]:
    """Return the rows of a table of django-celery-beat, without what it counts itself."""
    rows = schedule._model(name).objects.order_by("pk").values()
    return [{key: value for key, value in row.items() if key != "date_changed"} for row in rows]


@needs_beat
def test_the_sweep_is_put_there_once() -> None:
    """The first call creates the periodic task, every other one says that it is there."""
    assert manage("schedule", "--dry-run") == Ran(0, "would create: queued-storage-sweep\n", "")
    assert table("PeriodicTask") == []
    assert manage("schedule") == Ran(0, "created: queued-storage-sweep, every 60 seconds\n", "")
    before = table("PeriodicTask"), table("IntervalSchedule")
    assert manage("schedule") == Ran(0, "left as it is: queued-storage-sweep, every 60 seconds\n", "")
    assert manage("schedule", "--dry-run").out == "left as it is: queued-storage-sweep, every 60 seconds\n"
    assert (table("PeriodicTask"), table("IntervalSchedule")) == before
    (task,), (interval,) = before
    assert (interval["every"], interval["period"]) == (60, "seconds")
    wanted = {
        "task": "queued_storage.tasks.sweep",
        "expire_seconds": 60,
        "enabled": True,
        "interval_id": interval["id"],
    }
    assert {key: task[key] for key in wanted} == wanted


@needs_beat
def test_the_schedule_as_json() -> None:
    """JSON says what stands in the tables, and whether that is new."""
    assert manage("schedule", "--dry-run", "--json").json == {"created": False, "name": "queued-storage-sweep"}
    facts = {"name": "queued-storage-sweep", "schedule": "every 60 seconds", "runs_the_sweep": True}
    assert manage("schedule", "--json").json == {"created": True, **facts}
    assert manage("schedule", "--json").json == {"created": False, **facts}


@needs_beat
def test_other_tasks_and_intervals_are_no_hindrance() -> None:
    """What else a project has scheduled is neither taken for the sweep nor used for it."""
    interval = schedule._model("IntervalSchedule").objects.create(every=5, period="minutes")
    schedule._model("PeriodicTask").objects.create(name="other", task="other.task", interval=interval)
    assert manage("schedule").out == "created: queued-storage-sweep, every 60 seconds\n"
    assert [row["task"] for row in table("PeriodicTask")] == ["other.task", "queued_storage.tasks.sweep"]


@needs_beat
def test_an_interval_that_is_there_is_used() -> None:
    """Equal intervals, even several, are not multiplied."""
    intervals = schedule._model("IntervalSchedule").objects
    first = intervals.create(every=60, period="seconds")
    intervals.create(every=60, period="seconds")
    task, created = schedule.install()
    assert created
    assert task.interval == first
    assert intervals.count() == 2


@needs_beat
@pytest.mark.parametrize(
    ("edit", "code", "text"),
    [
        ({"enabled": False}, 1, "left as it is: queued-storage-sweep, every 60 seconds\n"),
        ({"task": "another.task"}, 1, "left as it is: queued-storage-sweep, every 60 seconds\n"),
        ({"name": "night watch"}, 0, "left as it is: night watch, every 60 seconds\n"),
        (
            {"interval_id": None, "crontab": "3"},
            0,
            "left as it is: queued-storage-sweep, 3 * * * * (m/h/dM/MY/d) UTC\n",
        ),
    ],
)
def test_what_an_operator_made_of_it_stays(edit: dict[str, Any], code: int, text: str) -> None:
    """A task that was renamed, rescheduled, switched off or replaced is never written over."""
    task, _ = schedule.install()
    if minute := edit.pop("crontab", None):
        edit["crontab_id"] = schedule._model("CrontabSchedule").objects.create(minute=minute).pk
    type(task).objects.filter(pk=task.pk).update(**edit)
    before = table("PeriodicTask")
    ran = manage("schedule")
    assert (ran.code, ran.out) == (code, text)
    assert ("an operator's edit" in ran.err) == bool(code)
    assert table("PeriodicTask") == before


@needs_beat
def test_an_enabled_task_counts_before_a_disabled_one() -> None:
    """Of several tasks that run the sweep one that is switched on decides."""
    task, _ = schedule.install()
    type(task).objects.filter(pk=task.pk).update(enabled=False)
    type(task).objects.create(name="mine", task=schedule.TASK, interval=task.interval)
    assert manage("schedule") == Ran(0, "left as it is: mine, every 60 seconds\n", "")


def test_without_django_celery_beat_the_error_says_what_to_do(settings: Any) -> None:
    """The command ends as one that was called wrongly, with the three steps and the way around them."""
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "django_celery_beat"]
    assert manage("schedule") == Ran(
        2,
        "",
        "django-celery-beat is not in INSTALLED_APPS. Run: pip install 'django-queued-storage[beat]', add "
        '"django_celery_beat" to INSTALLED_APPS, run: manage.py migrate. Without it, add '
        "**queued_storage.conf.BEAT_SCHEDULE to CELERY_BEAT_SCHEDULE.",
    )


@needs_beat
def test_without_its_tables_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that has not migrated yet gets the command for it."""
    monkeypatch.setattr(schedule._model("PeriodicTask")._meta, "db_table", "not_there_yet")
    text = "The tables of django-celery-beat are missing. Run: manage.py migrate django_celery_beat"
    assert manage("schedule") == Ran(2, "", text)
    assert manage("schedule", "--dry-run") == Ran(2, "", text)
