"""Compare local side, remote and ledger, and say what to do about each difference; do the safe part when told to.

Safe is what deletes no byte and writes over none: notes in the ledger, and transfers that look before they send.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from itertools import islice

from queued_storage import adopting, copying, examining, ledger, selecting, verifying
from queued_storage.adopting import Known, Wish
from queued_storage.digests import Body
from queued_storage.examining import Found, Look
from queued_storage.exceptions import ErrorKind
from queued_storage.models import Side, State, TransferRecord
from queued_storage.pairs import StoragePair
from queued_storage.redaction import describe
from queued_storage.remotes.registry import adapter_for
from queued_storage.walking import Entry, walk

NO_RECORD, EVICTED = "none", "evicted"
OWED = (State.DELAYED, State.QUEUED, State.TRANSFERRING)


class Action(str, Enum):
    """What a difference calls for."""

    NONE = "none"
    #: Make a queued record; its transfer finds out what lies on the remote.
    ADOPT = "adopt"
    #: Make a transferred record.
    ADOPT_REMOTE = "adopt-remote"
    #: Queue the record: its transfer finds the right bytes on the remote.
    QUEUE = "queue"
    #: Queue the record: the remote lost or altered its bytes, the local copy has them.
    SEND_AGAIN = "send-again"
    #: Note that there is a local copy, or that there is none.
    NOTE_LOCAL = "note-local"
    FORGET_LOCAL = "forget-local"
    #: For a person: the right bytes lie on one side, others on the other.
    CONFLICT = "conflict"
    #: For a person: the right bytes lie on neither side.
    LOST = "lost"
    #: For a person: bytes that belong to no record, under a name that is in use or cannot be used.
    ORPHAN = "orphan"
    #: No answer; another run will tell.
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


SAFE = (
    Action.ADOPT,
    Action.ADOPT_REMOTE,
    Action.QUEUE,
    Action.SEND_AGAIN,
    Action.NOTE_LOCAL,
    Action.FORGET_LOCAL,
)


@dataclass(frozen=True)
class Row:
    """One file as the three sides have it, and what to do; ``applied`` once that was done."""

    storage: str
    name: str
    ledger: str
    local: Found
    remote: Found
    action: Action
    reason: str = ""
    applied: bool = False


def decide(state: str, local: Found, remote: Found) -> Action:
    """Return what to do about a record in ``state`` (or ``evicted``, or ``none``), by what lies on each side.

    Without a record, what lies there alone is ``same``, and of two the remote one is ``same`` or ``different``.
    """
    if state == NO_RECORD:
        return _decide_unrecorded(local, remote)
    if state == State.DELETED:
        # Its copies are being removed; other bytes are left to whoever put them there.
        return Action.NONE
    if state in (State.TRANSFERRED, EVICTED):
        return _decide_transferred(state, local, remote)
    if local == Found.SAME:
        return Action.NONE
    if remote == Found.SAME:
        return Action.QUEUE if state in (State.DELAYED, State.FAILED) else Action.NONE
    return Action.UNKNOWN if Found.UNKNOWN in (local, remote) else Action.LOST


def _decide_unrecorded(local: Found, remote: Found) -> Action:
    if Found.UNKNOWN in (local, remote):
        return Action.UNKNOWN
    if local == Found.ABSENT:
        return Action.ADOPT_REMOTE
    return Action.CONFLICT if remote == Found.DIFFERENT else Action.ADOPT


def _decide_transferred(state: str, local: Found, remote: Found) -> Action:
    if remote == Found.UNKNOWN:
        return Action.UNKNOWN
    if remote != Found.SAME:
        return {Found.SAME: Action.SEND_AGAIN, Found.UNKNOWN: Action.UNKNOWN}.get(local, Action.LOST)
    if local == Found.DIFFERENT:
        return Action.CONFLICT
    if local == Found.ABSENT:
        return Action.FORGET_LOCAL if state == State.TRANSFERRED else Action.NONE
    return Action.NOTE_LOCAL if state == EVICTED and local == Found.SAME else Action.NONE


@dataclass(frozen=True)
class Scope:
    """What is compared: names that begin with ``prefix``, with ``deep`` by their bytes.

    At most ``rate`` a second, and of records ``threads`` at a time. Files without a record that were touched within
    ``older_than`` are left out: they may belong to a save. With ``apply`` the safe part is carried out.
    """

    prefix: str = ""
    deep: bool = False
    rate: float | None = None
    older_than: timedelta = adopting.YOUNGEST
    apply: bool = False
    threads: int = 1


def reconcile(storage: StoragePair, scope: Scope) -> Iterator[Row]:
    """Yield a row for every record of ``storage``, then for every file without one, carried out with ``apply``."""
    rows = selecting.select(ledger.records(), storage.alias, prefix=scope.prefix)
    records = (record for page in selecting.pages(rows) for record in page)
    throttled = examining.throttled(records, scope.rate)
    for record, row in examining.side_by_side(lambda each: look(storage, each, scope.deep), throttled, scope.threads):
        yield _applied(row, _apply(storage, record, row)) if scope.apply and row.action in SAFE else row
    for side in (Side.LOCAL, Side.REMOTE):
        yield from _unrecorded(storage, side, scope)


def look(storage: StoragePair, record: TransferRecord, deep: bool = False) -> Row:
    """Compare the three sides of one record."""
    local, remote = examining.look_locally(record, storage, deep), examining.look_remotely(record, storage, deep)
    state = EVICTED if record.state == State.TRANSFERRED and not record.local_copy else str(record.state)
    action = decide(state, local.found, remote.found)
    reason = "; ".join(each.reason for each in (local, remote) if each.reason) if action != Action.NONE else ""
    return Row(storage.alias, record.name, state, local.found, remote.found, action, reason)


def _applied(row: Row, done: bool) -> Row:
    return replace(row, applied=done)


def _apply(storage: StoragePair, record: TransferRecord, row: Row) -> bool:
    """Carry out a row; False if it is no longer so, or a closer look tells otherwise: nothing is changed then."""
    if row.action == Action.QUEUE:
        if record.state == State.DELAYED:
            return ledger.release(record.pk, at_once=True)
        return ledger.requeue(ledger.records().filter(pk=record.pk, state=State.FAILED)) > 0
    local = examining.look_locally(record, storage, deep=True).found
    if row.action == Action.FORGET_LOCAL:
        return local == Found.ABSENT and ledger.evicted(record.pk)
    if local != Found.SAME or not record.digest:
        return False
    if not record.local_copy:
        if not ledger.restored(record.pk):
            return False
        record.local_copy = True
    if row.action == Action.NOTE_LOCAL:
        return True
    kind = ErrorKind.MISSING if row.remote == Found.ABSENT else ErrorKind.MISMATCH
    return verifying.send_again(record, storage, kind, row.reason)


def _unrecorded(storage: StoragePair, side: Side, scope: Scope) -> Iterator[Row]:
    known = Known(storage.alias, side)
    newest = time.time() - scope.older_than.total_seconds()
    entries = walk(storage.local if side == Side.LOCAL else storage.remote, scope.prefix)
    throttled = examining.throttled(entries, scope.rate)
    while batch := list(islice(throttled, adopting.BATCH)):
        taken = known.among([entry for entry in batch if not adopting.refusal(entry.name)])
        old = [entry for entry in batch if entry.touched is None or entry.touched <= newest]
        strange = [entry for entry in old if not taken.get(entry.name)]
        rows = {
            entry.name: row
            for entry in strange
            if (row := _look_at_entry(storage, side, entry, entry.name in taken, scope.deep)) is not None
        }
        if scope.apply:
            safe = [entry for entry in strange if entry.name in rows and rows[entry.name].action in SAFE]
            wish = Wish(side, deep=scope.deep, older_than=timedelta(0))
            done = {each.name for each in adopting.take(storage, wish, known, safe) if each.changed}
            rows = {name: replace(row, applied=name in done) for name, row in rows.items()}
        yield from rows.values()


def _look_at_entry(storage: StoragePair, side: Side, entry: Entry, taken: bool, deep: bool) -> Row | None:
    here = (Found.SAME, Found.ABSENT) if side == Side.LOCAL else (Found.ABSENT, Found.SAME)
    refusal = adopting.refusal(entry.name)
    if taken or refusal:
        reason = refusal or "a record of this name lies elsewhere"
        return Row(storage.alias, entry.name, NO_RECORD, *here, Action.ORPHAN, reason)
    try:
        other = _other_side(storage, side, entry, deep)
    except Exception as error:
        other = Look(Found.UNKNOWN, describe(error, storage.local_options, storage.remote_options))
    if side == Side.REMOTE and other.found == Found.SAME:
        # The walk through the local side has told of it.
        return None
    local, remote = (Found.SAME, other.found) if side == Side.LOCAL else (other.found, Found.SAME)
    return Row(storage.alias, entry.name, NO_RECORD, local, remote, decide(NO_RECORD, local, remote), other.reason)


def _other_side(storage: StoragePair, side: Side, entry: Entry, deep: bool) -> Look:
    if side == Side.REMOTE:
        return Look(Found.SAME if storage.local.exists(entry.name) else Found.ABSENT)
    stat = adapter_for(storage.remote).stat(storage.remote, entry.name)
    if stat is None:
        return Look(Found.ABSENT)
    if None not in (stat.size, entry.size) and stat.size != entry.size:
        return Look(Found.DIFFERENT, f"{entry.size} bytes lie locally and {stat.size} on the remote")
    vouched = stat.digests.keys() & set(examining.COMPARED)
    mine = copying.measure(storage.local, entry.name, "md5") if deep or vouched else Body(0)
    its = copying.measure(storage.remote, entry.name) if deep else stat
    common = mine.digests.keys() & its.digests.keys()
    same = all(mine.digests[name] == its.digests[name] for name in common)
    return Look(Found.SAME) if same else Look(Found.DIFFERENT, "other bytes lie on the remote")
