"""Ledger rows in any state, written past the ledger: for tests that begin in the middle of a story."""

from __future__ import annotations

import hashlib
import uuid
import zlib
from datetime import timedelta
from typing import Any

import factory
from django.db import connection
from django.utils import timezone

from queued_storage.models import Outcome, State, TransferAttempt, TransferRecord
from queued_storage.names import record_key

BODY = b"the bytes of a file"
# Fields that the database fills.
GENERATED = {"id", "location"}


def digest_of(content: bytes) -> str:
    """Return the digests of ``content`` as the ledger writes them."""
    return f"sha256:{hashlib.sha256(content).hexdigest()} crc32:{zlib.crc32(content):08x}"


class RecordFactory(factory.django.DjangoModelFactory):  # type: ignore[misc]
    """A record of the default storage, by default one that was just saved; its traits are the other states.

    No file belongs to it. ``due`` is a timedelta from now and ``age`` one back from now.
    """

    class Meta:
        model = TransferRecord

    class Params:
        due = timedelta(seconds=60)
        age = timedelta(0)
        delayed = factory.Trait(state=State.DELAYED, due_at=None)
        transferring = factory.Trait(
            state=State.TRANSFERRING, lease=factory.LazyFunction(uuid.uuid4), worker="host:1", retries=1
        )
        transferred = factory.Trait(
            state=State.TRANSFERRED, due_at=None, transferred_at=factory.LazyFunction(timezone.now)
        )
        evicted = factory.Trait(transferred=True, local_copy=False)
        failed = factory.Trait(
            state=State.FAILED, due_at=None, retries=1, error_kind="refused", error="EntityTooLarge: too large"
        )
        deleted = factory.Trait(state=State.DELETED, deleted_at=factory.LazyFunction(timezone.now))

    storage = "default"
    name = factory.Sequence(lambda number: f"documents/{number}.txt")
    key = factory.LazyAttribute(lambda record: record_key(record.storage, record.name))
    state = State.QUEUED
    local_name = factory.SelfAttribute("name")
    remote_name = factory.SelfAttribute("name")
    size = len(BODY)
    digest = digest_of(BODY)
    content_type = "text/plain"
    due_at = factory.LazyAttribute(lambda record: record.created_at + record.age + record.due)
    created_at = factory.LazyAttribute(lambda record: timezone.now() - record.age)
    updated_at = factory.SelfAttribute("created_at")

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> Any:
        record = super()._create(model_class, *args, **kwargs)
        # What the database generates is read back.
        record.refresh_from_db()
        return record


def make_records(count: int, **traits: Any) -> None:
    """Write ``count`` records of one shape at once, named by their numbers, and have the database count them.

    It commits on MariaDB.
    """
    model = RecordFactory.build(**traits)
    shared = {field.name: getattr(model, field.name) for field in model._meta.fields if field.name not in GENERATED}
    names = [f"{number}.txt" for number in range(count)]
    TransferRecord.objects.bulk_create(
        TransferRecord(**shared | {"name": name, "key": record_key("default", name)}) for name in names
    )
    table = " TABLE queued_storage_transferrecord" if connection.vendor == "mysql" else ""
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE{table}")


class AttemptFactory(factory.django.DjangoModelFactory):  # type: ignore[misc]
    """An ended attempt, by default a successful one of a second."""

    class Meta:
        model = TransferAttempt

    record = factory.SubFactory(RecordFactory, transferred=True)
    finished_at = factory.LazyFunction(timezone.now)
    started_at = factory.LazyAttribute(lambda attempt: attempt.finished_at - timedelta(seconds=1))
    worker = "host:1"
    outcome = Outcome.TRANSFERRED
    bytes = len(BODY)
