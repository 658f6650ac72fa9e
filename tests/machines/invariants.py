"""The promise, judged from outside: a manifest, the raw bytes of both sides, the rows, and the public API.

Every judge returns sentences, one for each violation; the first word says of what: ``lost``, ``wrong``, ``lies`` (the
ledger or an answer), ``shared`` (two bodies in one place), ``limbo`` (nobody moves the row on), ``orphan`` (bytes that
nothing explains), ``leftover`` (bytes that should be gone).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from queued_storage.digests import parse_digests
from queued_storage.models import State, TransferRecord
from tests.machines.world import World, owing

Key = tuple[str, str]


def sha256(data: bytes) -> str:
    """Return the digest by which the manifest knows a content."""
    return hashlib.sha256(data).hexdigest()


class Manifest:
    """What was promised to whom: a file outside of everything under test, a line for each event, fsynced."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def clear(self) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)

    def intent(self, alias: str, name: str, content: bytes) -> str:
        """Note that a save begins; return its id for what comes of it."""
        file = os.urandom(8).hex()
        self._write(event="intent", file=file, key=[alias, name], sha256=sha256(content))
        return file

    def ack(self, file: str, name: str) -> None:
        """Note that the save has returned ``name``, and its transaction is committed."""
        self._write(event="ack", file=file, name=name)

    def found(self, alias: str, name: str, content: bytes) -> None:
        """Note that a file lies there which was never saved through us: it is readable, with a record or without."""
        self._write(event="found", key=[alias, name], sha256=sha256(content))

    def fail(self, file: str) -> None:
        """Note that the save has raised, or its transaction was rolled back."""
        self._write(event="fail", file=file)

    def refuse(self, file: str) -> None:
        """Note that the save has raised and said that nothing is left."""
        self._write(event="refuse", file=file)

    def delete_intent(self, alias: str, name: str) -> None:
        """Note that a delete begins."""
        self._write(event="delete-intent", key=[alias, name])

    def delete_ack(self, alias: str, name: str) -> None:
        """Note that the delete has returned."""
        self._write(event="delete-ack", key=[alias, name])

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield all events; half a line at the end is one that was not written."""
        if self.path.exists():
            for line in self.path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def _write(self, **event: Any) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, json.dumps(event).encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)


@dataclass
class Promises:
    """What must hold, by storage and name: contents that are ``kept``, may be there (``doubtful``), must be ``gone``.

    ``refused`` are the contents of saves that have raised: nothing of them is left. ``unknown`` are those of saves that
    ended in neither way: they may lie about locally. ``damaged`` are those that a remote made of what it was given:
    they stay there, because nothing is repaired by deleting. ``found`` are files that need no record, because they
    were not saved through us.
    """

    kept: dict[Key, set[str]] = field(default_factory=dict)
    doubtful: dict[Key, set[str]] = field(default_factory=dict)
    gone: set[Key] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, manifest: Manifest, world: World) -> Promises:
        """Return what a manifest promises."""
        promises, begun = cls(), {}
        for event in manifest.events():
            kind = event["event"]
            if kind == "intent":
                begun[event["file"]] = (tuple(event["key"]), event["sha256"])
            elif kind == "ack":
                (alias, _), digest = begun.pop(event["file"])
                promises.keep((alias, event["name"]), digest)
            elif kind == "found":
                promises.keep(tuple(event["key"]), event["sha256"])
                promises.found.add(event["sha256"])
            elif kind == "refuse":
                promises.refused.add(begun.pop(event["file"])[1])
            elif kind == "fail":
                # What it had written before is removed by age, not at once.
                promises.unknown.add(begun.pop(event["file"])[1])
            elif kind == "delete-intent":
                key = tuple(event["key"])
                promises.doubtful[key] = promises.kept.pop(key)
            else:
                promises.drop(tuple(event["key"]))
        for key, digest in begun.values():
            promises.doubt(key, digest, world.overwrites(key[0]))
        return promises

    def keep(self, key: Key, digest: str) -> None:
        """Promise a content."""
        self.kept[key] = {digest}
        self.gone.discard(key)
        self.doubtful.pop(key, None)

    def drop(self, key: Key) -> None:
        """Promise an absence."""
        self.kept.pop(key, None)
        self.doubtful.pop(key, None)
        self.gone.add(key)

    def doubt(self, key: Key, digest: str, overwrites: bool) -> None:
        """Allow the content of a save of which nobody knows whether it took place."""
        self.unknown.add(digest)
        if key in self.kept and overwrites:
            self.kept[key].add(digest)
        elif key not in self.kept:
            self.doubtful.setdefault(key, set()).add(digest)
            self.gone.discard(key)


def read_all(world: World, promises: Promises, down: Collection[str] = ()) -> list[str]:
    """Read every name through the public API, as users would; remotes that are ``down`` may give temporary errors."""
    bad = []
    for (alias, name), contents in promises.kept.items():
        bad += _read(world.storage(alias), name, contents, alias in down)
    for (alias, name), contents in promises.doubtful.items():
        if world.storage(alias).exists(name):
            bad += _read(world.storage(alias), name, contents, alias in down)
        else:
            bad += _absent(world, (alias, name), "said not to exist", promises.damaged)
    for key in promises.gone:
        bad += _absent(world, key, "deleted", promises.damaged, key[0] in down)
    return bad


def _read(storage: Any, name: str, contents: set[str], may_wait: bool) -> list[str]:
    if not storage.exists(name):
        return [f"lost {name}: exists() is false"]
    try:
        with storage.open(name) as file:
            data = file.read()
    except Exception as error:
        if may_wait and not isinstance(error, FileNotFoundError):
            return []
        return [f"lost {name}: open() raised {type(error).__name__}: {error}"]
    if sha256(data) not in contents:
        return [f"wrong {name}: {data[:40]!r}"]
    if (size := storage.size(name)) != len(data):
        return [f"wrong {name}: size() is {size}, not {len(data)}"]
    return []


def _absent(world: World, key: Key, why: str, damaged: Collection[str], may_wait: bool = False) -> list[str]:
    alias, name = key
    storage = world.storage(alias)
    recorded = TransferRecord.objects.filter(storage=alias, name=name).exists()
    try:
        there = storage.exists(name)
    except Exception as error:
        # Of a name whose record is pruned only the remote can tell.
        return [] if may_wait and not recorded else [f"lies {name}: {why}, but exists() raised {error}"]
    if there:
        # What the remote made of the bytes is left alone as nobody's; once the record is pruned it can be seen.
        if damaged and not recorded and sha256(storage.open(name).read()) in damaged:
            return []
        return [f"lies {name}: {why}, but exists() is true"]
    try:
        data = storage.open(name).read()
    except FileNotFoundError:
        return []
    except Exception as error:
        return [f"lies {name}: {why}, but open() raised {type(error).__name__}: {error}"]
    return [f"lies {name}: {why}, but reads {data[:40]!r}"]


def look(world: World, promises: Promises) -> list[str]:
    """Compare rows with raw bytes: what must hold at every moment, also between two steps of a worker."""
    bad = _shared()
    rows = list(TransferRecord.objects.exclude(state=State.DELETED))
    digests = {(row.storage, row.name): parse_digests(row.digest).get("sha256", "") for row in rows}
    for key, contents in promises.kept.items():
        if digests.get(key) not in contents | {""} and not (key not in digests and contents <= promises.found):
            bad.append(f"lost {key}: the ledger has {digests.get(key, 'nothing')} of it")
    sides: dict[str, tuple[dict[str, bytes], dict[str, bytes]]] = {}
    for row in rows:
        if row.storage not in sides:
            sides[row.storage] = world.local_files(row.storage), world.remote_files(row.storage)
        bad += _copies(row, *sides[row.storage])
    return bad


def _shared() -> list[str]:
    bad = []
    rows = TransferRecord.objects.order_by("pk")
    for side in ("local_name", "remote_name"):
        owners = Counter(rows.values_list("storage", side))
        bad += [f"shared {side} {place[1]} by {count} records" for place, count in owners.items() if count > 1]
    return bad


def _copies(row: TransferRecord, local: dict[str, bytes], remote: dict[str, bytes]) -> list[str]:
    digest = parse_digests(row.digest).get("sha256")
    on_local, on_remote = local.get(row.local_name), remote.get(row.remote_name)
    if row.state == State.TRANSFERRED and (on_remote is None or sha256(on_remote) != digest):
        return [f"lies {row.name}: transferred, but the remote has {on_remote and on_remote[:40]!r}"]
    if digest is not None and digest not in {sha256(data) for data in (on_local, on_remote) if data is not None}:
        return [f"lost {row.name}: {row.state}, and neither side has its bytes"]
    if row.state != State.TRANSFERRED and digest is not None and on_local is None:
        return [f"lies {row.name}: {row.state}, and the local copy is gone"]
    return []


@dataclass
class Debris:
    """What a killed process may leave behind, counted."""

    local_orphans: int = 0
    unfinished_uploads: int = 0


def settled(world: World, promises: Promises, late: Collection[Key] = ()) -> tuple[list[str], Debris]:
    """Judge what stands at the end, when all sweeps are done: everything in its place and nothing besides.

    Objects that came ``late``, after the removal that their deleted record asked for, may wait for its pruning.
    """
    bad = [f"limbo {row.name}: {row.state}, due {row.due_at}: {row.error}" for row in owing()]
    rows = list(TransferRecord.objects.all())
    for row in rows:
        known = {key: contents for promised in (promises.kept, promises.doubtful) for key, contents in promised.items()}
        digest = parse_digests(row.digest).get("sha256", "")
        if row.state != State.DELETED and digest not in promises.unknown | known.get((row.storage, row.name), set()):
            bad.append(f"orphan record {row.name}: {row.state}, and nobody has asked for it")
        resting = row.state == State.DELAYED and row.storage == "held"
        if not resting and row.state not in (State.TRANSFERRED, State.DELETED):
            bad.append(f"limbo {row.name}: {row.state} ({row.error_kind}: {row.error})")
    debris = Debris(unfinished_uploads=world.unfinished())
    for alias in world.kinds:
        owned = [row for row in rows if row.storage == alias]
        bad += [f"leftover {alias} staging {name}" for name in world.staged(alias)]
        bad += _local_side(world.local_files(alias), owned, promises, debris)
        live = {row.remote_name for row in owned if row.state == State.TRANSFERRED}
        for name, data in world.remote_files(alias).items():
            if name not in live and (alias, name) not in late and sha256(data) not in promises.damaged:
                bad.append(f"orphan {alias} remote {name}")
    return bad, debris


def _local_side(files: dict[str, bytes], rows: list[TransferRecord], promises: Promises, debris: Debris) -> list[str]:
    bad = []
    copies = {row.local_name: row.local_copy for row in rows}
    for name, data in files.items():
        if copies.get(name) or (name not in copies and sha256(data) in promises.found):
            continue
        if sha256(data) in promises.unknown:
            debris.local_orphans += 1
        else:
            bad.append(f"{'leftover' if name in copies else 'orphan'} local {name}")
    return bad + [f"lies {name}: no local copy" for name, copy in copies.items() if copy and name not in files]
