"""``manage.py queued_storage_run``: do here and now what is owed, without a broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from queued_storage import draining, health, ledger
from queued_storage.management.commands import _base
from queued_storage.models import Outcome, TransferRecord
from queued_storage.names import escape
from queued_storage.results import Item, item

SHOWN = (Outcome.TRANSFERRED, Outcome.RETRY, Outcome.FAILED, Outcome.LOST)


class Command(_base.Command):
    """Transfer everything that is owed, once each."""

    help = (
        "Transfer every file that is owed, in this process and without a broker: oldest first, one attempt each, "
        "whatever their timers say. Then evict, remove and prune what is due, unless --storage, --prefix, "
        "--older-than or --limit is given. May be interrupted and repeated at any time, and run beside workers."
    )
    flags = ("--storage", "--prefix", "--older-than", "--limit", "--dry-run", "--no-progress", "--threads")
    exit_codes = {
        _base.DONE: "everything was transferred",
        _base.NOT_ALL: "something was not, stderr says what and why",
    }

    def add_arguments(self, parser: CommandParser) -> None:
        """Leave the number of threads open: as many as pay."""
        super().add_arguments(parser)
        parser.set_defaults(threads=None)

    def handle(self, *args: Any, **options: Any) -> None:
        """Transfer, or list what would be."""
        storage, prefix, age = options["storage"], options["prefix"], options["older_than"]
        limit = options["limit"]
        if options["dry_run"]:
            self._list(options)
            return
        total = draining.amount(draining.owed(storage, prefix, age), limit).files
        with closing(draining.drain(storage, limit, prefix, options["threads"], age)) as attempts:
            counts, code = self.carry_out(_items(attempts), total, options)
        if code == _base.DONE and not any((prefix, storage, age is not None, limit is not None)):
            code = self._tidy(counts)
        facts = {str(outcome.value): counts[outcome.value] for outcome in SHOWN}
        facts |= {name: counts[name] for name in ("skipped", "tidied", "pruned")}
        self.emit(options, facts, _base.table(facts))
        waiting, paused = draining.waiting(storage), health.paused()
        for alias, files in waiting.items():
            text = _("%(storage)s: the remote is down; %(files)d files wait until a probe succeeds.")
            if alias in paused:
                text = _("%(storage)s: it is paused; %(files)d files wait until somebody resumes it.")
            self.tell(text % {"storage": escape(alias), "files": files})
        elsewhere = draining.elsewhere(storage, prefix, age)
        for node, files in elsewhere.items():
            text = _("%(files)d files lie on the disk of %(node)s; run this there, or a worker.")
            self.tell(text % {"files": files, "node": escape(node)})
        missed = (
            waiting or elsewhere or any(counts[outcome.value] for outcome in SHOWN if outcome != Outcome.TRANSFERRED)
        )
        _base.ending(code or (_base.NOT_ALL if missed else _base.DONE))

    def _tidy(self, counts: Counter[str]) -> int:
        try:
            counts.update(draining.tidy())
        except KeyboardInterrupt:
            return _base.INTERRUPTED
        return _base.DONE

    def _list(self, options: dict[str, Any]) -> None:
        rows = draining.owed(options["storage"], options["prefix"], options["older_than"])
        amount = draining.amount(rows, options["limit"])
        if options["json"]:
            self.emit(options, {"would_transfer": {"files": amount.files, "bytes": amount.bytes}}, "")
            return
        for record in rows[: options["limit"]].iterator():
            self.stdout.write(f"{escape(record.storage)}: {escape(record.name)}")
        text = _("Would transfer %(files)d files, %(bytes)d bytes.")
        self.tell(text % {"files": amount.files, "bytes": amount.bytes})


def _items(attempts: Iterator[draining.Attempted]) -> Generator[Item]:
    for record, outcome in attempts:
        word = "skipped" if outcome is None else str(outcome.value)
        yield item(record, word, outcome == Outcome.TRANSFERRED, _reason(record, outcome))


def _reason(record: TransferRecord, outcome: Outcome | None) -> str:
    if outcome in (None, Outcome.TRANSFERRED):
        return ""
    now = ledger.get(record.pk)
    return f"{now.error_kind}: {now.error}" if now is not None and now.error_kind else _("taken by another")
