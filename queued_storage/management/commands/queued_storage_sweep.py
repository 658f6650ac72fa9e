"""``manage.py queued_storage_sweep``: the sweep, for cron."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from queued_storage import foresight, ledger, sweeping, tasks
from queued_storage.management.commands import _base
from queued_storage.names import escape

DUTIES = ("rescued", "released", "sent", "spilled", "late", "pruned")


class Command(_base.Command):
    """Run one sweep."""

    help = (
        "Rescue, release and re-queue what is due, evict and remove copies, tell of what is late, and prune: what "
        "Celery beat does every minute, for projects that run cron in its place. --dry-run lists the records that are "
        "due with what would be done, but not what limits of bytes would evict, nor what would be told of and pruned."
    )
    flags = ("--dry-run",)

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flags of this command."""
        super().add_arguments(parser)
        parser.add_argument(
            "--in-process", action="store_true", help="Do the work here in place of sending messages to workers."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Sweep and print how many records were moved on, by duty."""
        if options["dry_run"]:
            self._list(options)
            return
        counts = sweeping.sweep(sweeping.process_all if options["in_process"] else tasks.send)
        facts = {duty: counts.get(duty, 0) for duty in DUTIES}
        self.emit(options, facts, _base.table(facts))

    def _list(self, options: dict[str, Any]) -> None:
        due = foresight.due()
        counts = {duty: ledger.persist(due[duty].order_by().count) for duty in foresight.DUTIES}
        if options["json"]:
            self.emit(options, {f"would_{duty}": count for duty, count in counts.items()}, "")
            return
        for duty in foresight.DUTIES:
            for record in due[duty].iterator():
                self.stdout.write(f"{escape(record.storage)}: {escape(record.name)}: {duty}")
        shown = ", ".join(f"{duty} {count}" for duty, count in counts.items())
        self.tell(_("Would do: %(duties)s.") % {"duties": shown})
