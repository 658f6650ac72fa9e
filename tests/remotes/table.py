"""Runs the remotes' tests with files of 200 MB and writes what was seen: ``python -m tests.remotes.table [remotes]``.

Writes a Markdown table to the standard output: each remote, its server and version, its tests, the requests of a
transfer, and the memory that 200 MB add to the process that sends and reads them. Ends with pytest's exit code.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

import django
import pytest

SIZE = "200"
MB = 1 << 20
FOLDER = Path(__file__).parent


class Seen:
    """What pytest tells of each test."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.requests: dict[str, tuple[int, int]] = {}
        self.memory: dict[str, dict[str, int]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of a test under its file, or its remote, and its figures under its class."""
        if report.when != "call" and not (report.when == "setup" and not report.passed):
            return
        properties = dict(report.user_properties)
        parts = report.nodeid.split("::")
        self.outcomes[_key(parts)][report.outcome] += 1
        if "requests" in properties:
            self.requests[str(properties["remote"])] = properties["requests"]  # type: ignore[assignment]
        if "memory" in properties:
            self.memory[f"{Path(parts[0]).stem}.{parts[1]}"] = properties["memory"]  # type: ignore[assignment]


def _key(parts: list[str]) -> str:
    # The tests that run over all remotes have the remote in brackets.
    stem = Path(parts[0]).stem
    if stem in {"test_figures", "test_queued_path", "test_queued_faults"}:
        return next(name for name in sorted(_names(), key=len, reverse=True) if name in parts[-1].partition("[")[2])
    return stem


def _names() -> Iterable[str]:
    from tests.remotes.places import PLACES

    return PLACES


def rows(seen: Seen, chosen: Iterable[str]) -> Iterable[str]:
    """Yield the lines of the table."""
    from tests.remotes.places import PLACES

    yield "| remote | server | tests passed | skipped | requests: 100 KB, 20 MB | memory to send, to read 200 MB |"
    yield "|---|---|---|---|---|---|"
    for name in chosen:
        place = PLACES[name]
        module = place.suite.partition(".")[0]
        counts = seen.outcomes[module] + seen.outcomes[name]
        small, large = seen.requests.get(name, ("?", "?"))
        memory = seen.memory.get(place.suite, {})
        sent, back = (f"{memory[key] / MB:.1f} MB" if key in memory else "?" for key in ("saved", "read"))
        if memory and memory["size"] < int(os.environ["QUEUED_STORAGE_TEST_MB"]) * MB:
            back += f" (of {memory['size'] // MB} MB)"
        failed = f" ({counts['failed']} failed)" if counts["failed"] else ""
        figures = f"{counts['passed']}{failed} | {counts['skipped']} | {small}, {large} | {sent}, {back}"
        yield f"| {name} | {place.server()} | {figures} |"


def main(chosen: list[str]) -> int:
    """Run the tests of the chosen remotes, or of all, and write the table."""
    os.environ.setdefault("QUEUED_STORAGE_TEST_MB", SIZE)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    seen = Seen()
    arguments = ["-q", "-p", "no:cacheprovider", "--timeout", "1200", str(FOLDER)]
    if chosen:
        # "and" binds stronger than "or" in pytest's expressions.
        arguments += ["-k", " or ".join(_expression(name) for name in chosen)]
    with redirect_stdout(sys.stderr):
        code = pytest.main(arguments, plugins=[seen])
    for row in rows(seen, chosen or _names()):
        sys.stdout.write(row + "\n")
    return int(code)


def _expression(name: str) -> str:
    from tests.remotes.places import PLACES

    module = PLACES[name].suite.partition(".")[0]
    return f"{module} or (({' and '.join(name.split())}) and (test_figures or test_queued))"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
