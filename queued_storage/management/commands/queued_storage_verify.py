"""``manage.py queued_storage_verify``: does the remote still hold what was transferred?"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from queued_storage import ledger, verifying
from queued_storage.management.commands import _base, _flags
from queued_storage.models import State

SHOWN = (verifying.VERIFIED, verifying.REQUEUED, verifying.MISSING, verifying.ALTERED, verifying.UNKNOWN)


class Command(_base.Command):
    """Look at the remote copies of transferred files."""

    help = (
        "Ask the remote for size and digest of every transferred file, or with --deep read it, and compare with what "
        "was saved. What is gone or altered there is queued again where the local copy was kept; the others are named "
        "with their reason, and it stands in their records. Nothing is deleted or written over. Interrupted, another "
        "run with --every goes on where this one ended."
    )
    flags = ("--storage", "--prefix", "--older-than", "--limit", "--dry-run", "--no-progress", "--rate", "--threads")
    exit_codes = {
        _base.DONE: "every file that was looked at is there",
        _base.NOT_ALL: "some are not, or gave no answer; stderr says which and why",
    }

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flags of this command."""
        super().add_arguments(parser)
        parser.add_argument("--deep", action="store_true", help="Read the bytes in place of asking for their digest.")
        parser.add_argument(
            "--every",
            type=_flags.duration,
            metavar="TIME",
            help="Only files not looked at for so long: run daily with --every 30d for a full round each month.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Verify and print how many files were found how."""
        rows = self.selected(options, ledger.records().filter(state=State.TRANSFERRED))
        if options["every"] is not None:
            rows = verifying.due(rows, options["every"])
        total = _base.count(rows, options["limit"])
        if options["dry_run"]:
            self.emit(options, {"would_verify": total}, f"would verify: {total}")
            return
        items = verifying.verify(rows, options["limit"], options["deep"], options["rate"], options["threads"])
        counts, code = self.carry_out(items, total, options)
        facts = {name: counts[name] for name in SHOWN}
        self.emit(options, facts, _base.table(facts))
        _base.ending(code or (_base.NOT_ALL if any(facts[name] for name in SHOWN[1:]) else _base.DONE))
