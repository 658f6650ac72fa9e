"""``manage.py queued_storage_hold``: queued files stay where they are."""

from __future__ import annotations

from queued_storage import operations
from queued_storage.management.commands import _base, _records
from queued_storage.models import State


class Command(_records.Command):
    """Hold queued files."""

    help = (
        "Hold queued files: nothing moves them until they are released. Say which: by name, by --id, by --storage, "
        "--prefix or --older-than, or --all. What a worker has in hand is not held. To stop a whole storage, and what "
        "is saved from now on, pause it."
    )
    exit_codes = {_base.DONE: "done", _base.NOT_ALL: "a given name or id was not held"}
    done, would = "held", "hold"
    from_states = default_states = (State.QUEUED,)
    operation = staticmethod(operations.hold)
