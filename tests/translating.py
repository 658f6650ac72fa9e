"""The catalogs of translations: ``python -m tests.translating`` brings them up to date with the sources.

It needs the programs of GNU gettext, as Django's own commands for it do. New messages are left empty in each ``.po``,
those whose English has changed are marked as fuzzy; ``tests/test_translations.py`` fails until both are seen to.
"""

from __future__ import annotations

import gettext
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import queued_storage
from tests.servers.processes import Unavailable

PACKAGE = Path(queued_storage.__path__[0])
LANGUAGES = ("de", "fr")
# A plural has one entry for each of its forms.
Catalog: TypeAlias = "dict[str | tuple[str, int], str]"
# They change with each run, and say nothing.
_DATES = re.compile(r'^"(POT-Creation-Date|PO-Revision-Date): .*\n', re.MULTILINE)


@contextmanager
def tools() -> Iterator[None]:
    """Say by name that the programs are missing, where they are."""
    if missing := [name for name in ("msgattrib", "msgen", "msgfmt", "xgettext") if shutil.which(name) is None]:
        raise Unavailable(f"GNU gettext is not installed ({', '.join(missing)})")
    yield


def run(*command: object, cwd: Path = PACKAGE) -> str:
    """Run a program and return what it prints."""
    words = [str(word) for word in command]
    # Extracting needs no project, and the one of the tests cannot be imported from everywhere.
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def source(language: str, package: Path = PACKAGE) -> Path:
    """Return the ``.po`` of a language."""
    return package / "locale" / language / "LC_MESSAGES" / "django.po"


def compiled(po: Path, mo: Path) -> Path:
    """Compile a ``.po``, with every check that msgfmt knows, and return the ``.mo``."""
    run("msgfmt", "--check-format", "--check-domain", "-o", mo, po)
    return mo


def catalog(mo: Path) -> Catalog:
    """Return what a ``.mo`` says, without its header."""
    with mo.open("rb") as file:
        found: Catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    return {key: text for key, text in found.items() if key != ""}


def extract(package: Path) -> None:
    """Bring the ``.po`` files of a package up to date with its sources."""
    languages = [word for language in LANGUAGES for word in ("-l", language)]
    options = ("--no-location", "--no-wrap", *languages)
    run(sys.executable, "-m", "django", "makemessages", *options, cwd=package)
    for language in LANGUAGES:
        po = source(language, package)
        po.write_text(_DATES.sub("", po.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    with tools():
        extract(PACKAGE)
        for one in LANGUAGES:
            compiled(source(one), source(one).with_suffix(".mo"))
