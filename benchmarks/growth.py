"""What the ledger costs as it grows: ``python -m benchmarks.growth [records]``, from a thousand to a million at first.

Runs on PostgreSQL (or what ``TEST_DATABASE`` names), in a database of its own that is dropped afterwards. At each size:
the sweep with nothing due and with a thousand due, a transfer's statements alone and in batches, four claimers at once;
at the end what the indexes weigh and how many dead rows there are. No bytes move: it is the ledger that is measured.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta

os.environ.setdefault("TEST_DATABASE", "postgresql")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from benchmarks.measuring import database
from queued_storage import batches, ledger, sweeping
from queued_storage.models import Outcome, TransferAttempt, TransferRecord
from tests.factories import make_records

ROUNDS, TRANSFERS, BATCH, DUE = 7, 200, 50, 1000
CLAIMERS, CLAIMED = 4, 20
TABLE = "queued_storage_transferrecord"
COLUMNS = [field.column for field in TransferRecord._meta.concrete_fields if field.name not in ("id", "location")]
# An id that no other row has, and a name from it.
FRESH = {
    "postgresql": {"key": "gen_random_uuid()", "name": "'photos/' || %(turn)s || '/' || id || '.jpg'"},
    "mysql": {"key": "uuid()", "name": "concat('photos/', %(turn)s, '/', id, '.jpg')"},
    "sqlite": {"key": "lower(hex(randomblob(16)))", "name": "'photos/' || %(turn)s || '/' || id || '.jpg'"},
}
ANALYZE = {"postgresql": f"VACUUM ANALYZE {TABLE}", "mysql": f"ANALYZE TABLE {TABLE}", "sqlite": "ANALYZE"}
INDEXES = {
    "postgresql": f"""SELECT indexrelname, pg_relation_size(indexrelid) FROM pg_stat_user_indexes
        WHERE relname = '{TABLE}' ORDER BY 2 DESC""",
    "mysql": f"""SELECT index_name, stat_value * @@innodb_page_size FROM mysql.innodb_index_stats
        WHERE table_name = '{TABLE}' AND database_name = database() AND stat_name = 'size' ORDER BY 2 DESC""",
    "sqlite": f"""SELECT name, sum(pgsize) FROM dbstat
        WHERE name IN (SELECT name FROM sqlite_master WHERE tbl_name = '{TABLE}') GROUP BY name ORDER BY 2 DESC""",
}


def execute(statement: str) -> list[tuple[str, int]]:
    """Execute, and return the rows if there are any."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def grow(count: int) -> None:
    """Add records that are transferred, each a copy of another one with a name and a key of its own."""
    fresh = FRESH[connection.vendor]
    turn = time.monotonic_ns()
    while (missing := count - TransferRecord.objects.count()) > 0:
        turn += 1
        named = [connection.ops.quote_name(column) for column in COLUMNS]
        values = [fresh.get(column, name) % {"turn": turn} for column, name in zip(COLUMNS, named, strict=True)]
        source = f"SELECT {', '.join(values)} FROM {TABLE} ORDER BY id LIMIT {missing}"
        execute(f"INSERT INTO {TABLE} ({', '.join(named)}) {source}")
    execute(ANALYZE[connection.vendor])


def timed(do: Callable[[], object]) -> float:
    """Return how many milliseconds it takes."""
    started = time.perf_counter()
    do()
    return (time.perf_counter() - started) * 1000


