"""What the package tells its users; receivers cannot disturb a transfer, their errors are logged."""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

logger = logging.getLogger("queued_storage")

#: A file is verified on the remote. Arguments: ``name``, ``local``, ``remote`` (storages), ``record``;
#: the sender is the class of the task.
file_transferred = Signal()
#: A record became ``failed``: a person is needed. Arguments: ``name``, ``record``, ``kind``, ``error``.
transfer_failed = Signal()
#: A record used up its retries and goes on at the pace of the sweep. Arguments as for ``transfer_failed``.
transfer_stalled = Signal()
#: The copies of a deleted record have been removed. Arguments: ``name``, ``record``.
file_deleted = Signal()
#: A file has been owed for longer than QUEUED_STORAGE_LATE_AFTER; told once, by the sweep. Arguments: ``name``,
#: ``record``.
transfer_late = Signal()
#: The remote no longer holds the right bytes of a transferred file. Arguments: ``name``, ``record``, ``kind``
#: (``missing`` or ``mismatch``) and ``requeued``: whether the local copy is on its way there again.
file_missing = Signal()
#: A storage owes as much as ``max_owed_files`` or ``max_owed_bytes`` allow, or nine tenths of that again; told once,
#: by a process that saves or by the sweep. Arguments: ``full`` (True or False), ``storage`` (its alias), ``files``,
#: ``bytes``; the sender is the class of the storage.
backlog_changed = Signal()


def tell(signal: Signal, sender: Any, **facts: Any) -> None:
    """Send ``signal`` to every receiver; an error in one is logged and keeps nobody from the message."""
    for receiver, response in signal.send_robust(sender=sender, **facts):
        if isinstance(response, Exception):
            logger.error("A signal receiver failed", exc_info=response, extra={"receiver": repr(receiver)})
