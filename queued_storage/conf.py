"""The settings, read when they are used, so that ``override_settings`` works."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")

# The entry for CELERY_BEAT_SCHEDULE; kept in a module without models so that a settings file can import it.
BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "queued-storage-sweep": {"task": "queued_storage.tasks.sweep", "schedule": 60.0, "options": {"expires": 60}},
}


class SettingError(ImproperlyConfigured):
    """A QUEUED_STORAGE_* setting has a value that cannot be used; the message says what to write."""


class Setting(Generic[T]):
    """One setting: its default, how its value is read and what it does."""

    def __init__(self, default: Any, read: Callable[[Any], T], doc: str) -> None:
        self.default, self.read, self.__doc__ = default, read, doc
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Setting[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Setting[T] | T:
        if instance is None:
            return self
        value = getattr(django_settings, self.name, self.default)
        try:
            return self.read(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise SettingError(f"{self.name} = {value!r}: {error}.") from None


def text(value: Any) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise TypeError("write a string")
    return value


def count(value: Any) -> int:
    """Read a whole number of zero or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("write a whole number of zero or more")
    return value


def positive(value: Any) -> int:
    """Read a whole number of one or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("write a whole number of one or more")
    return value


def duration(value: Any) -> timedelta:
    """Read a positive duration: seconds or ``timedelta``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, timedelta)):
        raise TypeError("write seconds as a number, or a timedelta")
    result = value if isinstance(value, timedelta) else timedelta(seconds=value)
    if result <= timedelta(0):
        raise ValueError("write a duration longer than zero")
    return result


_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def size(value: Any) -> int:
    """Read a number of bytes: ``"500"``, ``"100K"``, ``"20M"``, ``"5G"`` or ``"1T"``, in powers of 1024."""
    match = re.fullmatch(r"([0-9]{1,15})([kmgt]?)(?:i?b)?", value.lower()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a size such as 500M, 20G or 1T")
    return int(match[1]) * _UNITS[match[2]]


def quantity(value: Any) -> int:
    """Read a number of bytes, above zero, as a number or as ``size`` does."""
    return positive(value if isinstance(value, int) else size(value))


def optional(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """Let ``None`` stand for "off"."""
    return lambda value: None if value is None else read(value)


def verification(value: Any) -> str:
    """Read how a transfer is verified: ``"auto"``, ``"read"`` or ``"size"``."""
    if value not in ("auto", "read", "size"):
        raise ValueError('write "auto", "read" or "size"')
    return str(value)


def host(value: Any) -> str:
    """Read the name of a host, as long as a record can hold it."""
    if len(text(value)) > 255:
        raise ValueError("write at most 255 characters")
    return str(value)


def host_url(value: Any) -> str:
    """Read an address with a place for the name of a host, or nothing."""
    if text(value) and not ("{node}" in value and value.startswith(("http://", "https://"))):
        raise ValueError("write an address such as https://{node}.example.com")
    return str(value)


class Settings:
    """Every setting of the package; durations are seconds or ``timedelta``."""

    QUEUED_STORAGE_CACHE_PREFIX = Setting("queued_storage", text, "Prefix of every cache key.")
    QUEUED_STORAGE_CACHE = Setting("default", optional(text), "Alias in CACHES; None uses no cache.")
    QUEUED_STORAGE_CACHE_TIMEOUT = Setting(
        timedelta(days=1), duration, "How long the cache keeps a final answer; shorter than QUEUED_STORAGE_PRUNE_AFTER."
    )
    QUEUED_STORAGE_UNRECORDED_TIMEOUT = Setting(
        timedelta(minutes=5), duration, "How long the side of a file without a record is remembered."
    )
    QUEUED_STORAGE_RETRIES = Setting(5, count, "Retries before a record counts as stalled.")
    QUEUED_STORAGE_RETRY_DELAY = Setting(60, duration, "Delay before the first retry; it doubles each time.")
    QUEUED_STORAGE_BACKOFF_CAP = Setting(timedelta(hours=6), duration, "The longest delay between two retries.")
    QUEUED_STORAGE_STRIKES = Setting(3, positive, "Mismatches or lost workers in a row that make a record failed.")
    QUEUED_STORAGE_DOWN_AFTER = Setting(3, positive, "Files in a row that must fail before a remote counts as down.")
    QUEUED_STORAGE_PROBE_DELAY = Setting(60, duration, "How often a remote that is down is probed, by one file.")
    QUEUED_STORAGE_LEASE = Setting(timedelta(minutes=5), duration, "How long a claim lasts without progress.")
    QUEUED_STORAGE_RESEND_DELAY = Setting(60, duration, "When the sweep first sends another message for a queued file.")
    QUEUED_STORAGE_RESEND_CAP = Setting(timedelta(hours=1), duration, "The longest delay between two such messages.")
    QUEUED_STORAGE_RELEASE_AFTER = Setting(
        None, optional(duration), "After what time the sweep also queues files held with delayed=True; None: never."
    )
    QUEUED_STORAGE_LATE_AFTER = Setting(
        timedelta(hours=1), optional(duration), "Age at which the sweep tells of an owed file as late; None: never."
    )
    QUEUED_STORAGE_THREADS = Setting(
        32,
        positive,
        "Most small files that one process moves at once, to a remote for which it would wait most of the time.",
    )
    QUEUED_STORAGE_SWEEP_BATCH = Setting(1000, positive, "Rows that the sweep takes at a time.")
    QUEUED_STORAGE_PRUNE_AFTER = Setting(
        timedelta(days=7), duration, "How long a deleted record is kept; its name is not handed out before."
    )
    QUEUED_STORAGE_ATTEMPTS_AGE = Setting(timedelta(days=30), duration, "How long the history of attempts is kept.")
    QUEUED_STORAGE_STAGING_AGE = Setting(
        timedelta(days=1), duration, "Age at which unfinished local writes count as leftovers of a crash."
    )
    QUEUED_STORAGE_OWED_AGE = Setting(
        5, duration, "How old the figure may be with which the limits of a storage on what it owes are compared."
    )
    QUEUED_STORAGE_PUBLISH_TIMEOUT = Setting(1, duration, "Time-out of every broker operation in a request.")
    QUEUED_STORAGE_PUBLISH_PAUSE = Setting(5, duration, "How long publishing is skipped after it failed.")
    QUEUED_STORAGE_QUEUE = Setting(
        None,
        optional(text),
        "Celery queue of all messages, with ``{node}`` for the host that has the file; None leaves it to Celery.",
    )
    QUEUED_STORAGE_VERIFY = Setting(
        "auto", verification, 'How transfers are verified: "auto" (digest, else read back), "read" or "size".'
    )
    QUEUED_STORAGE_LINK_AGE = Setting(
        timedelta(hours=1), duration, "How long a signed link to a private file that is still local is good for."
    )
    QUEUED_STORAGE_SENDFILE = Setting(
        "",
        text,
        'Header by which the web server sends local files: "X-Sendfile", or "X-Accel-Redirect:/prefix/"; "": none.',
    )
    QUEUED_STORAGE_NODE = Setting("", host, "Name of this host, where hosts do not share the local disk.")
    QUEUED_STORAGE_NODE_URL = Setting(
        "",
        host_url,
        'Address of each host, such as "https://{node}.example.com": links redirect there while a file is on its disk.',
    )

    def __iter__(self) -> Iterator[Setting[Any]]:
        return (value for value in vars(type(self)).values() if isinstance(value, Setting))


settings = Settings()
