"""Tasks and receivers of a project."""

from __future__ import annotations

import logging
from typing import Any, assert_type

from django.core.files.storage import Storage
from django.dispatch import receiver

from queued_storage import operations
from queued_storage.models import TransferRecord
from queued_storage.results import Result
from queued_storage.signals import file_transferred, transfer_failed
from queued_storage.tasks import Transfer, TransferAndDelete

logger = logging.getLogger(__name__)


class TransferAndNotify(TransferAndDelete):
    """Tells somebody."""

    def transfer(self, name: str, local: Storage, remote: Storage, **kwargs: Any) -> bool:
        """Transfer, then tell."""
        arrived = super().transfer(name, local, remote, **kwargs)
        assert_type(arrived, bool)
        if arrived:
            logger.info("%s has arrived", name)
        return arrived


class Patient(Transfer):
    """Has attributes of its own."""

    name = "project.patient"
    keep_local = True
    rate_limit = "10/s"


@receiver(file_transferred)
def arrived(sender: type[Transfer], name: str, local: Storage, remote: Storage, **kwargs: Any) -> None:
    """Take the record out of the other arguments, or name it."""
    record: TransferRecord = kwargs["record"]
    logger.info("%s is on %s after %d retries", name, type(remote).__name__, record.retries)


@receiver(transfer_failed)
def failed(name: str, record: TransferRecord, kind: str, error: str, **kwargs: Any) -> None:
    """Try what the remote refused once more."""
    if kind == "refused":
        again = operations.retry(TransferRecord.objects.filter(pk=record.pk), limit=1)
        assert_type(again, Result)
        assert_type(again.changed, int)
