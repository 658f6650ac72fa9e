"""Copy the project without the package, so that a test run there can only find the installed wheel."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def left_out(folder: str, names: list[str]) -> list[str]:
    """Return what is not copied: the package itself, hidden folders, and what tools have made."""
    made = {"__pycache__", "build", "dist", "node_modules"}
    package = {"queued_storage"} if Path(folder) == PROJECT else set()
    return [name for name in names if name.startswith(".") or name in made | package]


if __name__ == "__main__":
    shutil.copytree(PROJECT, sys.argv[1], ignore=left_out, dirs_exist_ok=True)
