"""What the ledger owes, in numbers: for the status command and the admin."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, DateTimeField, Max, Min, Q, QuerySet, Sum

from queued_storage import health, ledger
from queued_storage.conf import settings
from queued_storage.models import State, TransferRecord
from queued_storage.pairs import aliases

# What a worker has to do, as against what is held for somebody's word.
OWED = (State.QUEUED, State.TRANSFERRING)


@dataclass
class Amount:
    """A number of files and of bytes; files of unknown size count as 0 bytes."""

    files: int = 0
    bytes: int = 0

    def add(self, files: int, size: int) -> None:
        """Add to both."""
        self.files += files
        self.bytes += size


@dataclass
class Summary:
    """The state of one storage, or of all of them.

    ``owed`` is what is queued or being transferred, ``oldest_owed`` the age of the oldest of that, ``stalled`` how many
    have used up their retries, ``failed`` how many failed by kind of error, ``down_since`` when the remote went down,
    ``down_error`` with which error, ``paused_since`` when an operator paused the storage.
    """

    storage: str
    states: dict[str, Amount] = field(default_factory=lambda: {str(state.value): Amount() for state in State})
    owed: Amount = field(default_factory=Amount)
    oldest_owed: timedelta | None = None
    stalled: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    down_since: datetime | None = None
    paused_since: datetime | None = None
    down_error: str = ""

    def add(self, row: dict[str, Any]) -> None:
        """Add one group of rows."""
        size = int(row["bytes"] or 0)
        self.states[row["state"]].add(row["files"], size)
        self.stalled += row["stalled"]
        if row["state"] == State.FAILED:
            kind = row["error_kind"]
            self.failed[kind] = self.failed.get(kind, 0) + row["files"]
        if row["state"] in OWED:
            self.owed.add(row["files"], size)
            self.oldest_owed = max(self.oldest_owed or timedelta(0), row["now"] - row["oldest"])

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON: ages in seconds, moments in ISO 8601."""
        facts = asdict(self)
        for name in ("down_since", "paused_since"):
            facts[name] = facts[name].isoformat() if facts[name] is not None else None
        facts["oldest_owed"] = self.oldest_owed.total_seconds() if self.oldest_owed is not None else None
        return facts


def summarize(storage: str | None = None, transferred: bool = True) -> tuple[list[Summary], Summary]:
    """Return the state of each storage, of those that are configured and those that have records, and of all together.

    Three queries: over what is not transferred, by its index, over the transferred, which is left out without
    ``transferred`` because it reads the whole table, and over remotes that are down or paused.
    """
    by_alias = {alias: Summary(alias) for alias in aliases() if storage in (None, alias)}
    total = Summary("")
    rows = ledger.records() if storage is None else ledger.records().filter(storage=storage)
    for group in (*_open(rows), *(_transferred(rows) if transferred else ())):
        by_alias.setdefault(group["storage"], Summary(group["storage"])).add(group)
        total.add(group)
    for known in health.storages().filter(storage__in=by_alias):
        summary = by_alias[known.storage]
        summary.down_since, summary.paused_since = known.down_since, known.paused_at
        summary.down_error = known.error if known.down_since else ""
    return sorted(by_alias.values(), key=lambda summary: summary.storage), total


def _open(rows: QuerySet[TransferRecord]) -> list[dict[str, Any]]:
    # The condition is that of the partial index.
    groups = rows.filter(~Q(state="transferred")).order_by().values("storage", "state", "error_kind")
    stalled = Q(state=State.QUEUED, retries__gt=settings.QUEUED_STORAGE_RETRIES)
    now = Max(ledger.DatabaseNow(), output_field=DateTimeField())
    counted = groups.annotate(files=Count("pk"), bytes=Sum("size"), stalled=Count("pk", filter=stalled))
    return [dict(group) for group in counted.annotate(oldest=Min("created_at"), now=now)]


def _transferred(rows: QuerySet[TransferRecord]) -> list[dict[str, Any]]:
    groups = rows.filter(state=State.TRANSFERRED).order_by().values("storage")
    counted = groups.annotate(files=Count("pk"), bytes=Sum("size"))
    return [{**group, "state": State.TRANSFERRED, "stalled": 0} for group in counted]


def age_text(age: timedelta | None) -> str:
    """Return an age for people, in its two largest units: ``3 d 4 h``."""
    if age is None:
        return "-"
    seconds = max(int(age.total_seconds()), 0)
    units = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    first = next((index for index, (count, _) in enumerate(units) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2])
