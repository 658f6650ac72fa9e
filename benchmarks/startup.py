"""What the package adds to the start of a process: ``python -m benchmarks.startup``.

``django.setup()`` in a new process each time, with Celery's app, once with the package in INSTALLED_APPS and once
without; medians of several in turns, and the difference.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 15
PROGRAM = """
import time
started = time.perf_counter()
import celery
import django
from django.conf import settings

apps = ["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages"]
settings.configure(INSTALLED_APPS=[*apps, *{more}], DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3"}}}})
celery.Celery("startup").set_default()
django.setup()
print(time.perf_counter() - started)
"""


def start(more: list[str], cache: str) -> float:
    """Return how many milliseconds a new process takes, all modules compiled beforehand as an installation has them."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", PROGRAM.format(more=more)]
    return 1000 * float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    """Measure and print."""
    found: dict[str, list[float]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as cache:
        for more in ([], ["queued_storage"]):
            start(more, cache)
        for _ in range(ROUNDS):
            found["without"].append(start([], cache))
            found["with"].append(start(["queued_storage"], cache))
    difference = statistics.median(b - a for a, b in zip(found["without"], found["with"], strict=True))
    without = statistics.median(found["without"])
    print(f"Django, its admin and Celery, with queued_storage: {(without + difference) / without:.2f} x without")
    print(f"  {difference:.0f} ms more (goal <= 30)")


if __name__ == "__main__":
    main()
