"""``manage.py queued_storage_schedule``: have django-celery-beat run the sweep."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from queued_storage import schedule
from queued_storage.management.commands import _base
from queued_storage.names import escape


class Command(_base.Command):
    """Put the sweep into django-celery-beat's tables."""

    help = (
        "Put the sweep into the tables of django-celery-beat, once a minute. What stands there already, however it was "
        "edited, is left as it is."
    )
    flags = ("--dry-run",)
    exit_codes = {_base.DONE: "the sweep is scheduled", _base.NOT_ALL: "it is there, but not enabled"}

    def handle(self, *args: Any, **options: Any) -> None:
        """Schedule the sweep, or say what stands in the tables."""
        try:
            task, created = (schedule.existing(), False) if options["dry_run"] else schedule.install()
        except schedule.BeatMissingError as error:
            raise _base.failure(str(error)) from None
        if task is None:
            self.emit(options, {"created": False, "name": schedule.NAME}, f"would create: {schedule.NAME}")
            return
        runs = task.enabled and task.task == schedule.TASK
        facts = {"created": created, "name": task.name, "schedule": str(task.scheduler), "runs_the_sweep": runs}
        verb = "created" if created else "left as it is"
        self.emit(options, facts, f"{verb}: {escape(task.name)}, {task.scheduler}")
        if not runs:
            self.tell(_("It is switched off, or runs another task: an operator's edit, which this command respects."))
        _base.ending(_base.DONE if runs else _base.NOT_ALL)
