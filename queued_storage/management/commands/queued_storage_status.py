"""``manage.py queued_storage_status``: what is owed; a probe when given limits."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from queued_storage import probes
from queued_storage.management.commands import _base, _flags
from queued_storage.models import State
from queued_storage.names import escape
from queued_storage.probes import Limits
from queued_storage.summary import Summary, age_text, summarize


class Command(_base.Command):
    """Show the state of every storage, and end with 1 if a limit is exceeded."""

    help = "Show how many files each storage has in which state, and what is owed, stalled and failed."
    flags = ("--storage",)
    exit_codes = {_base.DONE: "within the limits", _base.NOT_ALL: "a limit is exceeded"}

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the limits."""
        super().add_arguments(parser)
        limits: list[tuple[str, Any, str, str]] = [
            ("--max-age", _flags.duration, "TIME", "Limit for the age of the oldest owed file, such as 15m."),
            ("--max-owed", _flags.amount, "N", "Limit for owed files."),
            ("--max-bytes", _flags.size, "SIZE", "Limit for owed bytes, such as 20G."),
            ("--max-stalled", _flags.amount, "N", "Limit for files that have used up their retries."),
            ("--max-failed", _flags.amount, "N", "Limit for failed files."),
            ("--max-down", _flags.amount, "N", "Limit for storages whose remote is down."),
            ("--max-sweep-age", _flags.duration, "TIME", "Limit for the age of the last sweep, such as 5m."),
        ]
        for flag, kind, metavar, text in limits:
            parser.add_argument(flag, type=kind, metavar=metavar, help=text)

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the summary, then what exceeds its limit."""
        storages, total = summarize(options["storage"])
        swept = probes.sweep_age()
        limits = Limits(**{field.name: options[field.name] for field in fields(Limits)})
        exceeded = [_sentence(each) for each in probes.exceeded(limits, storages, total, swept)]
        facts = {
            "storages": [summary.as_dict() for summary in storages],
            "total": total.as_dict(),
            "sweep_age": None if swept is None else swept.total_seconds(),
            "exceeded": exceeded,
        }
        self.emit(options, facts, _text(storages, total, swept))
        for text in exceeded:
            self.tell(text)
        _base.ending(_base.NOT_ALL if exceeded else _base.DONE)


def _sentence(each: probes.Exceeded) -> str:
    return _("%(text)s: more than %(limit)s") % {"text": each.text, "limit": f"--{each.limit.replace('_', '-')}"}


def _text(storages: list[Summary], total: Summary, swept: timedelta | None) -> str:
    rows = [(_("storage"), _("state"), _("files"), _("bytes"))]
    for summary in storages:
        for state, amount in summary.states.items():
            if amount.files:
                label = str(State(state).label)
                rows.append((escape(summary.storage), label, str(amount.files), str(amount.bytes)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows]
    return "\n".join([*lines, "", *_totals(storages, total, swept)])


def _totals(storages: list[Summary], total: Summary, swept: timedelta | None) -> list[str]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(total.failed.items()))
    owed = {"files": total.owed.files, "bytes": total.owed.bytes, "age": age_text(total.oldest_owed)}
    failed = _("%(files)d files") % {"files": total.states["failed"].files}
    facts = [
        (_("owed"), _("%(files)d files, %(bytes)d bytes, oldest %(age)s") % owed),
        (_("stalled"), _("%(files)d files") % {"files": total.stalled}),
        (_("failed"), f"{failed} ({kinds})" if kinds else failed),
        (_("swept"), probes.sweep_text(swept)),
        *((_("down"), _since(summary, summary.down_since)) for summary in storages if summary.down_since),
        *((_("paused"), _since(summary, summary.paused_since)) for summary in storages if summary.paused_since),
    ]
    # In English these words need eight columns; in other languages more.
    width = max(8, *(len(word) + 1 for word, _value in facts))
    return [f"{word + ':':<{width}} {text}" for word, text in facts]


def _since(summary: Summary, moment: datetime) -> str:
    shown = f"{moment:%Y-%m-%d %H:%M:%S %Z}".strip()
    return _("%(storage)s, since %(moment)s") % {"storage": escape(summary.storage), "moment": shown}
