"""``manage.py queued_storage_reconcile``: local side, remote and ledger beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from queued_storage import adopting, reconciling
from queued_storage.management.commands import _base
from queued_storage.names import escape
from queued_storage.pairs import aliases, pair_for
from queued_storage.reconciling import SAFE, Action, Row, Scope
from queued_storage.results import Item


class Command(_base.Command):
    """Show where the three sides differ, and with --apply do what is safe."""

    help = (
        "Compare local side, remote and ledger, file by file, and print a plan: one line for each difference with what "
        "it calls for. --apply carries out the safe part: it adopts files without a record, queues what the remote "
        "lost and the local side still has, and corrects what the ledger says of local copies. It deletes nothing and "
        "writes over nothing; the rest of the plan is for a person. Without --apply, or with --dry-run, it changes "
        "nothing."
    )
    flags = ("--storage", "--prefix", "--older-than", "--limit", "--dry-run", "--no-progress", "--rate", "--threads")
    exit_codes = {
        _base.DONE: "the three sides agree, or do so now",
        _base.NOT_ALL: "there is something left to do",
    }

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flags of this command."""
        super().add_arguments(parser)
        parser.set_defaults(older_than=adopting.YOUNGEST)
        parser.add_argument("--apply", action="store_true", help="Carry out the safe part of the plan.")
        parser.add_argument("--deep", action="store_true", help="Compare bytes in place of sizes and digests.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the plan and how many lines it has of each kind."""
        scope = Scope(
            prefix=options["prefix"] or "",
            deep=options["deep"],
            rate=options["rate"],
            older_than=options["older_than"],
            apply=options["apply"] and not options["dry_run"],
            threads=options["threads"],
        )
        plan: list[Row] = []
        chosen = [options["storage"]] if options["storage"] else aliases()
        rows = self._rows(chosen, scope, plan, options)
        _counts, code = self.carry_out(rows, options["limit"], options)
        counts = Counter(str(row.action) for row in plan)
        left = sum(not row.applied for row in plan)
        if options["json"]:
            facts = [{**asdict(row), "safe": row.action in SAFE} for row in plan]
            self.emit(options, {"plan": facts, "counts": dict(sorted(counts.items())), "left": left}, "")
        shown = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
        text = _("%(count)d differences, %(done)d put right.")
        if shown:
            text = _("%(count)d differences (%(kinds)s), %(done)d put right.")
        self.tell(text % {"count": len(plan), "kinds": shown, "done": len(plan) - left})
        _base.ending(code or (_base.NOT_ALL if left else _base.DONE))

    def _rows(self, chosen: list[str], scope: Scope, plan: list[Row], options: Mapping[str, Any]) -> Generator[Item]:
        rows = (row for alias in chosen for row in reconciling.reconcile(pair_for(alias), scope))
        try:
            for row in islice(rows, options["limit"]):
                if row.action != Action.NONE:
                    plan.append(row)
                    if not options["json"]:
                        self.stdout.write(_line(row, scope.apply))
                yield Item(row.storage, row.name, str(row.action), row.applied)
        finally:
            rows.close()


def _line(row: Row, apply: bool) -> str:
    sides = _("ledger %(ledger)s, local %(local)s, remote %(remote)s") % asdict(row)
    done = _("done") if row.applied else _("not done")
    ended = f": {done}" if apply and row.action in SAFE else ""
    return f"{escape(row.storage)}: {escape(row.name)}: {sides}: {row.action}{ended}"
