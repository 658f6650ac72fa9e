"""The table of faults in the documentation names each fault once, and tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The installed package comes without its documentation.
PAGE = ROOT / "docs" / "faults.md"
FAULTS = 72
CELLS = ("number", "fault", "promise", "tests", "result")

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not part of this copy")


def rows() -> list[dict[str, str]]:
    """Return the rows of the table by their columns."""
    lines = [line.strip().strip("|") for line in PAGE.read_text().splitlines() if re.match(r"\| \d+ \|", line)]
    return [dict(zip(CELLS, (cell.strip() for cell in line.split(" | ")), strict=True)) for line in lines]


def named(row: dict[str, str]) -> list[str]:
    """Return the tests that a row names."""
    return re.findall(r"`(tests/[^`]+)`", row["tests"])


@cache
def defined(path: str) -> set[str]:
    """Return the tests of a module, those in classes as ``Class::test``."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return {name for name in found if name.split("::")[-1].startswith("test_")}


def test_each_fault_is_there_once() -> None:
    """The numbers run from 1 to 72, each once, in their order, and no cell is empty."""
    assert [int(row["number"]) for row in rows()] == list(range(1, FAULTS + 1))
    assert [row for row in rows() if not all(row.values())] == []


def test_each_named_test_exists() -> None:
    """A test that was renamed or removed is renamed or removed in the table, too."""
    missing = [name for row in rows() for name in named(row) if not _exists(name)]
    assert missing == []


def _exists(name: str) -> bool:
    path, _, test = name.partition("::")
    return (ROOT / path).exists() and test in defined(path)


def test_what_is_not_covered_says_why() -> None:
    """A fault without a test has a reason, and one with a test a result."""
    for row in rows():
        if named(row):
            assert row["result"].startswith(("holds", "as ")), row
        else:
            assert re.match(r"not covered: .{20}", row["result"]), row
