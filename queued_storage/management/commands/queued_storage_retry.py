"""``manage.py queued_storage_retry``: failed files are tried again."""

from __future__ import annotations

from django.core.management.base import CommandParser

from queued_storage import operations
from queued_storage.exceptions import ErrorKind
from queued_storage.management.commands import _base, _records
from queued_storage.models import State


class Command(_records.Command):
    """Queue failed files afresh."""

    help = (
        "Queue failed files afresh, with all their retries. Say which: by name, by --id, by --storage, --prefix, "
        "--older-than or --kind, or --all. Files given by name or id, and with --state queued, are also hurried on "
        "where they still wait for their next retry."
    )
    flags = ("--storage", "--state", "--prefix", "--older-than", "--limit", "--dry-run", "--no-progress")
    exit_codes = {_base.DONE: "done", _base.NOT_ALL: "a given name or id was not queued"}
    from_states = operations.RETRIABLE
    default_states = (State.FAILED,)
    operation = staticmethod(operations.retry)

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flags of this command."""
        super().add_arguments(parser)
        parser.add_argument("--kind", choices=ErrorKind.values, help="Only files that failed for this reason.")
