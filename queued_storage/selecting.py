"""Choose records: by what operators say, page by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

from django.db.models import DateTimeField, Expression, ExpressionWrapper, Max, Q, QuerySet

from queued_storage import ledger
from queued_storage.exceptions import ErrorKind
from queued_storage.indexes import beginning_with
from queued_storage.models import TransferRecord

# Rows in one statement and one transaction.
CHUNK = 500


def select(
    rows: QuerySet[TransferRecord],
    storage: str | None = None,
    states: Iterable[str] | None = None,
    prefix: str | None = None,
    older_than: timedelta | None = None,
    kind: ErrorKind | str | None = None,
) -> QuerySet[TransferRecord]:
    """Narrow ``rows`` down: to a storage, to states, to names that begin so, to files saved longer ago, to an error."""
    if storage is not None:
        rows = rows.filter(storage=storage)
    if states:
        rows = rows.filter(state__in=list(states))
    if prefix:
        rows = beginning_with(rows, "name", prefix)
    if older_than is not None:
        rows = rows.filter(created_at__lte=ago(older_than))
    return rows if kind is None else rows.filter(error_kind=kind)


def ago(age: timedelta) -> Expression:
    """Return the moment ``age`` before now by the database's clock."""
    return ExpressionWrapper(ledger.DatabaseNow() - age, output_field=DateTimeField())


def pages(rows: QuerySet[TransferRecord], limit: int | None = None) -> Iterator[list[TransferRecord]]:
    """Yield ``rows`` in the order of their ids, some hundreds at a time; those saved meanwhile are left out.

    Each page is read when it is asked for: what no longer matches by then is left out as well.
    """
    last = ledger.persist(lambda: rows.order_by().aggregate(last=Max("pk")))["last"]
    left, after = limit, Q()
    while last is not None and (left is None or left > 0):
        wanted = rows.filter(after, pk__lte=last).order_by("pk")[: CHUNK if left is None else min(CHUNK, left)]
        page = ledger.persist(lambda wanted=wanted: list(wanted))  # type: ignore[misc]
        if not page:
            return
        yield page
        left = None if left is None else left - len(page)
        after = Q(pk__gt=page[-1].pk)
