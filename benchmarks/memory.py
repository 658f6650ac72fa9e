"""Does memory grow with the number of files? ``python -m benchmarks.memory [files]``, 20,000 by default.

Adopt, run, verify and reconcile, each in a process of its own, over a tenth of the files and over all of them, from
one folder to another; and the process of a real Celery worker that moves a tenth, and then the others. Told is what the
peak of the memory lies above that of the start.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from django.test import override_settings

# First: it sets Django up.
from benchmarks import drain, ours
from benchmarks.peers import peak
from queued_storage import ledger, sweeping, tasks
from queued_storage.models import TransferRecord
from tests.servers import brokers, workers
from tests.servers.processes import wait_until
from tests.servers.roots import fresh

PLAIN = "django.core.files.storage.FileSystemStorage"
COMMANDS = ("adopt", "drain", "verify", "reconcile")


def some_files(count: int) -> Path:
    """Return a new folder with so many small files, in folders of a thousand."""
    folder = fresh("some")
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:06}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(number.to_bytes(4, "big") * 25)
    # What was touched within the last second may belong to a save that is not complete.
    time.sleep(1.1)
    return folder


def settings_for(folder: Path) -> dict[str, Any]:
    """Return STORAGES with a queued storage from ``folder`` to another folder."""
    return ours.settings_for("", folder, PLAIN, {"location": str(fresh("remote"))})


def by_commands(count: int) -> dict[str, float]:
    """Return how many bytes each command needs for so many files."""
    TransferRecord.objects.all().delete()
    settings = settings_for(some_files(count))
    found = {name: ours.run(name, settings)["memory"] for name in COMMANDS}
    assert ledger.records().filter(state="transferred", checked_at__isnull=False).count() == count
    return found


def grown(pid: int) -> int:
    """Return the highest peak of the memory of any child of a process, in bytes."""
    return max(peak(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def by_worker(few: int, many: int, broker: brokers.Broker) -> tuple[float, float]:
    """Return by how many bytes a worker's process grows over the first ``few`` files, and over all of them."""
    TransferRecord.objects.all().delete()
    folder = some_files(many)
    settings = settings_for(folder)
    owed, celery = ledger.records().exclude(state="transferred"), workers.Celery()
    ours.run("adopt", settings)
    ledger.hold_all(ledger.records())
    with override_settings(STORAGES=settings):
        try:
            process = celery.worker(broker, concurrency=1)
            seen = []
            for count in (2, few, many):
                pks = list(ledger.records().filter(state="delayed").order_by("pk").values_list("pk", flat=True))
                due = pks[: count - (many - len(pks))]
                ledger.release_all(ledger.records().filter(pk__in=due))
                sweeping.sweep(tasks.send, limit=1000)
                wait_until(lambda: not owed.exclude(state="delayed").exists(), bound=3600, what="all were moved")
                seen.append(grown(process.pid))
        finally:
            celery.end()
    return seen[1] - seen[0], seen[2] - seen[0]


def main(many: int) -> None:
    """Measure and print."""
    few = many // 10
    with drain.everything() as broker:
        small, large = by_commands(few), by_commands(many)
        small["a Celery worker"], large["a Celery worker"] = by_worker(few, many, broker)
    print(f"memory beyond that of the start, MB: {few:,} files, {many:,} files")
    for name in small:
        print(f"  {name:<20}{small[name] / 1e6:>8.1f}{large[name] / 1e6:>8.1f}", flush=True)


if __name__ == "__main__":
    # As a module with a name: tasks and storages are found by their paths.
    from benchmarks import memory

    memory.main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
