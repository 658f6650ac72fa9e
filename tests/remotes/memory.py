"""Measures in a process of its own how much memory one save and one read of a large file need.

``python -m tests.remotes.memory '{"backend": ..., "options": ..., "name": ..., "size": ...}'`` prints one JSON object.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.remotes.material import check_bytes, upload

ROOT = Path(__file__).parents[2]


def peaks(backend: str, options: dict[str, Any], name: str, size: int, timeout: float = 300) -> dict[str, Any]:
    """Return the peak memory that ``size`` bytes add (``saved``, ``read``, in bytes) and the seconds taken."""
    order = json.dumps({"backend": backend, "options": options, "name": name, "size": size})
    command = [sys.executable, "-m", "tests.remotes.memory", order]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _forget_peak() -> None:
    # So that what follows is measured from the memory in use now, not from the highest point so far.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    # Linux counts the memory of the parent, from before the new program began, into what getrusage() says.
    if (status := Path("/proc/self/status")).exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def configure() -> None:
    """Set up Django as the tests have it, or plainly."""
    import django
    from django.conf import settings

    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        settings.configure(USE_TZ=True)
    django.setup()


def _main(order: dict[str, Any]) -> dict[str, Any]:
    configure()
    from django.utils.module_loading import import_string

    storage, name, size = import_string(order["backend"])(**order["options"]), order["name"], order["size"]
    # A small file first, so that imports, pools and lazily loaded code do not count as memory of the transfer.
    storage._save(name + ".warm", upload(300_000))
    with storage.open(name + ".warm") as stream:
        check_bytes(stream, 300_000)
    storage.delete(name + ".warm")
    saved = _measured(lambda: storage._save(name, upload(size)))
    with storage.open(name) as stream:
        read = _measured(lambda: _check_whole(stream, size))
    storage.delete(name)
    return {"saved": saved[0], "read": read[0], "saved_seconds": saved[1], "read_seconds": read[1]}


def _check_whole(stream: Any, size: int) -> None:
    assert check_bytes(stream, size) == size


def _measured(call: Callable[[], Any]) -> tuple[int, float]:
    _forget_peak()
    before, started = _peak(), time.monotonic()
    call()
    return _peak() - before, time.monotonic() - started


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_main(json.loads(sys.argv[1]))))
