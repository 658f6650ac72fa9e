"""Paths as a file system sees them for which upper and lower case are the same, and which keeps what it was given."""

from __future__ import annotations

import os
from pathlib import Path


def folded(path: str, root: str) -> str:
    """Return ``path``, each part below ``root`` spelled as what lies there already."""
    found = Path(root)
    for part in Path(path).relative_to(root).parts:
        names = os.listdir(found) if found.is_dir() else []
        found /= next((name for name in names if name.casefold() == part.casefold()), part)
    return str(found)
