"""Remove copies that are no longer wanted: the local one of a transferred file, both of a deleted one."""

from __future__ import annotations

import contextlib
import logging
from datetime import timedelta

from queued_storage import backoff, copying, ledger, locations, nodes, signals
from queued_storage.conf import settings
from queued_storage.digests import Body, parse_digests
from queued_storage.exceptions import ErrorKind, MismatchError, TransferError
from queued_storage.models import State, TransferRecord
from queued_storage.names import escape
from queued_storage.pairs import StoragePair, pair_for
from queued_storage.redaction import describe, redact
from queued_storage.remotes.registry import sort_error

logger = logging.getLogger("queued_storage")


def _copy(record: TransferRecord, storage: StoragePair) -> copying.Copy:
    body = Body(record.size or 0, parse_digests(record.digest), record.content_type)
    return copying.Copy(
        storage.local, record.local_name, storage.remote, record.remote_name, body, storage.verification
    )


def evict(record: TransferRecord, storage: StoragePair, unread: bool = False) -> bool:
    """Remove the local copy of a record whose transfer is committed; False if that failed and is due again later.

    A failure never undoes the transfer. With ``unread`` the bytes are compared first: others than were saved are left.
    """
    try:
        if unread and _copy(record, storage).local_is_ours() is False:
            _leave_alone(record, record.local_name)
        else:
            storage.local.delete(record.local_name)
    except Exception as error:
        _postpone(record, storage, error)
        return False
    return ledger.evicted(record.pk)


def evict_due(record: TransferRecord) -> bool:
    """Remove the local copy if the storage's ``keep_local`` says so and the remote still holds the right bytes.

    If it does not, the local copy stays, the eviction is called off and the reason stands in the record.
    """
    storage = None
    try:
        storage = pair_for(record.storage)
        evict_after, chosen = storage.evict_after, storage.keep_bytes is not None
    except Exception as error:
        _postpone(record, storage, error)
        return False
    # Where bytes are limited the sweep has chosen this record; else the time says.
    if evict_after is None and not chosen:
        ledger.keep_for_good(record.pk)
        return False
    if evict_after is not None and not ledger.overdue(record.pk, evict_after):
        return False
    copy = _copy(record, storage)
    try:
        _check_node(record)
        copy.check()
        # An eviction that was cut short may have removed our bytes already, and another storage may share the folder.
        ours = copy.local_is_ours()
    except MismatchError as error:
        ledger.keep(record.pk, ErrorKind.MISMATCH, redact(error))
        logger.error("Kept the local copy: the remote differs", extra={"record_id": record.pk, "error": redact(error)})
        return False
    except Exception as error:
        _postpone(record, storage, error)
        return False
    if ours is False:
        _leave_alone(record, record.local_name)
        return ledger.evicted(record.pk)
    return evict(record, storage)


def remove(record: TransferRecord) -> bool:
    """Remove both copies of a deleted record, the remote one first, and prune the record when its time has come.

    False if that failed; it is due again later. The remote is asked again before the record is pruned: what a worker
    that was thought dead has sent after the first removal goes then.
    """
    storage = None
    try:
        storage = pair_for(record.storage)
        _remove_remote(record, storage)
        if record.local_copy:
            _remove_local(record, storage)
    except Exception as error:
        _postpone(record, storage, error)
        return False
    # Not in the same breath as the local removal: until then the row keeps its name, and so its place, from others.
    if not record.local_copy and ledger.prune(record.pk):
        return True
    if ledger.removed(record.pk):
        signals.tell(signals.file_deleted, TransferRecord, name=record.name, record=record)
    if record.key is not None:
        # Said once more: the cache may have been away when the file was deleted.
        locations.announce(storage, record)
    return True


def _remove_remote(record: TransferRecord, storage: StoragePair) -> None:
    copy = _copy(record, storage)
    # Never verified there, what lies under the name may be somebody else's.
    ours = copy.ours() if record.transferred_at is not None else copy.present()
    if ours:
        with contextlib.suppress(FileNotFoundError):
            storage.remote.delete(record.remote_name)
    elif ours is False:
        _leave_alone(record, record.remote_name)


def _check_node(record: TransferRecord) -> None:
    # Here the copy seems to be gone; its own host has it, and must not be told so.
    if nodes.is_elsewhere(record.node):
        raise TransferError(f"the local copy lies on the disk of {record.node}", ErrorKind.ELSEWHERE)


def _remove_local(record: TransferRecord, storage: StoragePair) -> None:
    _check_node(record)
    ours = _copy(record, storage).local_is_ours()
    if ours:
        storage.local.delete(record.local_name)
    elif ours is False:
        _leave_alone(record, record.local_name)


def _leave_alone(record: TransferRecord, place: str) -> None:
    facts = {"record_id": record.pk, "storage": record.storage, "place": escape(place)}
    logger.warning("Left a file alone whose bytes are not those of this record", extra=facts)


def _postpone(record: TransferRecord, storage: StoragePair | None, error: Exception) -> None:
    options = (storage.local_options, storage.remote_options) if storage else ()
    text = describe(error, *options)
    delay: timedelta = max(backoff.retry_delay(record.retries + 1), settings.QUEUED_STORAGE_RESEND_DELAY)
    ledger.postpone(record.pk, sort_error(error), text, delay)
    logger.warning("Removal to be retried", extra={"record_id": record.pk, "state": State(record.state), "error": text})
