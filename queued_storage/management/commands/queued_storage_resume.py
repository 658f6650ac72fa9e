"""``manage.py queued_storage_resume``: a paused storage's transfers go on."""

from __future__ import annotations

from queued_storage import health
from queued_storage.management.commands import _base, _pausing


class Command(_pausing.Command):
    """Resume storages."""

    help = "Let the transfers of paused storages go on; the next sweep sends their messages."
    exit_codes = {_base.DONE: "they are not paused"}
    done = "resumed"
    move, current = staticmethod(health.resume), staticmethod(health.paused)
    from_paused = True
