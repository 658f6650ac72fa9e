"""What the commands have in common: flags, output, progress, exit codes."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import nullcontext
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import QuerySet
from django.utils.translation import gettext as _, override

from queued_storage import ledger, selecting
from queued_storage.management.commands import _flags
from queued_storage.management.commands._progress import Progress
from queued_storage.models import TransferRecord
from queued_storage.names import escape
from queued_storage.results import Item

DONE, NOT_ALL, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


class Command(BaseCommand):
    """A command that writes data to stdout and words for people to stderr.

    ``flags`` are those of the shared ones that it takes, beside ``--json``; ``exit_codes`` says what each code means,
    which ``--help`` shows.
    """

    # One storage that is configured wrongly keeps no other from being worked on; ``manage.py check`` tells of it.
    requires_system_checks: list[str] = []
    flags: tuple[str, ...] = ()
    exit_codes: Mapping[int, str] = {DONE: "done"}

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return the parser, with the exit codes below its options."""
        epilog = f"Exit codes: {'; '.join(f'{code} {text}' for code, text in self.all_exit_codes().items())}."
        return super().create_parser(prog_name, subcommand, epilog=epilog, **kwargs)

    def all_exit_codes(self) -> dict[int, str]:
        """Return what each exit code means, those of every command included."""
        return dict(sorted({WRONG_USE: "wrong use", INTERRUPTED: "interrupted", **self.exit_codes}.items()))

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run; Ctrl-C ends in a word and in 130, wherever it comes. JSON is for programs, and in English always."""
        try:
            with override(None) if options.get("json") else nullcontext():
                return super().execute(*args, **options)
        except KeyboardInterrupt:
            self.tell(_("Interrupted."))
            sys.exit(INTERRUPTED)

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the shared flags of this command."""
        for flag in (*self.flags, "--json"):
            parser.add_argument(flag, **_flags.SHARED[flag])

    def selected(self, options: Mapping[str, Any], rows: QuerySet[TransferRecord]) -> QuerySet[TransferRecord]:
        """Return those of ``rows`` that the shared flags choose."""
        wanted = {name: options.get(name) for name in ("storage", "prefix", "older_than", "kind")}
        return selecting.select(rows, states=options.get("state"), **wanted)

    def emit(self, options: Mapping[str, Any], data: Mapping[str, Any], text: str) -> None:
        """Write the result: as JSON if that was asked for, else as text."""
        self.stdout.write(json.dumps(data, indent=2) if options["json"] else text)

    def tell(self, text: str) -> None:
        """Say something to the person who runs the command."""
        self.stderr.write(text, style_func=str)

    def carry_out(
        self, items: Generator[Item], total: int | None, options: Mapping[str, Any]
    ) -> tuple[Counter[str], int]:
        """Go through the work of an operation; return how many files ended how, and the exit code.

        Shows progress, and says on stderr what a person should know of a file. Ctrl-C ends the work after the file at
        hand, or within it: nothing is lost by that, and another run goes on.
        """
        counts: Counter[str] = Counter()
        progress = Progress(self.stderr, total, shown=not options.get("no_progress"))
        code = DONE
        try:
            for item in items:
                counts[item.outcome] += 1
                counts["bytes"] += item.size if item.changed else 0
                progress.step()
                if item.reason:
                    progress.clear()
                    self.tell(explain(item))
        except KeyboardInterrupt:
            code = INTERRUPTED
        finally:
            # What its threads have in hand is finished before the counts are told.
            items.close()
            progress.close()
        return counts, code


def explain(item: Item) -> str:
    """Return one line about a file."""
    return f"{escape(item.storage)}: {escape(item.name)}: {item.outcome}: {escape(item.reason, 2000)}"


def table(facts: Mapping[str, object]) -> str:
    """Return facts one a line, their values in a column."""
    width = max(len(name) for name in facts) + 1
    return "\n".join(f"{name + ':':<{width}} {value}" for name, value in facts.items())


def count(rows: QuerySet[TransferRecord], limit: int | None) -> int:
    """Return how many rows there are, of the first ``limit`` of them."""
    return ledger.persist(rows.order_by()[:limit].count)


def failure(message: str) -> CommandError:
    """Return the error that ends a command which was called wrongly."""
    return CommandError(message, returncode=WRONG_USE)


def ending(code: int) -> None:
    """End the command with this exit code, unless all went well."""
    if code:
        sys.exit(code)
