"""Take files that have no record into the ledger, in batches, each of which is there whole or not at all.

Interrupted or killed, another run goes on: what is in the ledger already is left out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.core.exceptions import SuspiciousFileOperation
from django.db.models import F, Q

from queued_storage import access, copying, examining, ledger
from queued_storage.conf import settings
from queued_storage.digests import Body, format_digests
from queued_storage.models import Side, State, TransferRecord
from queued_storage.names import clean_name, logical_name, record_key
from queued_storage.pairs import StoragePair
from queued_storage.redaction import describe
from queued_storage.remotes.registry import adapter_for
from queued_storage.results import Item, item
from queued_storage.walking import Entry, walk

logger = logging.getLogger("queued_storage")

ADOPTED, KNOWN, YOUNG, BOTH, REFUSED, UNKNOWN = "adopted", "known", "young", "both", "refused", "unknown"
# Files in one transaction.
BATCH = 1000
# A file touched later may belong to a save whose record is not committed yet.
YOUNGEST = timedelta(minutes=10)


@dataclass(frozen=True)
class Wish:
    """What is to be adopted, and as what.

    From the local side files become queued, or ``held``; their bytes are measured when they are transferred. From the
    remote they become transferred, known by size and, with ``deep``, by the digest of their bytes, which are read.
    Files touched within ``older_than`` are left for another run. ``dry`` adopts nothing.
    """

    side: Side
    prefix: str = ""
    held: bool = False
    deep: bool = False
    older_than: timedelta = YOUNGEST
    limit: int | None = None
    rate: float | None = None
    dry: bool = False


def adopt(storage: StoragePair, wish: Wish) -> Generator[Item]:
    """Make records for the files of one side that have none, and yield what became of each file."""
    side = storage.local if wish.side == Side.LOCAL else storage.remote
    entries = examining.throttled(walk(side, wish.prefix), wish.rate)
    known = Known(storage.alias, wish.side)
    left = wish.limit
    while left is None or left > 0:
        batch = list(islice(entries, BATCH))
        if not batch:
            return
        for each in take(storage, wish, known, batch, left):
            left = left - 1 if left is not None and each.changed else left
            yield each


def take(storage: StoragePair, wish: Wish, known: Known, batch: list[Entry], left: int | None = None) -> list[Item]:
    """Adopt these files, ``left`` of them at most, in one transaction, and return what became of each."""
    items: list[Item] = []
    usable: list[Entry] = []
    newest = time.time() - wish.older_than.total_seconds()
    for entry in batch:
        if reason := refusal(entry.name):
            items.append(_item(storage, entry, REFUSED, reason=reason))
        elif entry.touched is not None and entry.touched > newest:
            items.append(_item(storage, entry, YOUNG))
        else:
            usable.append(entry)
    taken = known.among(usable)
    items += [_item(storage, entry, KNOWN) for entry in usable if entry.name in taken]
    found = [entry for entry in usable if entry.name not in taken]
    moment, new = access.now(), []
    shared = _shared(storage, wish, moment)
    for entry in found[:left]:
        record = _record(storage, wish, entry, shared)
        if isinstance(record, Item):
            items.append(record)
        else:
            new.append(record)
    return items + _insert(storage, new, moment, wish.dry)


def _insert(storage: StoragePair, new: list[TransferRecord], moment: datetime, dry: bool) -> list[Item]:
    inserted = new if dry or not new else ledger.insert_many(new, moment)
    if inserted and not dry:
        logger.info("Adopted", extra={"storage": storage.alias, "files": len(inserted)})
    keys = {record.key for record in inserted}
    outcomes = [(record, record.key in keys) for record in new]
    return [item(record, ADOPTED if done else KNOWN, done) for record, done in outcomes]


def _record(storage: StoragePair, wish: Wish, entry: Entry, shared: dict[str, Any]) -> TransferRecord | Item:
    body: Body | None = None
    if wish.side == Side.REMOTE:
        try:
            found = _ask(storage, wish, entry)
        except Exception as error:
            reason = describe(error, storage.local_options, storage.remote_options)
            return _item(storage, entry, UNKNOWN, reason=reason)
        if isinstance(found, Item):
            return found
        body = found
    names = {"name": entry.name, "local_name": entry.name, "remote_name": entry.name}
    return TransferRecord(
        **shared,
        **names,
        key=record_key(storage.alias, entry.name),
        size=body.size if body is not None else entry.size,
        digest=format_digests(body.digests) if body is not None else "",
        content_type=copying.content_type_of(None, entry.name),
    )


def _shared(storage: StoragePair, wish: Wish, moment: datetime) -> dict[str, Any]:
    if wish.side == Side.REMOTE:
        known = {"storage": storage.alias, "state": State.TRANSFERRED}
        return {**known, "transferred_at": moment, "local_copy": False}
    facts = {"storage": storage.alias, "node": settings.QUEUED_STORAGE_NODE}
    if wish.held:
        return {**facts, "state": State.DELAYED}
    # The sweep sends its message; a million of them at once would help nobody.
    return {**facts, "state": State.QUEUED, "due_at": moment}


def _ask(storage: StoragePair, wish: Wish, entry: Entry) -> Body | Item:
    if storage.local.exists(entry.name):
        return _item(storage, entry, BOTH, reason="it lies on both sides: adopt it --from local, which compares them")
    if wish.deep:
        return copying.measure(storage.remote, entry.name)
    if entry.size is not None:
        return Body(entry.size)
    stat = adapter_for(storage.remote).stat(storage.remote, entry.name)
    if stat is None or stat.size is None:
        return _item(storage, entry, UNKNOWN, reason="the remote does not tell its size: adopt it with --deep")
    return Body(stat.size, stat.digests)


class Known:
    """Which places of a side the ledger knows of."""

    def __init__(self, alias: str, side: Side) -> None:
        self.alias = alias
        self.place = "local_name" if side == Side.LOCAL else "remote_name"
        # Those that no key leads to: under another name, or of a superseded record.
        others = ledger.records().filter(~Q(**{self.place: F("name")}) | Q(key__isnull=True), storage=alias)
        self.places = set(others.values_list(self.place, flat=True).iterator())

    def among(self, entries: Iterable[Entry]) -> dict[str, bool]:
        """Return the names of those of ``entries`` that the ledger knows, and whether the place is a record's own.

        It is not where the name, or the name that it is a generation of, is that of a record which lies elsewhere.
        """
        keys: dict[Any, list[str]] = {}
        for entry in entries:
            keys.setdefault(record_key(self.alias, entry.name), []).append(entry.name)
            # The place of a later generation: of a file that was saved, or is being saved, meanwhile.
            if (logical := logical_name(entry.name)) is not None:
                keys.setdefault(record_key(self.alias, logical[0]), []).append(entry.name)
        rows = ledger.records().filter(key__in=list(keys))
        known = {entry.name: True for entry in entries if entry.name in self.places}
        for key, place in ledger.persist(lambda: list(rows.values_list("key", self.place))):
            for name in keys[key]:
                known[name] = known.get(name, False) or place == name
        return known


def refusal(name: str) -> str:
    """Return why a name cannot be adopted, or nothing."""
    try:
        return "" if clean_name(name) == name else "it has another spelling, which is another file"
    except SuspiciousFileOperation as error:
        return str(error)


def _item(storage: StoragePair, entry: Entry, outcome: str, reason: str = "") -> Item:
    return Item(storage.alias, entry.name, outcome, False, reason, entry.size or 0)
