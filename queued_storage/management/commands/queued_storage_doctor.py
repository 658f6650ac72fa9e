"""``manage.py queued_storage_doctor``: what is wrong with the set-up."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser
from django.utils.translation import gettext as _

from queued_storage import doctor
from queued_storage.findings import Finding
from queued_storage.management.commands import _base, _flags


class Command(_base.Command):
    """Try every part of the set-up."""

    help = (
        "Try every part of the set-up and say what to do about what does not work: settings, database, both sides of "
        "each storage, broker, workers, sweep, and a canary: a small file that is saved here, transferred by a worker "
        "and deleted again."
    )
    flags = ("--storage",)
    exit_codes = {
        _base.DONE: "all is well",
        _base.NOT_ALL: "something is wrong, stdout says what and what to do",
    }

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flags of this command."""
        super().add_arguments(parser)
        parser.add_argument(
            "--timeout",
            type=_flags.duration,
            metavar="TIME",
            default=timedelta(seconds=30),
            help="How long a worker may take for the canary; 30s by default.",
        )
        parser.add_argument("--no-canary", action="store_true", help="Send no canary.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print each finding as it is made."""
        findings: list[Finding] = []
        code = _base.DONE
        timeout = options["timeout"].total_seconds()
        try:
            for finding in doctor.examine(options["storage"], timeout, not options["no_canary"]):
                findings.append(finding)
                if not options["json"]:
                    self.stdout.write(_text(finding))
        except KeyboardInterrupt:
            code = _base.INTERRUPTED
        wrong = sum(finding.is_bad for finding in findings)
        if options["json"]:
            self.emit(options, {"findings": [asdict(finding) for finding in findings], "bad": wrong}, "")
        elif code == _base.DONE:
            self.tell(_("%(count)d things are wrong.") % {"count": wrong} if wrong else _("All is well."))
        _base.ending(code or (_base.NOT_ALL if wrong else _base.DONE))


def _text(finding: Finding) -> str:
    advice = f"\n{'':<9}{finding.advice}" if finding.advice else ""
    verdict = {"good": _("good"), "bad": _("bad"), "unclear": _("unclear")}[finding.verdict]
    return f"{verdict:<8} {finding.check}: {finding.text}{advice}"
