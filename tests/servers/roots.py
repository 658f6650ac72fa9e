"""One temporary folder for a test run; its processes share it, and a watchdog removes it after the run."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

VARIABLE = "QUEUED_STORAGE_TESTS_ROOT"


def temporary_root() -> Path:
    """Return the folder of this run; the first process that asks makes it, and it ends with that process."""
    if VARIABLE not in os.environ:
        root = Path(tempfile.mkdtemp(prefix="queued-storage-tests-")).resolve()
        # Database servers that refuse to run as root run as somebody else and must be able to pass through.
        root.chmod(0o711)
        (root / "processes").mkdir()
        os.environ[VARIABLE] = str(root)
        watchdog = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("watchdog.py"), root],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        atexit.register(_end, watchdog, os.getpid())
    return Path(os.environ[VARIABLE])


def fresh(name: str) -> Path:
    """Return a new empty folder below the root of this run."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=temporary_root()))
    folder.chmod(0o711)
    return folder


def started(pid: int) -> None:
    """Note a process group that must not outlive this run."""
    (temporary_root() / "processes" / str(pid)).touch()


def ended(pid: int) -> None:
    """Strike a process group from the list."""
    (temporary_root() / "processes" / str(pid)).unlink(missing_ok=True)


def _end(watchdog: subprocess.Popen[bytes], owner: int) -> None:
    # A forked child inherits this hook, and must not end the run of its parent.
    if os.getpid() == owner and watchdog.stdin is not None:
        watchdog.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            watchdog.wait(timeout=10)
