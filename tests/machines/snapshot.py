"""The durable state of a world: seen, told from another one, and put back."""

from __future__ import annotations

import hashlib
import pickle
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, models, transaction
from django.utils import timezone

from queued_storage.models import TransferRecord
from tests.machines.invariants import Manifest
from tests.machines.world import TABLES, World, files_below, folders_below

CACHE = "cache"
# What differs from one run to the next: tokens in names, ids of processes.
RANDOM = re.compile(r"[0-9a-f]{16,}|(?<=_)[A-Za-z0-9]{7}(?=\b|[._/])|:\d+\b")
# Rows that are older than this are written anew, so that nothing becomes due while the machine works.
FRESH = timedelta(seconds=5)

Rows = dict[type[models.Model], list[dict[str, Any]]]


@dataclass
class Sight:
    """Everything that lasts, as it is at one moment, to the last bit."""

    rows: Rows
    files: dict[str, bytes]
    folders: list[str]
    elsewhere: Any

    @classmethod
    def of(cls, world: World) -> Sight:
        """Look."""
        return cls(_rows(), files_below(world.root), folders_below(world.root), world.elsewhere())

    def state(self, world: World, manifest: Manifest) -> str:
        """Return what tells one state from another: all that the future depends on, but for times and tokens."""
        # Ids go on counting from run to run.
        numbers = {values["id"]: number for number, values in enumerate(self.rows[TransferRecord])}
        facts: list[Any] = [[_facts(values, numbers) for values in table] for table in self.rows.values()]
        facts += [sorted(self.folders), self.elsewhere]
        for name, data in sorted(self.files.items()):
            if name.startswith(f"{CACHE}/"):
                data = _cached(data)
            if world.root / name != manifest.path:
                facts.append((name, hashlib.sha256(data).hexdigest()))
        facts += [{name: value for name, value in event.items() if name != "file"} for event in manifest.events()]
        return RANDOM.sub("*", repr(facts))


class Snapshot:
    """The state at one moment, to be put back; all times move by as much as has passed since."""

    def __init__(self, world: World) -> None:
        self.world, self.root, self.kept = world, world.root, world.keep_elsewhere()
        self.models = [row for table in TABLES for row in table._default_manager.all()]
        self.sight, self.at = Sight.of(world), timezone.now()

    def restore(self, now: Sight) -> None:
        """Put everything back; ``now`` is what there is."""
        for name in now.files.keys() - self.sight.files.keys():
            (self.root / name).unlink()
        # The deepest first.
        for name in sorted(set(now.folders) - set(self.sight.folders), reverse=True):
            (self.root / name).rmdir()
        for name in self.sight.folders:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for name, data in self.sight.files.items():
            if now.files.get(name) != data:
                (self.root / name).write_bytes(data)
        if now.elsewhere != self.sight.elsewhere:
            self.world.put_back_elsewhere(self.kept)
        if now.rows != self.sight.rows or timezone.now() - self.at > FRESH:
            self._restore_rows()

    def _restore_rows(self) -> None:
        passed = timezone.now() - self.at
        self.at += passed
        with transaction.atomic():
            with connection.cursor() as cursor:
                for table in TABLES:
                    cursor.execute(f"DELETE FROM {table._meta.db_table}")
            for table in reversed(TABLES):
                rows = [row for row in self.models if isinstance(row, table)]
                for row in rows:
                    _age(row, passed)
                if rows:
                    table._default_manager.bulk_create(rows)
        self.sight.rows = _rows()


def _age(row: models.Model, passed: timedelta) -> None:
    for name, value in vars(row).items():
        if isinstance(value, datetime):
            setattr(row, name, value + passed)


def _rows() -> Rows:
    # Past the ORM, because this is done thousands of times.
    rows = {}
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"SELECT * FROM {table._meta.db_table} ORDER BY id")
            names = [column[0] for column in cursor.description]
            rows[table] = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return rows


def _facts(values: dict[str, Any], numbers: dict[int, int]) -> dict[str, Any]:
    facts = {name: _plain(value) for name, value in values.items() if not name.endswith(("id", "_at", "_since"))}
    facts |= {name: value is not None for name, value in values.items() if name.endswith(("_at", "_since"))}
    return facts | {name: numbers.get(values[name]) for name in ("record_id", "last_record", "probe") if name in values}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, type(None))) else type(value).__name__


def _cached(data: bytes) -> bytes:
    # Before the value stands the moment when it expires.
    return data.removeprefix(pickle.dumps(pickle.loads(data), pickle.HIGHEST_PROTOCOL))
