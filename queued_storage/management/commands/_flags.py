"""The flags that commands share, and how their values are read."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta
from typing import Any

from queued_storage import conf, ledger
from queued_storage.models import State
from queued_storage.names import escape
from queued_storage.pairs import aliases


def known_storage(alias: str) -> str:
    """Return ``alias`` if it is configured or has records; for argparse."""
    known = aliases()
    if alias not in known and not ledger.records().filter(storage=alias).exists():
        shown = ", ".join(escape(name) for name in known) or "none"
        raise argparse.ArgumentTypeError(f"no storage has the alias {escape(alias)}; there are: {shown}")
    return alias


def amount(text: str) -> int:
    """Read a whole number of zero or more; for argparse."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"write a whole number of zero or more, not {escape(text)}")
    return int(text)


def positive(text: str) -> int:
    """Read a whole number of one or more; for argparse."""
    if amount(text) == 0:
        raise argparse.ArgumentTypeError("write a whole number of one or more, not 0")
    return int(text)


def size(text: str) -> int:
    """Read ``500``, ``100K``, ``20M``, ``5G`` or ``1T``: bytes, in powers of 1024; for argparse."""
    try:
        return conf.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {escape(text)}") from None


def duration(text: str) -> timedelta:
    """Read ``90``, ``90s``, ``15m``, ``6h`` or ``2d``; for argparse."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"write a duration such as 90s, 15m, 6h or 2d, not {escape(text)}")
    unit = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
    return timedelta(**{unit: int(match[1])})


#: The shared flags, as they are everywhere.
SHARED: dict[str, dict[str, Any]] = {
    "--storage": {"metavar": "ALIAS", "type": known_storage, "help": "Only files of this storage."},
    "--state": {"choices": State.values, "action": "append", "help": "Only files in this state; may be repeated."},
    "--prefix": {"metavar": "TEXT", "help": "Only files whose name begins so, such as photos/2024/."},
    "--older-than": {"metavar": "TIME", "type": duration, "help": "Only files saved longer ago, such as 2d."},
    "--limit": {"metavar": "N", "type": amount, "help": "At most this many files."},
    "--dry-run": {"action": "store_true", "help": "Change nothing; list what would be done."},
    "--threads": {"metavar": "N", "type": positive, "default": 1, "help": "Work on this many files at a time."},
    "--rate": {"metavar": "N", "type": positive, "help": "At most so many files a second."},
    "--json": {"action": "store_true", "help": "Write JSON to stdout."},
    "--no-progress": {"action": "store_true", "help": "Do not count on stderr."},
}
