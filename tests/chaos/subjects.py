"""What the chaos is let loose on: a storage, its settings, and how its processes are known to be at rest."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import connection

from queued_storage.models import State, TransferAttempt, TransferRecord

# Short, so that a fault costs seconds; the ratios between them are those of the defaults.
SETTINGS: dict[str, Any] = {
    "QUEUED_STORAGE_LEASE": 6,
    "QUEUED_STORAGE_RETRY_DELAY": 0.5,
    "QUEUED_STORAGE_BACKOFF_CAP": 4,
    "QUEUED_STORAGE_RESEND_DELAY": 2,
    "QUEUED_STORAGE_RESEND_CAP": 8,
    "QUEUED_STORAGE_PROBE_DELAY": 1,
    "QUEUED_STORAGE_PUBLISH_PAUSE": 1,
    "QUEUED_STORAGE_CACHE_TIMEOUT": 10,
    # Here it is the chaos that kills the workers, not the file.
    "QUEUED_STORAGE_STRIKES": 1000,
    "CELERY_BEAT_SCHEDULE": {"sweep": {"task": "queued_storage.tasks.sweep", "schedule": 1.0}},
}


def _nothing_in_hand(workers: Collection[str]) -> list[int]:
    return []


@dataclass(frozen=True)
class Subject:
    """A storage under test.

    ``entry`` makes its entry of STORAGES from the local folder and the options of the S3 remote. ``at_rest`` tells
    whether nothing is owed any more; without it a subject is at rest when neither side has changed for ``still``
    seconds. ``in_hand``, ``arrived`` and ``history`` ask its ledger, if it has one, what workers hold, what of that is
    done, and what happened to it.
    """

    name: str
    entry: Callable[[Path, dict[str, Any]], dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    at_rest: Callable[[], bool] | None = None
    still: float = 0.0
    in_hand: Callable[[Collection[str]], list[int]] = _nothing_in_hand
    arrived: Callable[[Collection[int]], set[int]] = lambda pks: set()
    history: Callable[[int], list[str]] = lambda pk: []

    @property
    def has_ledger(self) -> bool:
        """Whether the subject itself knows what is owed."""
        return self.at_rest is not None


def _entry(media: Path, remote: dict[str, Any]) -> dict[str, Any]:
    return {
        "BACKEND": "queued_storage.backends.QueuedStorage",
        "OPTIONS": {
            "local": "queued_storage.local.LocalStorage",
            "local_options": {"location": str(media), "base_url": "/media/"},
            "remote": "queued_storage.remotes.s3.S3Storage",
            "remote_options": {**remote, "connect_timeout": 2, "read_timeout": 4},
            "keep_local": False,
            "task": "queued_storage.tasks.TransferAndDelete",
        },
    }


def rows() -> list[dict[str, Any]]:
    """Return the ledger, read by this process's own connection, which no fault touches."""
    connection.close_if_unusable_or_obsolete()
    return list(TransferRecord.objects.values())


def _at_rest() -> bool:
    done = TransferRecord.objects.filter(state=State.TRANSFERRED, local_copy=False)
    return not TransferRecord.objects.exclude(pk__in=done).exclude(state=State.DELETED, local_copy=False).exists()


def _in_hand(workers: Collection[str]) -> list[int]:
    held = TransferRecord.objects.filter(state=State.TRANSFERRING, worker__in=workers)
    return list(held.values_list("pk", flat=True))


def _arrived(pks: Collection[int]) -> set[int]:
    done = TransferRecord.objects.filter(pk__in=pks, state__in=[State.TRANSFERRED, State.DELETED])
    return set(done.values_list("pk", flat=True))


def _history(pk: int) -> list[str]:
    rows = TransferAttempt.objects.filter(record=pk).order_by("pk")
    return [
        f"{row.started_at:%H:%M:%S} to {row.finished_at:%H:%M:%S} {row.outcome} {row.error_kind} {row.error[:120]}"
        for row in rows
    ]


OURS = Subject(
    "queued_storage", _entry, SETTINGS, at_rest=_at_rest, in_hand=_in_hand, arrived=_arrived, history=_history
)
