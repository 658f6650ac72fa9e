"""What a machine plays with: a queued storage of every kind over fresh folders, raw eyes on both sides, a clock."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.cache import caches
from django.core.files.storage import storages
from django.db import connection, models, transaction
from django.db.models import F

from queued_storage import locations, sweeping
from queued_storage.conf import settings
from queued_storage.models import Heartbeat, State, StorageHealth, TransferAttempt, TransferRecord
from queued_storage.names import STAGING_DIRECTORY
from queued_storage.testing import store
from tests.servers.roots import fresh

# Longer than any lease, retry or resend may last; all rounds together are shorter than deleted records are kept.
LONG = timedelta(hours=7)
ROUNDS = 10

# Children before parents.
TABLES: tuple[type[models.Model], ...] = (TransferAttempt, TransferRecord, StorageHealth, Heartbeat)

# Options of each kind beyond its two sides; "remote" are options of the remote storage.
KINDS: dict[str, dict[str, Any]] = {
    "keep": {},
    "evict": {"keep_local": False},
    "parts": {"keep_local": False, "verify": "read", "remote": {"part_size": 64}},
    "overwrite": {"keep_local": False, "overwrite": True},
    "held": {"delayed": True},
    "later": {"delayed": timedelta(hours=1)},
    "linger": {"keep_local": timedelta(hours=1)},
    "through": {"keep_local": False, "max_owed_files": 1, "when_full": "write_through"},
}
# For what is played on purpose: what it does hangs on what was done shortly before.
SPECIAL = {"through"}


@dataclass
class World:
    """The storages, by alias, below one folder; ``in_memory`` remotes are fast, others are seen by other processes."""

    root: Path
    in_memory: bool = False
    kinds: Mapping[str, dict[str, Any]] = field(
        default_factory=lambda: {kind: options for kind, options in KINDS.items() if kind not in SPECIAL}
    )

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the entries for STORAGES."""
        # The models of the test project use it; no machine does.
        default = {"default": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}
        return default | {alias: self._entry(alias, dict(options)) for alias, options in self.kinds.items()}

    def _entry(self, alias: str, options: dict[str, Any]) -> dict[str, Any]:
        remote = {"name": alias, **options.pop("remote", {})}
        if not self.in_memory:
            remote["location"] = str(self.root / alias / "remote")
        sides = {
            "local": "queued_storage.local.LocalStorage",
            "local_options": {"location": str(self.root / alias / "local"), "durable": not self.in_memory},
            "remote": "queued_storage.testing.FaultyRemoteStorage",
            "remote_options": remote,
        }
        return {"BACKEND": "queued_storage.backends.QueuedStorage", "OPTIONS": sides | options}

    def storage(self, alias: str) -> Any:
        """Return the queued storage."""
        return storages[alias]

    def overwrites(self, alias: str) -> bool:
        """Tell whether a name may get another content."""
        return bool(self.kinds[alias].get("overwrite"))

    def local_files(self, alias: str) -> dict[str, bytes]:
        """Return what lies in the local folder, staging left out."""
        files = files_below(self.root / alias / "local")
        return {name: data for name, data in files.items() if not name.startswith(f"{STAGING_DIRECTORY}/")}

    def staged(self, alias: str) -> list[str]:
        """Return what lies in the local staging folder."""
        return list(files_below(self.root / alias / "local" / STAGING_DIRECTORY))

    def remote_files(self, alias: str) -> dict[str, bytes]:
        """Return the objects of the remote."""
        return dict(store(alias).objects)

    def unfinished(self) -> int:
        """Return how many uploads lie unfinished on the remotes."""
        return sum(store(alias).objects.unfinished() for alias in self.kinds)

    def elsewhere(self) -> Any:
        """Return what there is outside of the folder, in a form that can be compared."""
        return None

    def keep_elsewhere(self) -> Any:
        """Return what ``put_back_elsewhere()`` needs."""
        return None

    def put_back_elsewhere(self, kept: Any) -> None:
        """Bring back what there was outside of the folder."""

    def forget(self) -> None:
        """Forget what a process remembers of its folders and of what is owed: a new one does not know."""
        for alias in self.kinds:
            self.storage(alias).local._synced.clear()
            self.storage(alias).__dict__.pop("_backlog", None)

    def clear(self) -> None:
        """Forget everything: rows, files, objects, faults, cache, and that a service was down."""
        for alias in self.kinds:
            _ = self.storage(alias).remote
            store(alias).heal()
            if self.in_memory:
                store(alias).objects.clear()
            self.storage(alias).__dict__.pop("_backlog", None)
            shutil.rmtree(self.root / alias, ignore_errors=True)
        with transaction.atomic(), connection.cursor() as cursor:
            for table in TABLES:
                cursor.execute(f"DELETE FROM {table._meta.db_table}")
        caches["default"].clear()
        locations.breaker.succeeded()


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Give a folder, in memory where that can be had: thousands of fsyncs there cost nothing."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK):
        with tempfile.TemporaryDirectory(prefix=f"queued-storage-{name}-", dir=memory) as folder:
            yield Path(folder)
    else:
        yield fresh(name)


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below ``folder`` by its path there."""
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            file = Path(path) / name
            with suppress(FileNotFoundError):
                found[file.relative_to(folder).as_posix()] = file.read_bytes()
    return found


def folders_below(folder: Path) -> list[str]:
    """Return every folder below ``folder`` by its path there."""
    return [(Path(path) / name).relative_to(folder).as_posix() for path, names, _ in os.walk(folder) for name in names]


def advance(by: timedelta) -> None:
    """Let time pass: everything that the ledger knows happened, or is due, that much earlier."""
    times = ("due_at", "created_at", "transferred_at", "deleted_at", "updated_at")
    TransferRecord.objects.update(**{name: F(name) - by for name in times})
    StorageHealth.objects.update(**{name: F(name) - by for name in ("down_since", "probe_at", "updated_at")})
    Heartbeat.objects.update(seen_at=F("seen_at") - by)


def owing() -> list[TransferRecord]:
    """Return the records that somebody must still do something for, other than prune them."""
    pruned_at = F("deleted_at") + settings.QUEUED_STORAGE_PRUNE_AFTER
    return list(TransferRecord.objects.filter(due_at__isnull=False).exclude(state=State.DELETED, due_at__gte=pruned_at))


def settle() -> bool:
    """Sweep, with much time passing in between, until nothing is owed; False if that does not come to an end."""
    for _ in range(ROUNDS):
        advance(LONG)
        sweeping.sweep(sweeping.process_all)
        if not owing():
            return True
    return False


def prune() -> bool:
    """Let the time come when deleted records are forgotten; False if something is then still owed."""
    advance(timedelta(days=8))
    sweeping.sweep(sweeping.process_all)
    return not TransferRecord.objects.filter(due_at__isnull=False).exists()
