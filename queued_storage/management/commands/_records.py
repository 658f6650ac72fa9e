"""Commands that move chosen records: by name, by id, by the shared flags, or all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import SuspiciousFileOperation
from django.core.management.base import CommandParser
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from queued_storage import ledger
from queued_storage.management.commands import _base, _flags
from queued_storage.management.commands._progress import Progress
from queued_storage.models import State, TransferRecord
from queued_storage.names import clean_name, escape, record_key
from queued_storage.pairs import aliases
from queued_storage.results import Result

FILTERS = ("storage", "state", "prefix", "older_than", "kind")


class Command(_base.Command):
    """A command that moves records from some states; what was given by name or id must be in one of them."""

    flags: tuple[str, ...] = ("--storage", "--prefix", "--older-than", "--limit", "--dry-run", "--no-progress")
    #: The words of what is done, as in "queued: 3", and of what would be, as in "would queue 3 files".
    done, would = "queued", "queue"
    #: States that a record given by name or id may be in, and those that the other flags choose from.
    from_states: tuple[State, ...] = ()
    default_states: tuple[State, ...] = ()

    #: What does it.
    operation: Callable[..., Result]

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the ways to say which records."""
        parser.add_argument("name", nargs="*", help="Names of files; after -- if they begin with a dash.")
        parser.add_argument("--id", type=_flags.amount, action="append", metavar="N", help="Id of a record.")
        super().add_arguments(parser)
        # Nobody is to mean everything by leaving something out.
        parser.add_argument("--all", action="store_true", help=f"All {self.default_states[0]} files.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Move what was chosen and print how many were."""
        given = bool(options["name"] or options["id"])
        if not (given or options["all"] or any(options.get(name) is not None for name in FILTERS)):
            raise _base.failure(
                _("Say what to %(verb)s: %(ways)s or --all.")
                % {"verb": self.verb, "ways": ", ".join(self._ways(options))}
            )
        default = ledger.records() if options.get("state") else ledger.records().filter(state__in=self.default_states)
        rows = _named(options) if given else default
        rows = self.selected(options, rows)
        missing = self._missing(options, rows) if given else 0
        if options["dry_run"]:
            self._list(rows.filter(state__in=self.from_states), options)
            return
        result = self._carry_on(rows, options)
        self._report(result, options)
        _base.ending(_base.NOT_ALL if missing or (given and result.unchanged) else _base.DONE)

    def _carry_on(self, rows: QuerySet[TransferRecord], options: Mapping[str, Any]) -> Result:
        total = _base.count(rows, options["limit"])
        progress = Progress(self.stderr, total, shown=not options["no_progress"])
        try:
            return type(self).operation(rows, options["limit"], progress.step)
        finally:
            progress.close()

    @property
    def verb(self) -> str:
        """The name of the command."""
        return type(self).__module__.rpartition("_")[2]

    def _ways(self, options: Mapping[str, Any]) -> list[str]:
        filters = [f"--{name.replace('_', '-')}" for name in FILTERS if name in options]
        return ["names", "--id", *filters]

    def _report(self, result: Result, options: Mapping[str, Any]) -> None:
        others = dict(sorted(result.unchanged.items()))
        self.emit(options, {self.done: result.changed, f"not_{self.done}": others}, f"{self.done}: {result.changed}")
        for state, count in others.items():
            self.tell(_("Not %(done)s: %(count)d %(state)s.") % {"done": self.done, "count": count, "state": state})

    def _missing(self, options: Mapping[str, Any], rows: QuerySet[TransferRecord]) -> int:
        found = set(rows.values_list("pk", flat=True))
        names = set(rows.values_list("name", flat=True))
        missing = [str(pk) for pk in options["id"] or () if pk not in found]
        missing += [escape(name) for name in options["name"] if _cleaned(name) not in names]
        for text in missing:
            self.tell(_("No such record: %(record)s.") % {"record": text})
        return len(missing)

    def _list(self, rows: QuerySet[TransferRecord], options: Mapping[str, Any]) -> None:
        count = _base.count(rows, options["limit"])
        if options["json"]:
            self.emit(options, {f"would_{self.would}": count}, "")
            return
        for record in rows.order_by("pk")[: options["limit"]].iterator():
            self.stdout.write(f"{escape(record.storage)}: {escape(record.name)}: {record.error_kind or record.state}")
        self.tell(_("Would %(verb)s %(count)d files.") % {"verb": self.would, "count": count})


def _named(options: Mapping[str, Any]) -> QuerySet[TransferRecord]:
    # By key: there is no index on names, and names need none.
    storages = [options["storage"]] if options["storage"] else aliases()
    names = [cleaned for name in options["name"] if (cleaned := _cleaned(name)) is not None]
    keys = [record_key(storage, name) for storage in storages for name in names]
    # Larger ones fit into no database's integers.
    pks = [pk for pk in options["id"] or () if pk < 2**63]
    return ledger.records().filter(Q(key__in=keys) | Q(pk__in=pks))


def _cleaned(name: str) -> str | None:
    try:
        return clean_name(name)
    except SuspiciousFileOperation:
        return None
