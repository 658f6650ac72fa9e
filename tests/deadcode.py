"""Name what nobody uses in the package, tests, templates and documentation included: ``python -m tests.deadcode``.

Vulture finds what is not mentioned; what Django, Celery or a protocol asks for by name is listed here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from vulture import Vulture

PROJECT = Path(__file__).resolve().parents[1]
# Settings, options of the admin and parameters of an interface are variables, and everywhere.
KINDS = {"function", "class", "method", "property", "attribute"}
ASKED_FOR = re.compile(
    r"as_mysql|Meta|\w+Config|\w+Admin|Queued\w+Storage"  # Django, and users
    r"|has_\w+_permission|get_queryset|get_search_results|get_urls|lookups|adding|db"
    r"|changelist_view|change_view|get_actions|get_list_\w+|media|log_message"
    r"|_connections|_unsigned_connections"  # of django-storages
    r"|_forget|_constructor_args|_queued_storage_client|readable|writable|seekable"  # signals, deconstruction, files
)
# What the admin names in a string.
IN_STRINGS = ("admin.py", "dashboard.py", "charts.py", "figures.py")


def unused() -> list[str]:
    """Return what is not used, one line each."""
    vulture = Vulture()
    vulture.scavenge([str(PROJECT / name) for name in ("queued_storage", "tests", "docs/_ext", "docs/demo")])
    read = [*(PROJECT / "docs").rglob("*.md"), *(PROJECT / "queued_storage").rglob("*.html")]
    pages = "".join(path.read_text(encoding="utf-8") for path in read)
    return [
        f"{Path(item.filename).relative_to(PROJECT)}:{item.first_lineno}: unused {item.typ} {item.name}"
        for item in vulture.get_unused_code()
        if item.typ in KINDS
        and Path(item.filename).is_relative_to(PROJECT / "queued_storage")
        and not item.filename.name.endswith(IN_STRINGS)
        and not ASKED_FOR.fullmatch(item.name)
        and not re.search(rf"\b{item.name}\b", pages)
    ]


if __name__ == "__main__":
    found = unused()
    sys.stdout.writelines(f"{line}\n" for line in found)
    sys.exit(1 if found else 0)
