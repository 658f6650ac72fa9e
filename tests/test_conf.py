"""Settings: read when used, in the units that people write, and refused with what to write."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given, strategies as st

from queued_storage import backoff
from queued_storage.conf import BEAT_SCHEDULE, Setting, SettingError, Settings, settings

NAMES = [name for name, value in vars(Settings).items() if isinstance(value, Setting)]
DURATIONS = [
    name for name in NAMES if isinstance(getattr(settings, name), timedelta) or name == "QUEUED_STORAGE_RELEASE_AFTER"
]
COUNTS = [name for name in NAMES if isinstance(getattr(settings, name), int)]
TEXTS = ["QUEUED_STORAGE_CACHE_PREFIX", "QUEUED_STORAGE_NODE", "QUEUED_STORAGE_CACHE", "QUEUED_STORAGE_QUEUE"]


def test_the_documented_defaults() -> None:
    """The settings of 0.8 have their documented names and defaults."""
    assert settings.QUEUED_STORAGE_CACHE_PREFIX == "queued_storage"
    assert settings.QUEUED_STORAGE_RETRIES == 5
    assert timedelta(seconds=60) == settings.QUEUED_STORAGE_RETRY_DELAY


def test_every_setting_is_listed() -> None:
    """Iterating gives every setting, with its name and what it does."""
    assert sorted(setting.name for setting in settings) == sorted(NAMES)
    assert all(setting.__doc__ and setting.__doc__.endswith(".") for setting in settings)
    assert isinstance(Settings.QUEUED_STORAGE_RETRIES, Setting)
    assert len(NAMES) >= 20


def test_read_when_used(settings: Any) -> None:
    """A changed setting counts at once, and its default again when it is taken away."""
    from queued_storage.conf import settings as ours

    settings.QUEUED_STORAGE_RETRIES = 9
    assert ours.QUEUED_STORAGE_RETRIES == 9
    del settings.QUEUED_STORAGE_RETRIES
    assert ours.QUEUED_STORAGE_RETRIES == 5


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [90, 90.0, timedelta(seconds=90), timedelta(minutes=1, seconds=30)])
def test_durations(settings: Any, name: str, value: Any) -> None:
    """A duration may be seconds or a timedelta."""
    from queued_storage.conf import settings as ours

    setattr(settings, name, value)
    assert getattr(ours, name) == timedelta(seconds=90)


BAD_DURATIONS = [0, -1, timedelta(0), timedelta(days=-1), "60", True, [60], float("nan"), float("inf"), 1e300]
BAD = [
    *((name, value) for name in DURATIONS for value in BAD_DURATIONS),
    *((name, value) for name in COUNTS for value in (-1, 1.5, "5", None, True)),
    *((name, value) for name in TEXTS for value in (5, b"x", [])),
    ("QUEUED_STORAGE_STRIKES", 0),
    ("QUEUED_STORAGE_SWEEP_BATCH", 0),
    ("QUEUED_STORAGE_CACHE_PREFIX", None),
    ("QUEUED_STORAGE_NODE", "x" * 256),
    *(("QUEUED_STORAGE_NODE_URL", value) for value in (None, "https://one.example.com", "//{node}/", "{node}")),
    ("QUEUED_STORAGE_VERIFY", "md5"),
    ("QUEUED_STORAGE_VERIFY", None),
    ("QUEUED_STORAGE_VERIFY", []),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{name[15:]}={value!r}" for name, value in BAD])
def test_bad_values(settings: Any, name: str, value: Any) -> None:
    """A value that cannot be used raises ``ImproperlyConfigured`` with the setting, the value and what to write."""
    from queued_storage.conf import settings as ours

    setattr(settings, name, value)
    with pytest.raises(SettingError) as raised:
        getattr(ours, name)
    assert isinstance(raised.value, ImproperlyConfigured)
    assert str(raised.value).startswith(f"{name} = {value!r}: ")


@pytest.mark.parametrize("name", ["QUEUED_STORAGE_CACHE", "QUEUED_STORAGE_RELEASE_AFTER", "QUEUED_STORAGE_QUEUE"])
def test_none_turns_off(settings: Any, name: str) -> None:
    """Where it makes sense, None means off."""
    from queued_storage.conf import settings as ours

    setattr(settings, name, None)
    assert getattr(ours, name) is None


def test_the_entry_for_beat() -> None:
    """The schedule for Celery beat sweeps each minute, and a sweep that waited longer than that is not run twice."""
    (entry,) = BEAT_SCHEDULE.values()
    assert entry == {"task": "queued_storage.tasks.sweep", "schedule": 60.0, "options": {"expires": 60}}


@pytest.mark.parametrize(
    ("retries", "seconds"),
    [(0, 60), (1, 60), (2, 120), (3, 240), (5, 960), (9, 15360), (10, 21600), (100, 21600), (10**6, 21600)],
)
def test_retry_delays(retries: int, seconds: int) -> None:
    """A retry waits a minute, then twice as long each time, up to six hours; up to a fifth is taken off by chance."""
    waits = [backoff.retry_delay(retries).total_seconds() for _ in range(200)]
    assert seconds * 0.8 <= min(waits) < max(waits) <= seconds


@pytest.mark.parametrize(("delay", "cap"), [(86400, 7 * 86400), (21599, 21600), (30 * 86400, 60), (0.001, 10**9)])
def test_retry_delays_of_unusual_settings(settings: Any, delay: float, cap: float) -> None:
    """Whatever the settings say, no delay is longer than the cap and none overflows."""
    settings.QUEUED_STORAGE_RETRY_DELAY, settings.QUEUED_STORAGE_BACKOFF_CAP = delay, cap
    for retries in (0, 1, 2, 31, 33, 64, 10**9):
        assert timedelta(0) < backoff.retry_delay(retries) <= timedelta(seconds=cap)


def test_chance_parts_those_that_failed_together() -> None:
    """Files that failed at the same moment do not come back at the same moment."""
    random.seed(7)
    assert len({backoff.retry_delay(3) for _ in range(100)}) > 90


@pytest.mark.parametrize(
    ("minutes", "wait"), [(0, 1), (1, 1), (2, 2), (3, 2), (5, 4), (9, 8), (60, 32), (64, 60), (600, 60), (10**6, 60)]
)
def test_resend_delays(minutes: int, wait: int) -> None:
    """Messages for a waiting file come after a minute, then more and more seldom, at last once an hour."""
    assert backoff.resend_delay(timedelta(minutes=minutes)) == timedelta(minutes=wait)


@given(st.timedeltas(min_value=timedelta(days=-10), max_value=timedelta(days=10**5)))
def test_resend_delays_of_any_age(age: timedelta) -> None:
    """The delay is never shorter than the first one and never longer than the cap, also where a clock ran backwards."""
    assert timedelta(minutes=1) <= backoff.resend_delay(age) <= timedelta(hours=1)


@pytest.mark.parametrize(("retries", "stalled"), [(0, False), (5, False), (6, True), (99, True)])
def test_stalled(retries: int, stalled: bool) -> None:
    """A record is stalled when its retries are used up."""
    assert backoff.stalled(retries) is stalled
