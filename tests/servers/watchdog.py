"""Waits for the end of a test run, however it comes, then ends the processes that it started and removes its folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path


def main(root: Path) -> None:
    """Return after everything below ``root`` is gone."""
    # The run holds the other end: it closes by a normal exit and by a kill alike.
    sys.stdin.read()
    for entry in (root / "processes").glob("*"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(entry.name), signal.SIGKILL)
    shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
