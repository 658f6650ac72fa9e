"""Everything side by side: ``python -m benchmarks``; ``--quick`` for a glance.

Writes ``docs/images/benchmarks-*.svg`` and what ``docs/benchmarks.md`` has between its marks.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks import drain, page

#: Programs of their own, with what they are given in a full and in a quick run.
OTHERS = (
    ("One large file", "large", "1000", "200"),
    ("In a request", "request", "", ""),
    ("As the ledger grows", "growth", "1000000", "10000"),
    ("The day after an outage", "backlog", "100000", "2000"),
    ("Memory", "memory", "20000", "2000"),
    ("At the start of a process", "startup", "", ""),
    ("Pages of the admin", "admin", "1000000", "10000"),
)


def output(module: str, argument: str) -> str:
    """Run one program and return what it prints."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *([argument] if argument else [])]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(found, flush=True)
    return found


if __name__ == "__main__":
    quick = "--quick" in sys.argv
    compared = drain.run(quick)
    printed = {title: output(module, small if quick else full) for title, module, full, small in OTHERS}
    page.write(compared, printed)
