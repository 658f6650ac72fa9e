"""Turn ``TEST_DATABASE`` into Django's DATABASES, and a live test database into an address for a child process."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from . import mariadb, postgres
from .roots import temporary_root

VARIABLE = "TEST_DATABASE"

_ENGINES = {
    "sqlite": "django.db.backends.sqlite3",
    "postgresql": "django.db.backends.postgresql",
    "mariadb": "django.db.backends.mysql",
}
# Writers of other processes wait for their turn in place of failing half way: a transaction takes the lock at once.
_SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    # SQLite's waiters take no turns: on a busy machine one of eight may well see 20 seconds go by.
    "timeout": 60,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
}


def from_environment() -> dict[str, Any]:
    """Return the settings of the default database; start a server when ``TEST_DATABASE`` names a kind, not a URL."""
    wanted = os.environ.get(VARIABLE, "sqlite")
    if wanted in ("postgresql", "mariadb"):
        # From here on every child finds this server and starts none of its own.
        wanted = os.environ[VARIABLE] = _started_for_the_run(wanted)
    return settings_for(wanted)


def _started_for_the_run(kind: str) -> str:
    stack = ExitStack()
    server = {"postgresql": postgres.server, "mariadb": mariadb.server}[kind]
    url = stack.enter_context(server())
    atexit.register(stack.close)
    return url


def settings_for(url: str) -> dict[str, Any]:
    """Return Django's settings for ``sqlite``, ``sqlite:///path``, ``postgresql://...`` or ``mariadb://...``."""
    if url == "sqlite":
        url = f"sqlite://{temporary_root()}/database.sqlite3"
    parts = urlsplit(url)
    settings: dict[str, Any] = {"ENGINE": _ENGINES[parts.scheme], "TEST": {"NAME": f"queued_storage_{os.getpid()}"}}
    if parts.scheme == "sqlite":
        test_file = temporary_root() / f"test-{os.getpid()}.sqlite3"
        return settings | {"NAME": parts.path, "OPTIONS": _SQLITE_OPTIONS, "TEST": {"NAME": str(test_file)}}
    if parts.scheme == "mariadb":
        mariadb.driver()
        settings["OPTIONS"] = {"charset": "utf8mb4"}
        settings["TEST"]["CHARSET"] = "utf8mb4"
    return settings | {
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
    }


def url_of(settings: Mapping[str, Any]) -> str:
    """Return the address of the database that a live connection uses: the test database while tests run."""
    kind = next(kind for kind, engine in _ENGINES.items() if engine == settings["ENGINE"])
    if kind == "sqlite":
        return f"sqlite://{settings['NAME']}"
    user, password = quote(settings["USER"], safe=""), quote(settings["PASSWORD"], safe="")
    login = f"{user}:{password}" if password else user
    return f"{kind}://{login}@{settings['HOST']}:{settings['PORT']}/{quote(settings['NAME'], safe='')}"
