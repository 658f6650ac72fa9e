"""``manage.py queued_storage_evict``: local copies of transferred files go."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from queued_storage import evicting, ledger, selecting
from queued_storage.management.commands import _base, _flags
from queued_storage.models import TransferRecord
from queued_storage.names import escape
from queued_storage.pairs import aliases, pair_for
from queued_storage.results import Item

SHOWN = (evicting.EVICTED, "bytes", evicting.ABSENT, evicting.KEPT, evicting.UNKNOWN)
Part = tuple[QuerySet[TransferRecord], "int | None"]


class Command(_base.Command):
    """Remove local copies of transferred files."""

    help = (
        "Remove the local copies of transferred files, those saved first first, each after the remote was asked again "
        "and the local bytes were compared: never an unverified file. Say which: by age, prefix or storage, by how "
        "much may stay (--max-size, --min-free), or --all."
    )
    flags = ("--storage", "--prefix", "--older-than", "--limit", "--dry-run", "--no-progress")
    exit_codes = {
        _base.DONE: "done",
        _base.NOT_ALL: "some copies were kept, or too few could be removed; stderr says why",
    }

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flags of this command."""
        super().add_arguments(parser)
        parser.add_argument(
            "--max-size", type=_flags.size, metavar="SIZE", help="Until a storage has no more local bytes, as in 20G."
        )
        parser.add_argument(
            "--min-free", type=_flags.size, metavar="SIZE", help="Until so much is free on the local disk, as in 20G."
        )
        parser.add_argument("--all", action="store_true", help="Every local copy of a transferred file.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Evict, or list what would be."""
        chosen = ("storage", "prefix", "older_than", "max_size", "min_free")
        if not (options["all"] or any(options[name] is not None for name in chosen)):
            raise _base.failure(
                _("Say what to %(verb)s: %(ways)s or --all.")
                % {"verb": "evict", "ways": "--storage, --prefix, --older-than, --max-size, --min-free"}
            )
        rows = self.selected(options, evicting.evictable(ledger.records()))
        bounded = options["max_size"] is not None or options["min_free"] is not None
        parts: list[Part] = list(_parts(rows, options)) if bounded else [(rows, None)]
        if options["dry_run"]:
            self._list(parts, options)
            return
        total = None if bounded else _base.count(rows, options["limit"])
        counts, code = self.carry_out(_evict(parts, options["limit"]), total, options)
        facts = {name: counts[name] for name in SHOWN}
        self.emit(options, facts, _base.table(facts))
        short = sum(need or 0 for _rows, need in parts) - counts["bytes"]
        if bounded and short > 0 and code == _base.DONE:
            text = _("%(bytes)d bytes too few were freed: no other verified copy lies there.")
            self.tell(text % {"bytes": short})
        missed = counts[evicting.KEPT] or counts[evicting.UNKNOWN] or (bounded and short > 0)
        _base.ending(code or (_base.NOT_ALL if missed else _base.DONE))

    def _list(self, parts: list[Part], options: dict[str, Any]) -> None:
        files = size = 0
        for rows, need in parts:
            freed = 0
            for record in (record for page in selecting.pages(rows, options["limit"]) for record in page):
                if need is not None and freed >= need:
                    break
                freed += record.size or 0
                files += 1
                if not options["json"]:
                    self.stdout.write(f"{escape(record.storage)}: {escape(record.name)}: {record.size} bytes")
            size += freed
        if options["json"]:
            self.emit(options, {"would_evict": {"files": files, "bytes": size}}, "")
        else:
            text = _("Would evict %(files)d files, %(bytes)d bytes, of those that the remote still holds.")
            self.tell(text % {"files": files, "bytes": size})


def _parts(rows: QuerySet[TransferRecord], options: dict[str, Any]) -> Iterator[Part]:
    for alias in [options["storage"]] if options["storage"] else aliases():
        need = 0
        if options["max_size"] is not None:
            need = evicting.local_bytes(alias) - options["max_size"]
        if options["min_free"] is not None:
            free = evicting.free_bytes(pair_for(alias))
            if free is None:
                text = _("%(storage)s keeps its local files in no file system: leave out --min-free.")
                raise _base.failure(text % {"storage": escape(alias)})
            need = max(need, options["min_free"] - free)
        if need > 0:
            yield rows.filter(storage=alias), need


def _evict(parts: list[Part], limit: int | None) -> Generator[Item]:
    for rows, need in parts:
        for each in evicting.evict(rows, limit, need):
            yield each
            limit = None if limit is None else limit - 1
