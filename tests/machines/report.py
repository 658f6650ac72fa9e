"""What the machines have to say at the end of a run, and how much of their work is asked for."""

from __future__ import annotations

import os

# All of it: 1, as CI does it. Without a word, enough to see that nothing is badly broken.
DOSE = float(os.environ.get("QUEUED_STORAGE_DOSE", "0.1"))

lines: list[str] = []


def tell(line: object) -> None:
    """Have a line printed at the end of the run."""
    lines.append(str(line))