def chosen(count: int) -> list[int]:
    """Return the ids of so many records, from all over the table."""
    pks = TransferRecord.objects.order_by("pk")
    first, last = pks.values_list("pk", flat=True).first() or 0, pks.values_list("pk", flat=True).last() or 0
    step = max((last - first) // count, 1)
    spread = range(first, last + 1, step)
    return list(TransferRecord.objects.filter(pk__in=spread).values_list("pk", flat=True)[:count])


def owe(pks: list[int], due: timedelta) -> None:
    """Have these be queued."""
    changes = {"state": "queued", "retries": 0, "lease": None, "worker": "", "transferred_at": None}
    TransferRecord.objects.filter(pk__in=pks).update(**changes, due_at=ledger.after(due))


def settle(pks: list[int]) -> None:
    """Have these be transferred again."""
    over = {"state": "transferred", "lease": None, "worker": "", "due_at": None}
    TransferRecord.objects.filter(pk__in=pks).update(**over, transferred_at=ledger.DatabaseNow())
    TransferAttempt.objects.all().delete()


def sweep() -> None:
    """Sweep, and send nothing."""
    sweeping.sweep(lambda records: None)


def sweep_due(pks: list[int]) -> float:
    """Return the time of a sweep that sends all of these."""
    owe(pks, -timedelta(minutes=1))
    sent: list[int] = []
    found = timed(lambda: sweeping.sweep(lambda records: sent.extend(record.pk for record in records)))
    assert sorted(sent) == sorted(pks)
    return found


def one_by_one(pks: list[int]) -> None:
    """Claim, read, complete and note each by itself, as a large file is."""
    for pk in pks:
        record = ledger.claim(pk, uuid.uuid4(), "host:1").get()
        assert ledger.complete(record, None)
        ledger.log_attempt(record, Outcome.TRANSFERRED, size=1)


def in_batches(pks: list[int]) -> None:
    """The same for many at a time, as small files are."""
    for start in range(0, len(pks), BATCH):
        lease = uuid.uuid4()
        records = list(batches.claim(pks[start : start + BATCH], lease, "host:1"))
        assert len(batches.complete(dict.fromkeys(records, 1), lease, None)) == len(records)


def claimers(pks: list[int]) -> float:
    """Return how many records a second four threads claim, a few at a time."""
    left = iter([pks[start : start + CLAIMED] for start in range(0, len(pks), CLAIMED)])
    lock = threading.Lock()
    claimed: list[int] = []

    def run() -> None:
        while True:
            with lock:
                mine = next(left, None)
            if mine is None:
                break
            claimed.append(len(batches.claim(mine, uuid.uuid4(), "host:1")))
        connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(CLAIMERS)]
    milliseconds = timed(lambda: [each.start() for each in threads] and [each.join() for each in threads])
    assert sum(claimed) == len(pks)
    return len(pks) / milliseconds * 1000


def measure(count: int) -> dict[str, float]:
    """Return medians at one size: milliseconds of the sweeps, microseconds a transfer, claims a second."""
    grow(count)
    pks = chosen(min(DUE, count))
    some = pks[:TRANSFERS]
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    sweep()
    for _ in range(ROUNDS):
        note("sweep, nothing due, ms", timed(sweep))
        note("sweep, 1,000 due, ms", sweep_due(pks))
        owe(some, timedelta(minutes=1))
        note("a transfer alone, us", timed(lambda: one_by_one(some)) / len(some) * 1000)
        owe(some, timedelta(minutes=1))
        note("a transfer in a batch, us", timed(lambda: in_batches(some)) / len(some) * 1000)
        owe(some, timedelta(minutes=1))
        note("claims a second, four at once", claimers(some))
        settle(pks)
    return {name: statistics.median(values) for name, values in found.items()}


def statements() -> Iterator[str]:
    """Say how many statements a transfer takes."""
    pks = chosen(BATCH)
    for name, way in (("alone", one_by_one), (f"one of {BATCH}", in_batches)):
        owe(pks, timedelta(minutes=1))
        with CaptureQueriesContext(connection) as queries:
            way(pks)
        count = sum(query["sql"].startswith(("SELECT", "INSERT", "UPDATE")) for query in queries)
        yield f"statements for a transfer, {name}: {count / len(pks):.2f}"
        settle(pks)


def sizes(count: int) -> Iterator[str]:
    """Say what the indexes weigh, and what the updates have left behind."""
    try:
        for name, size in execute(INDEXES[connection.vendor]):
            yield f"{name.removeprefix('queued_storage_')}: {size / 1e6:.1f} MB, {size / count:.0f} bytes a record"
    except Exception as error:
        yield f"sizes of indexes: not told by this {connection.vendor} ({type(error).__name__})"
    if connection.vendor == "postgresql":
        ((name, dead),) = execute(f"SELECT relname, n_dead_tup FROM pg_stat_user_tables WHERE relname = '{TABLE}'")
        yield f"dead rows of {name.removeprefix('queued_storage_')}: {dead}"


def main(most: int) -> None:
    """Measure at each power of ten and print."""
    with database():
        make_records(1000, transferred=True)
        first: dict[str, float] = {}
        count = 1000
        while count <= most:
            found = measure(count)
            first = first or found
            print(f"\n{count:,} records, {connection.vendor}", flush=True)
            for name, value in found.items():
                print(f"  {name:<34}{value:>12.2f}   {value / first[name]:>6.2f} x that of a thousand", flush=True)
            count *= 10
        print()
        for line in (*statements(), *sizes(count // 10)):
            print(line, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
