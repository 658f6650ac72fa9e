"""Everything side by side: ``python -m benchmarks``; ``--quick`` for a glance.

Writes ``docs/images/benchmarks-*.svg`` and the tables that ``docs/benchmarks.md`` includes.
"""

from __future__ import annotations

import sys

from benchmarks import drain, page

if __name__ == "__main__":
    page.write(drain.run("--quick" in sys.argv))
