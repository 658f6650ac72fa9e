"""A small dose for each change: ``python -m benchmarks.dose`` prints ratios, and fails where one is far too high.

Each may be at least twice what it is to be, for others work on the same machine; counts are exact. Of the command that
moves files it is the processor time that is compared, which waits for nobody.
"""

from __future__ import annotations

import sys

# First: it sets Django up.
from benchmarks import drain, growth, request
from benchmarks.measuring import database
from tests.factories import make_records

FILES = 300
DRAIN = "CPU of queued_storage_run / a loop of saves"
ALONE, BATCH = "statements for a transfer, alone", f"statements for a transfer, one of {growth.BATCH}"

#: What each may be at most.
LIMITS = {
    DRAIN: 0.9,
    ALONE: 4,
    BATCH: 0.2,
    request.MESSAGES: 1,
    f"save() of 100 KB in the request: ours / {request.FLOOR}": 2.6,
    "url() of a transferred file, warm cache (Redis): ours / floor: one cache get + url()": 2.6,
    request.CALLS: 0,
    "a page with 100 URLs, warm: ours / a hundred single url()": 0.25,
}


def measure() -> dict[str, float]:
    """Return every ratio and count."""
    found: dict[str, float] = {}
    with drain.everything() as broker, drain.staged(0.0, 1000, FILES, broker) as stage:
        ways = {drain.OURS: (drain.by_command(None), FILES), drain.LOOP: (drain.loop, FILES)}
        medians = drain.compare(stage, ways, 3)
        found[DRAIN] = medians[drain.OURS]["cpu"] / medians[drain.LOOP]["cpu"]
    with database():
        make_records(1000, transferred=True)
        for line in growth.statements():
            name, _, count = line.rpartition(": ")
            found[name] = float(count)
    with request.everything() as (pair, old):
        found |= request.measure_save(pair, old)
        found |= request.measure_urls(pair, old)
    return found


def main() -> int:
    """Print what was found beside what it may be; return 1 if anything is more."""
    found = measure()
    print()
    for name, limit in LIMITS.items():
        verdict = "ratio" if found[name] <= limit else "TOO MUCH"
        print(f"{verdict} {found[name]:6.3f}, at most {limit:4.2f}: {name}")
    return int(any(found[name] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    # As a module with a name: tasks and storages are found by their paths.
    from benchmarks import dose

    sys.exit(dose.main())
