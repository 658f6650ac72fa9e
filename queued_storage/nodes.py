"""Hosts that do not share a disk: on which of them a local copy lies, and which queue leads there."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta

from queued_storage.conf import settings
from queued_storage.exceptions import ErrorKind
from queued_storage.models import TransferRecord
from queued_storage.pairs import StoragePair

#: What stands for the host in the name of a queue, or in QUEUED_STORAGE_NODE_URL.
PLACEHOLDER = "{node}"


def worker_name() -> str:
    """Return the name under which this process claims records."""
    return f"{socket.gethostname()[:200]}:{os.getpid()}"


def is_elsewhere(node: str) -> bool:
    """Tell whether ``node``, as a record has it, is another host than this one."""
    return bool(node) and node != settings.QUEUED_STORAGE_NODE


def waits_in_vain(record: TransferRecord, now: datetime | None) -> bool:
    """Tell whether a deleted file has waited for its host so long that another one is to remove the remote copy.

    The host may be gone for good. ``now`` is of the database's clock; once the remote copy is gone, the local one waits
    for its host again.
    """
    if now is None or record.deleted_at is None or record.error_kind == ErrorKind.ELSEWHERE:
        return False
    waited: timedelta = now - record.deleted_at
    return waited > settings.QUEUED_STORAGE_RESEND_CAP


def home(record: TransferRecord) -> str:
    """Return the host that is to do what is owed on ``record``: this one will do where no local copy is left."""
    # Those that the sweep has taken bring the time along.
    if record.local_copy and record.node and not waits_in_vain(record, getattr(record, "age", None)):
        return record.node
    return settings.QUEUED_STORAGE_NODE or record.node


def queue_pattern(storage: StoragePair) -> str | None:
    """Return the queue of a storage's messages as it is configured; ``None`` leaves it to Celery."""
    return storage.queue or settings.QUEUED_STORAGE_QUEUE


def queue_at(storage: StoragePair, node: str) -> str | None:
    """Return the queue of a storage's messages for the host ``node``; ``None`` leaves it to Celery."""
    pattern = queue_pattern(storage)
    return pattern and pattern.replace(PLACEHOLDER, node)


def queue_of(storage: StoragePair, record: TransferRecord) -> str | None:
    """Return the queue of a record's messages: of the host that has the file, where the name of the queue says so."""
    return queue_at(storage, home(record))
