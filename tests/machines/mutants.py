"""The protocol in a wrong order: what a kill in between must then show. Each is put into the killed process alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from django.core.files.base import ContentFile

from queued_storage import copying, ledger, removal, saving, transfers
from queued_storage.models import State, TransferRecord
from queued_storage.names import record_key


@dataclass(frozen=True)
class Mutant:
    """A wrong order, the flow in which it is tried, and the first word of what the judges must say."""

    name: str
    flow: str
    says: str
    apply: Callable[[], None]


def _row_before_bytes() -> None:
    def save(storage: Any, name: str, content: Any, *arguments: Any, **options: Any) -> str:
        data = b"".join(content.chunks())
        hasher = copying.Hasher()
        hasher.update(data)
        body = copying.Body(hasher.size, hasher.digests)
        ledger.insert(saving.new_record(storage, name, name, body))
        copying.save_locally(storage.local, name, content)
        return name

    saving.save = save


def _local_copy_goes_first() -> None:
    def early(self: copying.Copy) -> copying.Copy:
        with self.local.open(self.local_name) as file:
            content = ContentFile(file.read())
        self.local.delete(self.local_name)
        source = copying.SourceFile(content, self.remote_name, self.body, self.progress)
        return replace(self, remote_name=str(self.remote.save(self.remote_name, source)))

    copying.Copy.upload = early  # type: ignore[method-assign]


def _complete_before_copy() -> None:
    copy = transfers.Attempt.copy

    def late(self: transfers.Attempt) -> None:
        ledger.complete(self.record, None)
        copy(self)

    transfers.Attempt.copy = late  # type: ignore[method-assign]


def _bytes_deleted_before_row() -> None:
    delete = ledger.delete

    def late(pk: int) -> bool:
        record = ledger.get(pk)
        assert record is not None
        storage = removal.pair_for(record.storage)
        storage.local.delete(record.local_name)
        storage.remote.delete(record.remote_name)
        return delete(pk)

    ledger.delete = late


def _evicted_before_removal() -> None:
    def evict(record: TransferRecord, storage: Any, **how: Any) -> bool:
        ledger.evicted(record.pk)
        storage.local.delete(record.local_name)
        return True

    removal.evict = evict


def _removed_before_removal() -> None:
    remove = removal.remove

    def early(record: TransferRecord) -> bool:
        ledger.removed(record.pk)
        return remove(record)

    removal.remove = early


def _superseded_before_save() -> None:
    save = saving.save

    def late(storage: Any, name: str, content: Any, *arguments: Any, **options: Any) -> str:
        old = ledger.lookup(record_key(storage.alias, name))
        if old is not None and old.state != State.DELETED:
            ledger.delete(old.pk)
        return save(storage, name, content, *arguments, **options)

    saving.save = late


MUTANTS = [
    Mutant("the row before the bytes", "save", "lost", _row_before_bytes),
    Mutant("the local copy goes before the upload", "transfer in parts", "lost", _local_copy_goes_first),
    Mutant("complete before the copy", "transfer", "lies", _complete_before_copy),
    Mutant("bytes deleted before the row", "delete moved", "lost", _bytes_deleted_before_row),
    Mutant("noted as evicted before it is", "transfer and evict", "leftover", _evicted_before_removal),
    Mutant("noted as removed before it is", "delete queued", "leftover", _removed_before_removal),
    Mutant("the old body goes before the new one is there", "overwrite", "lost", _superseded_before_save),
]
