"""What operations report: one item for each file that they looked at, and their sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from queued_storage.models import TransferRecord


@dataclass(frozen=True)
class Item:
    """What became of one file: ``outcome`` is one word, ``reason`` a sentence where a person should read one."""

    storage: str
    name: str
    outcome: str
    changed: bool = False
    reason: str = ""
    size: int = 0


def item(record: TransferRecord, outcome: str, changed: bool = False, reason: str = "") -> Item:
    """Return what became of ``record``."""
    return Item(record.storage, record.name, outcome, changed, reason, record.size or 0)


# Files of which a result keeps what a person should read.
TOLD = 5


@dataclass
class Result:
    """How many files an operation changed, of how many bytes, and how many it did not, by reason.

    ``done`` counts the changed by outcome, ``told`` are the first files of which there is something to say.
    """

    changed: int = 0
    unchanged: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    done: Counter[str] = field(default_factory=Counter)
    told: list[Item] = field(default_factory=list)

    def add(self, each: Item) -> None:
        """Add one file."""
        if each.changed:
            self.changed += 1
            self.done[each.outcome] += 1
            self.bytes += each.size
        else:
            self.unchanged[each.outcome] += 1
        if each.reason and len(self.told) < TOLD:
            self.told.append(each)


def tally(items: Iterable[Item]) -> Result:
    """Carry out an operation to its end and return the sum."""
    result = Result()
    for each in items:
        result.add(each)
    return result
