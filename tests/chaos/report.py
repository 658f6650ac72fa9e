"""What a run of the chaos has shown."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Lost:
    """A record in the hand of a worker that was killed ``at`` this moment; ``calm`` if no other fault follows soon."""

    at: float
    pk: int
    calm: bool


@dataclass
class Report:
    """Counts of everything that happened, and every broken promise."""

    subject: str
    seed: str
    seconds: float
    faults: Counter[str] = field(default_factory=Counter)
    hits: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    deleted: int = 0
    refused: int = 0
    unknown: int = 0
    rolled_back: int = 0
    slowest_save: float = 0.0
    reads: Counter[str] = field(default_factory=Counter)
    violations: list[Any] = field(default_factory=list)
    # Seconds from the kill -9 of a worker to the arrival of each file in its hand, without other faults and with them.
    recoveries: list[float] = field(default_factory=list)
    recoveries_amid_faults: list[float] = field(default_factory=list)
    slowest_recovery: list[str] = field(default_factory=list)
    settled_after: float = 0.0
    # What stands at the end, of the files that were acknowledged and not deleted.
    kept: int = 0
    lost: int = 0
    wrong: int = 0
    unreadable: int = 0
    stranded: int = 0
    orphans: int = 0

    @property
    def checked(self) -> int:
        """How many reads the referee has judged."""
        return sum(self.reads[verdict] for verdict in ("ok", "wrong", "lie", "not found", "temporary"))

    def lines(self) -> str:
        """Return the report for people."""
        shown = vars(self) | {"checked reads": self.checked}
        shown |= {name: _times(shown[name]) for name in ("recoveries", "recoveries_amid_faults")}
        shown["violations"] = f"{len(self.violations)} {self.violations[:10]}"
        return "\n".join(
            f"{name}: {dict(sorted(value.items())) if isinstance(value, Counter) else value}"
            for name, value in shown.items()
        )


def _times(seconds: list[float]) -> str:
    if not seconds:
        return "none"
    middle = statistics.median(seconds)
    return f"{len(seconds)} files, median {middle:.1f} s, maximum {max(seconds):.1f} s"


@contextmanager
def seeded(seed: str | None) -> Iterator[str]:
    """Yield a seed, the given one or a new one, and print it with any failure: it replays the plan."""
    chosen = seed or str(random.SystemRandom().randrange(10**9))
    try:
        yield chosen
    except BaseException:
        print(f"QUEUED_STORAGE_SEED={chosen} replays this plan")  # noqa: T201
        raise
