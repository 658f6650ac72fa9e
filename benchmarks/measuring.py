"""Measure several ways of doing one thing side by side, in turns, and compare them by ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from django.db import connection
from django.test.utils import setup_test_environment, teardown_test_environment

ROUNDS = 7


@contextmanager
def database() -> Iterator[None]:
    """Make an empty database of the benchmark's own, and drop it afterwards."""
    setup_test_environment()
    before = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0)
    try:
        yield
    finally:
        connection.creation.destroy_test_db(before, verbosity=0)
        teardown_test_environment()


def side_by_side(
    ways: Mapping[str, Callable[[int], object]], times: int, slow: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Return the median over rounds of each way's time for one call, in microseconds.

    In each round every way is called ``times`` times with running numbers (``slow`` ones as often as it says), so that
    whatever else the machine does falls upon all of them.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS):
        for name, way in ways.items():
            count = (slow or {}).get(name, times)
            started = time.perf_counter()
            for number in range(count):
                way(turn * times + number)
            found[name].append((time.perf_counter() - started) / count * 1e6)
    return {name: statistics.median(values) for name, values in found.items()}


def report(
    title: str, medians: Mapping[str, float], ours: str, goals: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Print each way's median, and its ratio to ours; return the ratios by what they are."""
    print(f"\n{title}")
    for name, median in medians.items():
        ratio = "" if name == ours else f"ours / this = {medians[ours] / median:8.3f}   {(goals or {}).get(name, '')}"
        print(f"  {name:<52}{median:>12.0f} us   {ratio}", flush=True)
    return {f"{title}: {ours} / {name}": medians[ours] / median for name, median in medians.items() if name != ours}
