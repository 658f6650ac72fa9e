"""A span of OpenTelemetry around each attempt, where its API is installed; nothing at all where it is not."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

Note = Callable[..., None]


@cache
def _api() -> Any:
    # Not imported with the package: it is no requirement, and slow to import.
    try:
        return importlib.import_module("opentelemetry.trace")
    except ImportError:
        return None


@contextlib.contextmanager
def span(name: str, **facts: Any) -> Iterator[Note]:
    """Open a span of this name with ``facts`` as its attributes ``queued_storage.*``; yield what adds further ones.

    A fact ``error`` becomes the span's status, too.
    """
    trace = _api()
    if trace is None:
        yield lambda **more: None
        return
    tracer = trace.get_tracer("queued_storage")
    with tracer.start_as_current_span(name, attributes=_attributes(facts)) as current:

        def note(**more: Any) -> None:
            current.set_attributes(_attributes(more))
            if more.get("error"):
                current.set_status(trace.StatusCode.ERROR, str(more["error"]))

        yield note


def context() -> Any:
    """Return what another thread must be given for its spans to belong where those of this one do."""
    return None if _api() is None else importlib.import_module("opentelemetry.context").get_current()


@contextlib.contextmanager
def within(parent: Any) -> Iterator[None]:
    """Have spans begin in ``parent``, a ``context()``."""
    if parent is None:
        yield
        return
    contexts = importlib.import_module("opentelemetry.context")
    token = contexts.attach(parent)
    try:
        yield
    finally:
        contexts.detach(token)


def _attributes(facts: dict[str, Any]) -> dict[str, Any]:
    return {f"queued_storage.{name}": value for name, value in facts.items() if isinstance(value, (str, int, float))}
