"""Run tests with a bug in the package: what is imported is the patched source, on the disk nothing changes.

The process that forks the runs has imported what all of them need and nothing of the package. A run prints that the bug
was put in where its module was imported; a patch that does not fit raises there.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START = "from tests.machines.seeding import serve; serve()"
VARIABLE = "QUEUED_STORAGE_SEEDED_BUG"
# What the tests import and takes long.
PRELOADED = ("pytest", "hypothesis.stateful", "factory", "celery", "kombu", "django.test", "django.contrib.admin")

# Where to note what was put in: past pytest, which keeps the output of imports to itself.
notes = 2

# Module of the package (a path in it), text, and what stands there in its place.
Edit = tuple[str, str, str]


class PatchError(ImportError):
    """A seeded bug does not fit the code any more: see what the code does now, and break that."""


def edited(text: str, edits: Sequence[Edit]) -> str:
    """Return the source of a module with the edits made; raises ``PatchError`` where one does not fit."""
    for module, old, new in edits:
        if text.count(old) != 1:
            raise PatchError(f"{module} has {text.count(old)} times: {old}")
        text = text.replace(old, new)
    return text


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module of the package with the edits of a bug."""

    def __init__(self, name: str, path: str, edits: Sequence[Edit]) -> None:
        super().__init__(name, path)
        self.edits = edits

    def get_code(self, fullname: str) -> Any:
        """Compile the edited source, which no cache of bytecode may know."""
        text = edited(Path(self.path).read_text(), self.edits)
        for module in {module for module, _, _ in self.edits}:
            os.write(notes, f"seeded: {module}\n".encode())
        return compile(text, self.path, "exec")


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that have a bug before anybody else does."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self.edits: Mapping[str, list[Edit]] = {
            f"queued_storage.{module.removesuffix('.py').replace('/', '.')}": [
                edit for edit in edits if edit[0] == module
            ]
            for module, _, _ in edits
        }

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        """Answer for our modules alone."""
        if fullname not in self.edits:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert found is not None
        assert found.origin is not None
        loader = Loader(fullname, found.origin, self.edits[fullname])
        return importlib.util.spec_from_file_location(fullname, found.origin, loader=loader)


def seed(edits: Sequence[Edit]) -> None:
    """Put a bug into what this process, and the processes that it starts, import of the package from now on."""
    assert "queued_storage" not in sys.modules
    os.environ[VARIABLE] = json.dumps(edits)
    sys.meta_path.insert(0, Finder(edits))


def inherit() -> None:
    """Put in the bug of the process that has started this one, if any."""
    if edits := os.environ.get(VARIABLE):
        seed([(module, old, new) for module, old, new in json.loads(edits)])


def serve() -> None:
    """Fork a run of pytest for each line of standard input, and answer with its exit code when it has ended."""
    for name in PRELOADED:
        importlib.import_module(name)
    with os.fdopen(os.dup(1), "w") as answers:
        for line in sys.stdin:
            question = json.loads(line)
            pid = os.fork()
            if pid == 0:
                _run(**question)
            answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
            answers.flush()


def _run(edits: list[Edit], arguments: list[str], output: str) -> None:
    global notes
    code = 70
    try:
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        notes = os.dup(handle)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        seed(edits)
        import pytest

        code = int(pytest.main(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
