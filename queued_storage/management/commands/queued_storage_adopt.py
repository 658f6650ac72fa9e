"""``manage.py queued_storage_adopt``: files that were there before come into the ledger."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from queued_storage import adopting
from queued_storage.management.commands import _base
from queued_storage.models import Side
from queued_storage.pairs import pair_for

SHOWN = (adopting.KNOWN, adopting.YOUNG, adopting.BOTH, adopting.REFUSED, adopting.UNKNOWN)


class Command(_base.Command):
    """Make records for files that have none."""

    help = (
        "Make records for the files of a storage that have none: those that lie on its local side are queued, or held, "
        "those that lie on its remote become transferred. No byte is moved or changed by this command. It may be "
        "interrupted, killed and repeated at any time, and run beside everything else; files touched lately are left "
        "for another run, because they may belong to a save that is not complete."
    )
    flags = ("--storage", "--prefix", "--older-than", "--limit", "--dry-run", "--no-progress", "--rate")
    exit_codes = {
        _base.DONE: "every file that was met is in the ledger, but for young ones",
        _base.NOT_ALL: "some could not be adopted; stderr says which and why",
    }

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flags of this command."""
        super().add_arguments(parser)
        parser.set_defaults(older_than=adopting.YOUNGEST)
        parser.add_argument(
            "--from", dest="side", choices=Side.values, required=True, help="The side whose files are adopted."
        )
        parser.add_argument("--held", action="store_true", help="Hold local files until they are released.")
        parser.add_argument("--deep", action="store_true", help="Read remote files, to know the digest of their bytes.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Adopt and print how many files were met how."""
        if options["storage"] is None:
            raise _base.failure(_("Say of which storage: --storage."))
        wish = adopting.Wish(
            side=Side(options["side"]),
            prefix=options["prefix"] or "",
            held=options["held"],
            deep=options["deep"],
            older_than=options["older_than"],
            limit=options["limit"],
            rate=options["rate"],
            dry=options["dry_run"],
        )
        counts, code = self.carry_out(adopting.adopt(pair_for(options["storage"]), wish), None, options)
        word = "would_adopt" if wish.dry else adopting.ADOPTED
        facts = {word: counts[adopting.ADOPTED], "bytes": counts["bytes"]} | {name: counts[name] for name in SHOWN}
        self.emit(options, facts, _base.table({name.replace("_", " "): value for name, value in facts.items()}))
        missed = any(counts[name] for name in (adopting.BOTH, adopting.REFUSED, adopting.UNKNOWN))
        _base.ending(code or (_base.NOT_ALL if missed else _base.DONE))
