"""``manage.py queued_storage_restore``: remote files come back to the local side."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from queued_storage import ledger, restoring
from queued_storage.management.commands import _base
from queued_storage.names import escape

SHOWN = (restoring.RESTORED, "bytes", restoring.PRESENT, restoring.ALTERED, restoring.TAKEN, restoring.UNKNOWN)


class Command(_base.Command):
    """Copy remote files back to the local side."""

    help = (
        "Copy transferred files that have no local copy back to the local side, compare them with what was saved, and "
        "keep them there until somebody evicts them: to serve them from there when the remote is away, or to leave it. "
        "Nothing is written over, and nothing is removed from the remote. May be interrupted and repeated."
    )
    flags = ("--storage", "--prefix", "--older-than", "--limit", "--dry-run", "--no-progress", "--rate", "--threads")
    exit_codes = {
        _base.DONE: "every chosen file is local",
        _base.NOT_ALL: "some are not; stderr says which and why",
    }

    def handle(self, *args: Any, **options: Any) -> None:
        """Restore, or list what would be."""
        rows = self.selected(options, restoring.restorable(ledger.records()))
        total = _base.count(rows, options["limit"])
        if options["dry_run"]:
            self._list(rows.order_by("pk")[: options["limit"]], total, options)
            return
        items = restoring.restore(rows, options["limit"], options["rate"], options["threads"])
        counts, code = self.carry_out(items, total, options)
        facts = {name: counts[name] for name in SHOWN}
        self.emit(options, facts, _base.table(facts))
        missed = any(counts[name] for name in SHOWN[3:])
        _base.ending(code or (_base.NOT_ALL if missed else _base.DONE))

    def _list(self, rows: Any, total: int, options: dict[str, Any]) -> None:
        if options["json"]:
            self.emit(options, {"would_restore": total}, "")
            return
        for record in rows.iterator():
            self.stdout.write(f"{escape(record.storage)}: {escape(record.name)}: {record.size} bytes")
        self.tell(_("Would restore %(files)d files.") % {"files": total})
