"""Bars for the charts of the dashboard, drawn by the server: positions only, the template makes SVG of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

WIDTH, HEIGHT = 720, 120
# Something that happened is seen, however small it is beside the rest.
LEAST = 2
# Labels under the bars stand this far apart, at most.
LABELS = 8


class Countable(Protocol):
    """What has a good and a bad part."""

    @property
    def transferred(self) -> int:
        """The good part."""

    @property
    def failed(self) -> int:
        """The bad part."""


B = TypeVar("B", bound=Countable)


@dataclass(frozen=True)
class Bar(Generic[B]):
    """One bar of two parts, the bad one on top, in units of the picture; and what it stands for."""

    bucket: B
    x: float
    width: float
    good_y: float
    good_height: float
    bad_y: float
    bad_height: float
    labelled: bool

    @property
    def middle(self) -> float:
        """Where its label stands."""
        return round(self.x + self.width / 2, 1)


@dataclass(frozen=True)
class Chart(Generic[B]):
    """Bars side by side; ``top`` is what the full height stands for."""

    bars: list[Bar[B]]
    top: int
    width: int = WIDTH
    height: int = HEIGHT


def draw(buckets: Sequence[B]) -> Chart[B]:
    """Return one bar for each bucket."""
    top = max((bucket.transferred + bucket.failed for bucket in buckets), default=0)
    step = WIDTH / max(len(buckets), 1)
    every = max(len(buckets) // LABELS, 1)
    bars = []
    for index, bucket in enumerate(buckets):
        good, bad = _height(bucket.transferred, top), _height(bucket.failed, top)
        # Two parts that were lifted to be seen must not leave the picture.
        good = min(good, HEIGHT - bad)
        labelled = (len(buckets) - 1 - index) % every == 0
        x, width = round(index * step + step * 0.1, 1), round(step * 0.8, 1)
        bars.append(Bar(bucket, x, width, HEIGHT - good, good, round(HEIGHT - good - bad, 1), bad, labelled))
    return Chart(bars, top)


def _height(count: int, top: int) -> float:
    return max(round(HEIGHT * count / top, 1), LEAST) if count else 0
