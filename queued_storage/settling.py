"""What becomes of a claimed record after an error: it is tried again, or has failed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from django.dispatch import Signal

from queued_storage import backoff, ledger, signals
from queued_storage.conf import settings
from queued_storage.exceptions import ErrorKind
from queued_storage.models import Outcome, TransferRecord
from queued_storage.names import escape

logger = logging.getLogger("queued_storage")

# Ends an attempt at once, however many retries are left.
FATAL = {ErrorKind.MISSING, ErrorKind.REFUSED}
# Ends it after QUEUED_STORAGE_STRIKES in a row.
STRIKING = {ErrorKind.MISMATCH, ErrorKind.LOST}
# Waits without counting.
UNCOUNTED = {ErrorKind.THROTTLED, ErrorKind.ELSEWHERE}


@dataclass(frozen=True)
class Settled:
    """How an attempt has ended, and the signal that is to tell of it, if any."""

    record: TransferRecord
    kind: ErrorKind
    error: str
    outcome: Outcome
    signal: Signal | None = None

    def tell(self) -> None:
        """Send the signal; what its receivers do may take long."""
        if self.signal is not None:
            record = self.record
            signals.tell(self.signal, TransferRecord, name=record.name, record=record, kind=self.kind, error=self.error)


def log_facts(record: TransferRecord, **more: Any) -> dict[str, Any]:
    """Return the facts that every log line about a record carries."""
    facts = {"record_id": record.pk, "storage": record.storage, "file": escape(record.name)}
    return {**facts, "state": record.state, "retries": record.retries, **more}


def settle(record: TransferRecord, kind: ErrorKind, error: str, size: int = 0) -> Outcome:
    """Decide what becomes of a claimed record after an error: tried again, or failed. Writes, logs and tells."""
    settled = write(record, kind, error, size)
    settled.tell()
    return settled.outcome


def write(record: TransferRecord, kind: ErrorKind, error: str, size: int = 0) -> Settled:
    """Do what ``settle`` does but for the telling."""
    strikes = ledger.strikes(record, kind) + 1 if kind in STRIKING else 0
    signal: Signal | None = None
    if kind in FATAL or strikes >= settings.QUEUED_STORAGE_STRIKES:
        if not ledger.fail(record, kind, error):
            return Settled(record, kind, error, Outcome.LOST)
        signal, outcome = signals.transfer_failed, Outcome.FAILED
        logger.error("Failed: a person is needed", extra=log_facts(record, kind=str(kind.value), error=error))
    else:
        counted = kind not in UNCOUNTED
        # Both times are of the database's clock; the record was last updated when it was claimed.
        age = record.updated_at - record.created_at
        delay = backoff.retry_delay(record.retries) if counted else backoff.resend_delay(age)
        if not ledger.retry(record, kind, error, delay, counted):
            return Settled(record, kind, error, Outcome.LOST)
        if counted and backoff.stalled(record.retries) and not backoff.stalled(record.retries - 1):
            signal = signals.transfer_stalled
        outcome = Outcome.RETRY
        logger.warning("To be retried", extra=log_facts(record, kind=str(kind.value), error=error))
    ended_as = Outcome.LOST if kind == ErrorKind.LOST else outcome
    ledger.log_attempt(record, ended_as, kind, error, size)
    return Settled(record, kind, error, outcome, signal)
