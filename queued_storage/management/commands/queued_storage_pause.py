"""``manage.py queued_storage_pause``: a storage's transfers stop."""

from __future__ import annotations

from queued_storage import health
from queued_storage.management.commands import _base, _pausing


class Command(_pausing.Command):
    """Pause storages."""

    help = (
        "Pause storages: files are saved and served as ever, and queued, but none is transferred until "
        "queued_storage_resume. Transfers that run at this moment are finished; deletes go on."
    )
    exit_codes = {_base.DONE: "they are paused"}
    done = "paused"
    move, current = staticmethod(health.pause), staticmethod(health.paused)
