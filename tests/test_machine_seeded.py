"""M10: bugs that others have made, put into the package one by one; the tests that are said to see them must fail."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from django.db import connection

import queued_storage
from tests.machines.bugs import BUGS, PAGE, Bug, page
from tests.machines.report import DOSE, tell
from tests.machines.seeding import ROOT, START, edited
from tests.servers.roots import fresh

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="the bugs are the same on every database: once is enough"),
]

# One in so many in a small dose, always the same ones.
EVERY = max(1, round(1 / DOSE))


@pytest.fixture(scope="module")
def runs() -> Iterator[subprocess.Popen[str]]:
    """The process that forks a run of pytest for each bug, on a database of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("QUEUED_STORAGE", "TEST_"))}
    environment = {**kept, "QUEUED_STORAGE_DOSE": "1"}
    command = [sys.executable, "-c", START]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        _pipe(process.stdin).close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@pytest.mark.parametrize("bug", BUGS[::EVERY], ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_seeded_bug_is_seen(bug: Bug, runs: subprocess.Popen[str]) -> None:
    """With this bug in the package, each test that is said to see it fails, and for no other reason."""
    output = fresh("seeded") / "output"
    # What the process that forks has imported already is not ours to rewrite.
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    arguments = [
        *quiet,
        "-q",
        "--no-header",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        *(f"tests/{test}" for test in bug.seen_by),
    ]
    question = {"edits": bug.edits, "arguments": arguments, "output": str(output)}
    _pipe(runs.stdin).write(json.dumps(question) + "\n")
    _pipe(runs.stdin).flush()
    code = int(_pipe(runs.stdout).readline())
    printed = output.read_text(errors="replace")
    for module in {module for module, _, _ in bug.edits}:
        assert re.search(rf"^seeded: {re.escape(module)}", printed, re.MULTILINE), f"not put in:\n{printed[-3000:]}"
    assert code == 1, f"not seen:\n{printed[-3000:]}"
    failed = set(re.findall(r"^FAILED tests/([^\[\s]+)", printed, re.MULTILINE))
    assert failed >= {test.partition("[")[0] for test in bug.seen_by}, printed[-3000:]
    tell(f"seeded bug: {bug.name}: seen by {', '.join(bug.seen_by)}")


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_the_seed_fits(bug: Bug) -> None:
    """Whoever changes the code that a bug is put into is told so at once, in whatever dose."""
    for module in {module for module, _, _ in bug.edits}:
        source = (Path(queued_storage.__file__).parent / module).read_text()
        compile(edited(source, [edit for edit in bug.edits if edit[0] == module]), module, "exec")


def test_the_table_is_current() -> None:
    """The page in the docs shows these bugs and tests: ``python -m tests.machines.bugs`` writes it anew."""
    assert PAGE.read_text() == page()
