"""``manage.py queued_storage_release``: held files go."""

from __future__ import annotations

from queued_storage import operations
from queued_storage.management.commands import _base, _records
from queued_storage.models import State


class Command(_records.Command):
    """Queue held files."""

    help = (
        "Queue held files, those of a storage with delayed=True or a delay included. Say which: by name, by --id, by "
        "--storage, --prefix or --older-than, or --all."
    )
    exit_codes = {_base.DONE: "done", _base.NOT_ALL: "a given name or id was not queued"}
    from_states = default_states = (State.DELAYED,)
    operation = staticmethod(operations.release)
