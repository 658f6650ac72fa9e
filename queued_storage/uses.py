"""Which objects of the project use a file: those whose file fields hold its name on its storage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db import Error, models, router, transaction
from django.db.models import FileField

from queued_storage.models import TransferRecord
from queued_storage.pairs import StoragePair

# Objects that are read of each field, and fields that are looked into without being asked to.
EACH, FIELDS = 5, 5


@dataclass
class Uses:
    """Objects that hold the name, each with its field; fields of which there are more; fields not looked into."""

    found: list[tuple[Any, models.Model]] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)


def find(record: TransferRecord, everywhere: bool) -> Uses:
    """Return who uses the file of ``record``, by one query for each field, of five objects each.

    Fields without an index, for which a whole table is read, are looked into only with ``everywhere``. A superseded
    record has no users: its name belongs to a newer file.
    """
    uses, asked = Uses(), 0
    for each in fields_of(record.storage) if record.key is not None else ():
        label = f"{each.model._meta.label}.{each.name}"
        if not everywhere and (asked == FIELDS or not _is_indexed(each)):
            uses.unasked.append(label)
            continue
        asked += 1
        found = _holders(each, record.name)
        if found is None:
            uses.unasked.append(label)
            continue
        uses.found += [(each, instance) for instance in found[:EACH]]
        uses.more += [label] if len(found) > EACH else []
    return uses


def fields_of(alias: str) -> Iterator[Any]:
    """Yield the file fields whose storage has this alias, each from the model that has the column."""
    for model in apps.get_models():
        for each in model._meta.local_concrete_fields if not model._meta.proxy else ():
            if isinstance(each, FileField) and _alias_of(each) == alias:
                yield each


def _alias_of(each: Any) -> str | None:
    try:
        return each.storage.alias if isinstance(each.storage, StoragePair) else None
    except Exception:
        # A storage that cannot be built; the system checks tell.
        return None


def _is_indexed(each: Any) -> bool:
    meta = each.model._meta
    indexes = [index.fields[:1] for index in meta.indexes if index.condition is None]
    unique = [list(constraint.fields[:1]) for constraint in meta.total_unique_constraints]
    return bool(each.db_index or each.unique or [each.name] in (*indexes, *unique))


def _holders(each: Any, name: str) -> list[models.Model] | None:
    using = router.db_for_read(each.model)
    try:
        # A table that is not there must not cost the transaction of the request.
        with transaction.atomic(using=using):
            return list(each.model._base_manager.using(using).filter(**{each.attname: name})[: EACH + 1])
    except Error:
        return None
