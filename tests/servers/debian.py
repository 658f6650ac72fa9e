"""What Debian knows of its packages."""

from __future__ import annotations

import shutil
import subprocess


def version_of(package: str) -> str:
    """Return the version of an installed package, without epoch and revision; empty if nobody can tell."""
    if shutil.which("dpkg-query") is None:
        return ""
    command = ["dpkg-query", "-W", "-f", "${Version}", package]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return found.rpartition(":")[2].partition("-")[0]
