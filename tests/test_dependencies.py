"""Imports point downwards."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

SPEC = find_spec("queued_storage")
assert SPEC is not None
assert SPEC.submodule_search_locations
ROOT = Path(SPEC.submodule_search_locations[0])
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if "migrations" not in path.parts
}
# What people see and what only tests use: nothing beneath knows of it.
TOP = {"admin", "checks", "checking", "views", "urls", "management", "testing", "templatetags"}
CELERY = {"celery", "kombu"}
# Each module with what it, and whatever it imports, may not know.
FORBIDDEN = {
    "conf": {"models", "celery"},
    "exceptions": {"models", "celery"},
    "signals": {"models", "celery"},
    "names": {"models", "celery"},
    "redaction": {"models", "celery"},
    "backoff": {"models", "celery"},
    "breaker": {"models", "celery"},
    "models": {"ledger", "pairs", "celery", "storage"},
    "inserting": {"pairs", "copying", "celery", "storage"},
    "access": {"pairs", "copying", "celery", "storage"},
    "ledger": {"pairs", "copying", "remotes", "local", "backends", "celery", "storage"},
    "copying": {"models", "ledger", "access", "celery"},
    "local": {"models", "ledger", "celery"},
    "locations": {"copying", "backends", "celery"},
    "transfers": {"celery", "backends", "tasks", "publishing"},
    "removal": {"celery", "backends", "tasks", "publishing"},
    "sweeping": {"celery", "backends", "tasks", "publishing"},
    "health": {"celery", "backends", "tasks"},
}


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@cache
def imports(path: Path) -> frozenset[str]:
    """Return what a module imports, at whatever place, but for the sake of types alone."""
    tree, names = ast.parse(path.read_text()), set()
    for_types = [part for node in ast.walk(tree) if _is_for_types(node) for part in node.body]  # type: ignore[attr-defined]
    skipped = {id(inner) for part in for_types for inner in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


@cache
def inside(path: Path) -> frozenset[str]:
    """Return the modules of the package that a module imports."""
    names = {name.removeprefix("queued_storage.") for name in imports(path) if name.startswith("queued_storage.")}
    return frozenset(name for name in names if name in MODULES)


def reachable(module: str) -> set[str]:
    """Return the modules of the package that a module imports, itself or through others."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        for name in inside(MODULES[todo.pop()]) - seen:
            seen.add(name)
            todo.append(name)
    return seen


def words(module: str) -> set[str]:
    """Return everything that a module knows: modules of ours, Celery, Django's storages."""
    known = {module, *reachable(module)}
    outside = {name for one in known for name in imports(MODULES[one])}
    found = {part for name in known - {module} for part in (name, name.split(".")[0])}
    found |= {"celery"} if {name.split(".")[0] for name in outside} & CELERY else set()
    own = imports(MODULES[module])
    return found | ({"storage"} if any(name.startswith("django.core.files.storage") for name in own) else set())


@pytest.mark.parametrize("module", FORBIDDEN)
def test_downwards(module: str) -> None:
    """A module knows nothing of those above it, nor of what is not its business."""
    assert words(module) & FORBIDDEN[module] == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name and name.split(".")[0] not in {*TOP, "apps"}])
def test_nothing_knows_the_top(module: str) -> None:
    """No module of the core imports admin, checks, views, commands or the testing kit."""
    assert {name.split(".")[0] for name in inside(MODULES[module])} & TOP == set()


def test_no_ring() -> None:
    """No module imports itself through others."""
    assert [name for name in MODULES if name in reachable(name)] == []


def test_the_names_exist() -> None:
    """The table above speaks of modules that are there."""
    assert set(FORBIDDEN) <= set(MODULES)
