"""What pause and resume have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from queued_storage.management.commands import _base, _flags
from queued_storage.names import escape


class Command(_base.Command):
    """A command about whole storages."""

    flags = ("--dry-run",)
    done = ""
    move: Callable[[str], bool]
    current: Callable[[], list[str]]
    #: Whether ``move`` is of use for a storage that is paused.
    from_paused = False

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the storages."""
        super().add_arguments(parser)
        parser.add_argument("alias", nargs="+", type=_flags.known_storage, help="Alias of a storage.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it for each storage and say which were so already."""
        wanted = dict.fromkeys(options["alias"])
        if options["dry_run"]:
            paused = type(self).current()
            changed = [alias for alias in wanted if (alias in paused) is self.from_paused]
        else:
            changed = [alias for alias in wanted if type(self).move(alias)]
        word = f"would_be_{self.done}" if options["dry_run"] else self.done
        shown = ", ".join(escape(alias) for alias in changed) or "none"
        self.emit(options, {word: changed}, f"{word.replace('_', ' ')}: {shown}")
        for alias in wanted:
            if alias not in changed:
                text = _("%(storage)s is not paused.") if self.from_paused else _("%(storage)s is already paused.")
                self.tell(text % {"storage": escape(alias)})
