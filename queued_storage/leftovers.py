"""Once an hour: remove what uploads of killed workers have left on the remotes, where their storages can tell.

Parts of an upload that never ended are seen by nobody and paid for by somebody.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial

from queued_storage import health, heartbeat, ledger
from queued_storage.models import State
from queued_storage.names import logical_name, record_key
from queued_storage.pairs import StoragePair, configured
from queued_storage.redaction import describe
from queued_storage.remotes.registry import leftovers_of

logger = logging.getLogger("queued_storage")

#: No upload takes as long, and one that does is spared while a worker holds its file.
AGE = timedelta(days=1)
LIMIT = 100


def remove(before: datetime | None, now: datetime) -> int:
    """Remove leftovers that are older than a day, 100 of each storage at most; return how many.

    Done by the first sweep of each hour, which began at ``now``, the one before it at ``before``. Never raises: what a
    remote refuses or cannot answer is logged, and left for the next hour.
    """
    if not heartbeat.is_new_hour(before, now):
        return 0
    waiting: list[str] | None = None
    count = 0
    for pair in configured():
        try:
            if leftovers_of(pair.remote) is None:
                continue
            waiting = health.down() if waiting is None else waiting
            if pair.alias not in waiting:
                count += _remove(pair)
        except Exception as error:
            text = describe(error, pair.local_options, pair.remote_options)
            logger.warning("Leftovers of uploads stay", extra={"storage": pair.alias, "error": text})
    return count


def _remove(pair: StoragePair) -> int:
    remove_leftovers = leftovers_of(pair.remote)
    assert remove_leftovers is not None
    count = remove_leftovers(AGE, LIMIT, partial(_ours, pair.alias))
    if count:
        logger.info("Leftovers of uploads removed", extra={"storage": pair.alias, "leftovers": count})
    return count


def _ours(alias: str, names: Collection[str]) -> set[str]:
    # Others may upload to the same bucket; and a worker may be at it still.
    keys = {name: {record_key(alias, each) for each in _names(name)} for name in names}
    rows = ledger.records().filter(key__in=set().union(*keys.values())).values_list("key", "state")
    states = dict(ledger.persist(lambda: list(rows)))
    found = {name: {states[key] for key in known if key in states} for name, known in keys.items()}
    return {name for name, each in found.items() if each and State.TRANSFERRING not in each}


def _names(place: str) -> list[str]:
    logical = logical_name(place)
    return [place] if logical is None else [place, logical[0]]
