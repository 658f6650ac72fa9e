"""For the tests of projects that use queued_storage; nothing in the package itself imports it.

``FaultyStorage`` and ``FaultyRemoteStorage`` misbehave on request; ``store()`` is where they are told to.
``run_owed()`` does what workers would do; ``capture_transfers()`` tells what was queued; ``check_pair()`` tries a pair
of storages.
"""

from __future__ import annotations

from queued_storage.testing.conformance import (
    ConformanceError,
    LocalConformanceError,
    PairConformanceError,
    RemoteConformanceError,
    check_pair,
)
from queued_storage.testing.faulty import FaultyRemoteStorage, FaultyStorage
from queued_storage.testing.owed import capture_transfers, run_owed
from queued_storage.testing.stores import Fault, FaultNotHitError, Store, store

__all__ = [
    "ConformanceError",
    "Fault",
    "FaultNotHitError",
    "FaultyRemoteStorage",
    "FaultyStorage",
    "LocalConformanceError",
    "PairConformanceError",
    "RemoteConformanceError",
    "Store",
    "capture_transfers",
    "check_pair",
    "run_owed",
    "store",
]
