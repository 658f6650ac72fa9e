"""Figures for the budgets of style: ``python -m tests.style``, or ``python -m tests.style FOLDER`` for another package.

Lines are those of the file, empty ones and docstrings included, so that anybody can count them; a function goes from
its ``def`` to its last line. Migrations are left out, for Django writes them.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
# Lines: a module should not have more, and may not have more; likewise a function.
MODULE, MODULE_STOP = 250, 400
FUNCTION, FUNCTION_STOP = 20, 50
# A comment that is read by a tool gives no reason to anybody.
MARKS = ("# noqa", "# type:", "#!")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file, read."""

    path: Path
    lines: int
    comments: int
    functions: list[tuple[str, int, bool]]

    @classmethod
    def read(cls, path: Path) -> Module:
        """Count its lines, its comments, and the lines of its functions, each of which is fully typed or not."""
        text = path.read_text(encoding="utf-8")
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        comments = [token for token in tokens if token.type == tokenize.COMMENT and not token.string.startswith(MARKS)]
        functions = [
            (node.name, (node.end_lineno or 0) - node.lineno + 1, is_typed(node))
            for node in ast.walk(ast.parse(text))
            if isinstance(node, Function)
        ]
        return cls(path, len(text.splitlines()), len(comments), functions)


def is_typed(function: Function) -> bool:
    """Tell whether every parameter and the result have a type; ``self`` and ``cls`` need none."""
    given = function.args
    parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    untyped = [each.arg for each in parameters if each is not None and each.annotation is None]
    return function.returns is not None and set(untyped) <= {"self", "cls"}


def modules(folder: Path) -> list[Module]:
    """Return the modules of a folder that have something in them."""
    paths = (path for path in sorted(folder.rglob("*.py")) if "migrations" not in path.parts)
    return [module for module in map(Module.read, paths) if module.lines]


def figures(code: list[Module], tests: list[Module]) -> Iterator[tuple[str, str]]:
    """Yield each figure with its name."""
    lengths = sorted(module.lines for module in code)
    functions = sorted(lines for module in code for _, lines, _ in module.functions)
    within = sum(lines <= FUNCTION for lines in functions)
    typed = sum(is_typed for module in code for *_, is_typed in module.functions)
    total = sum(lengths)
    yield "modules", str(len(code))
    yield "module lines median / max", f"{statistics.median(lengths):g} / {lengths[-1]}"
    yield f"modules of more than {MODULE} lines", f"{sum(lines > MODULE for lines in lengths)}"
    yield (
        "function lines median / p90 / max",
        (f"{statistics.median(functions):g} / {functions[len(functions) * 9 // 10]} / {functions[-1]}"),
    )
    yield f"functions within {FUNCTION} lines", f"{100 * within / len(functions):.1f} %"
    yield "typed", f"{100 * typed / len(functions):.1f} %"
    yield "comment lines per 100", f"{100 * sum(module.comments for module in code) / total:.1f}"
    if tests:
        yield "test / code", f"{sum(module.lines for module in tests) / total:.1f}"


def beyond(code: list[Module]) -> Iterator[str]:
    """Yield what is larger than it may be."""
    for module in code:
        if module.lines > MODULE_STOP:
            yield f"{module.path.name}: {module.lines} lines"
        yield from (
            f"{module.path.name}: {name}: {lines} lines" for name, lines, _ in module.functions if lines > FUNCTION_STOP
        )


if __name__ == "__main__":
    chosen = [Path(argument) for argument in sys.argv[1:]]
    found = modules(chosen[0] if chosen else PROJECT / "queued_storage")
    for name, value in figures(found, [] if chosen else modules(PROJECT / "tests")):
        print(f"{name:<34} {value}")
    sys.exit("\n".join(beyond(found)) or 0)
