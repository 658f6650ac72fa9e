"""Verify, evict and restore within one request: the work of the commands, on so few files that somebody can wait.

Somebody waits, and so does a process of the web server. What is left over is counted, and is for the command.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator

from django.db.models import Count, Q

from queued_storage import asking, evicting, examining, ledger, restoring, verifying
from queued_storage.models import State, TransferRecord
from queued_storage.operations import Rows
from queued_storage.pairs import pair_for
from queued_storage.results import Item, Result

# Files, the bytes of one of them, and the time after which none is begun.
FILES, LARGEST, SECONDS = 100, 100 * 2**20, 20.0
# How long a remote has to show that it answers at all, in seconds.
PATIENCE = 5.0
LEFT, SILENT = "left", "silent"

Work = Callable[[Rows, int], Generator[Item]]
#: What is verified, evicted and restored.
VERIFIABLE = Q(state=State.TRANSFERRED)
EVICTABLE = Q(state=State.TRANSFERRED, local_copy=True)
RESTORABLE = Q(state=State.TRANSFERRED, local_copy=False)


def verify(rows: Rows, limit: int | None = None) -> Result:
    """Look at the remote copies of the first few of ``rows``; see ``verifying.verify``."""
    return _handful(verifying.verify, rows, VERIFIABLE, verifying.UNKNOWN)


def evict(rows: Rows, limit: int | None = None) -> Result:
    """Remove the local copies of the first few of ``rows``, never an unverified one; see ``evicting.evict``."""
    return _handful(evicting.evict, rows, EVICTABLE, evicting.ABSENT)


def restore(rows: Rows, limit: int | None = None) -> Result:
    """Copy the first few of ``rows`` back to the local side; see ``restoring.restore``."""
    return _handful(restoring.restore, rows, RESTORABLE, restoring.PRESENT)


def _handful(work: Work, rows: Rows, able: Q, otherwise: str) -> Result:
    result, total = Result(), 0
    for group in rows.order_by().values("state").annotate(files=Count("pk"), able=Count("pk", filter=able)):
        total += group["able"]
        if others := group["files"] - group["able"]:
            result.unchanged[otherwise if group["state"] == State.TRANSFERRED else group["state"]] += others
    small = rows.filter(able).filter(Q(size__lte=LARGEST) | Q(size__isnull=True)).order_by("pk")
    answering, silent = _by_answer(list(small[:FILES]))
    result.unchanged[SILENT] += len(silent)
    until, looked = time.monotonic() + SECONDS, 0
    items = work(ledger.records().filter(pk__in=[record.pk for record in answering]), FILES)
    for item in items:
        result.add(item)
        looked += 1
        if time.monotonic() > until:
            break
    items.close()
    result.unchanged[LEFT] += max(total - looked - len(silent), 0)
    result.unchanged = +result.unchanged
    return result


def _by_answer(records: list[TransferRecord]) -> tuple[list[TransferRecord], list[TransferRecord]]:
    """Part the records of remotes that answer, be it with an error, from those of remotes that hang."""
    by_storage: dict[str, list[TransferRecord]] = defaultdict(list)
    for record in records:
        by_storage[record.storage].append(record)
    answers = asking.ask(PATIENCE, *(_question(each[0]) for each in by_storage.values()))
    parts: tuple[list[TransferRecord], list[TransferRecord]] = [], []
    for each, answer in zip(by_storage.values(), answers, strict=True):
        parts[answer is None].extend(each)
    return parts


def _question(record: TransferRecord) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            examining.look_remotely(record, pair_for(record.storage))
        except Exception:
            # The work itself meets it, and says what it is.
            return True
        return True

    return ask
