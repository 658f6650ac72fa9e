"""Do in this process what workers would do: transfer everything that is owed, without a broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from datetime import timedelta
from itertools import islice

from django.db.models import Count, Max, Q, QuerySet, Sum

from queued_storage import access, health, lanes, ledger, selecting, sweeping
from queued_storage.conf import settings
from queued_storage.models import Outcome, State, TransferRecord
from queued_storage.summary import Amount

Attempted = tuple[TransferRecord, "Outcome | None"]


def owed(
    storage: str | None = None, prefix: str | None = None, older_than: timedelta | None = None
) -> QuerySet[TransferRecord]:
    """Return every record that a run on this host transfers, oldest first, whatever the timer of the queued ones says.

    These are the queued ones, those whose worker is lost, and those whose delay has ended.
    """
    return _owed_anywhere(storage, prefix, older_than).filter(_here()).order_by("created_at", "pk")


def elsewhere(
    storage: str | None = None, prefix: str | None = None, older_than: timedelta | None = None
) -> dict[str, int]:
    """Return how many owed files lie on the disks of other hosts, by host."""
    rows = _owed_anywhere(storage, prefix, older_than).exclude(_here()).order_by("node")
    return dict(rows.values_list("node").annotate(files=Count("pk")))


def _here() -> Q:
    return Q(node__in=["", settings.QUEUED_STORAGE_NODE])


def _owed_anywhere(storage: str | None, prefix: str | None, older_than: timedelta | None) -> QuerySet[TransferRecord]:
    due = Q(state__in=[State.TRANSFERRING, State.DELAYED], due_at__lte=ledger.DatabaseNow())
    wanted = Q(state=State.QUEUED) | due
    if (age := settings.QUEUED_STORAGE_RELEASE_AFTER) is not None:
        wanted |= Q(pk__in=ledger.held(age).values("pk"))
    return selecting.select(access.unfinished().filter(wanted), storage, prefix=prefix, older_than=older_than)


def amount(rows: QuerySet[TransferRecord], limit: int | None = None) -> Amount:
    """Return how many files and bytes ``rows`` are, of the first ``limit`` of them."""
    found = rows.values("pk", "size")[:limit].aggregate(files=Count("pk"), bytes=Sum("size"))
    return Amount(found["files"], int(found["bytes"] or 0))


def reclaim() -> None:
    """Give back the records of lost workers and queue those whose delay has ended, as the sweep does."""
    limit = settings.QUEUED_STORAGE_SWEEP_BATCH
    for move in (sweeping.rescue, sweeping.release, sweeping.release_held):
        while move(limit):
            pass


def drain(
    storage: str | None = None,
    limit: int | None = None,
    prefix: str | None = None,
    threads: int | None = None,
    older_than: timedelta | None = None,
) -> Generator[Attempted]:
    """Make one attempt at every record that is owed now, in this process, and yield each with its outcome.

    The outcome is ``None`` where somebody else took the record. Files saved meanwhile are left to the next run, so that
    this one ends, and so are those of a remote that is down, but for one that probes it, of a paused storage, and those
    that lie on the disk of another host.
    Closed early, it finishes the files that its threads have in hand; without ``threads`` there are as many as pay.
    """
    reclaim()
    rows = owed(storage, prefix, older_than)
    last = rows.order_by().aggregate(last=Max("pk"))["last"]
    probes = [probe for probe in health.probes() if storage in (None, probe.storage)][:limit]
    yield from _work(probes, threads=1)
    if last is not None:
        rest = _oldest_first(rows.filter(pk__lte=last).exclude(pk__in=[probe.pk for probe in probes]))
        records = islice(rest, None if limit is None else limit - len(probes))
        yield from _work(records, threads)


def _oldest_first(rows: QuerySet[TransferRecord]) -> Iterator[TransferRecord]:
    after = Q()
    while page := list(rows.filter(after).exclude(storage__in=health.down())[: selecting.CHUNK]):
        yield from page
        created_at, pk = page[-1].created_at, page[-1].pk
        later = Q(created_at__gt=created_at) | Q(created_at=created_at, pk__gt=pk)
        # SQLite compares times as text, and writes a full second with a fraction or without.
        after = later & ~Q(pk__in=[record.pk for record in page])


def _work(records: Iterable[TransferRecord], threads: int | None) -> Generator[Attempted]:
    under_way: dict[int, TransferRecord] = {}

    def jobs() -> Iterator[lanes.Job]:
        for record in records:
            under_way[record.pk] = record
            yield record.pk, None

    with closing(lanes.Worker(jobs(), threads).run()) as ended:
        for pk, outcome in ended:
            yield under_way.pop(pk), outcome


def waiting(storage: str | None = None) -> dict[str, int]:
    """Return how many owed files wait, by storage, of the storages whose remote is down, or that are paused."""
    rows = owed(storage).filter(storage__in=health.down()).order_by()
    return dict(rows.values_list("storage").annotate(files=Count("pk")))


def tidy() -> dict[str, int]:
    """Run the sweep in this process but for its transfers: evict, remove, prune; return how many, by duty."""
    counts: Counter[str] = Counter()
    down = set(health.down())

    def send(records: Iterable[TransferRecord]) -> None:
        for record in records:
            # Of a remote that is down the sweep hands out the one record that probes it, now or a minute later.
            if record.state != State.QUEUED or record.storage in down:
                sweeping.process(record.pk)
                counts["tidied"] += record.state != State.QUEUED

    swept = sweeping.sweep(send)
    return {"tidied": counts["tidied"], "pruned": swept.get("pruned", 0)}
