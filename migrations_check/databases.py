"""The databases to check on: those that can be had on this machine, each with an empty database of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.servers import databases, mariadb, postgres
from tests.servers.processes import Unavailable as Unavailable
from tests.servers.roots import fresh

KINDS = ("sqlite", "postgresql", "mariadb")


@contextmanager
def scratch(wanted: str) -> Iterator[dict[str, Any]]:
    """Yield Django's settings of an empty database of this kind, or at this URL's server; it is dropped at the end.

    Raises ``Unavailable``, with the reason, if there is no such database here.
    """
    if wanted.split(":")[0] == "sqlite":
        yield databases.settings_for(f"sqlite://{fresh('migrations')}/database.sqlite3")
    elif wanted in ("postgresql", "mariadb"):
        server = {"postgresql": postgres.server, "mariadb": mariadb.server}[wanted]
        with server() as url, _created(databases.settings_for(url)) as settings:
            yield settings
    else:
        with _created(databases.settings_for(wanted)) as settings:
            yield settings


@contextmanager
def _created(server: dict[str, Any]) -> Iterator[dict[str, Any]]:
    name = f"queued_storage_migrations_{os.getpid()}"
    is_mariadb = "mysql" in server["ENGINE"]
    quoted = f"`{name}`" if is_mariadb else f'"{name}"'
    _execute(server, f"CREATE DATABASE {quoted}{' CHARACTER SET utf8mb4' if is_mariadb else ''}")
    try:
        yield {**server, "NAME": name}
    finally:
        _execute(server, f"DROP DATABASE {quoted}{'' if is_mariadb else ' WITH (FORCE)'}")


def _execute(server: dict[str, Any], statement: str) -> None:
    # Outside of Django, whose own connection is to the database that comes and goes here.
    if "mysql" in server["ENGINE"]:
        connection = mariadb.driver().connect(
            host=server["HOST"],
            port=int(server["PORT"] or 3306),
            user=server["USER"],
            password=server["PASSWORD"],
        )
    else:
        import psycopg

        connection = psycopg.connect(
            host=server["HOST"],
            port=server["PORT"] or None,
            user=server["USER"],
            password=server["PASSWORD"] or None,
            dbname="postgres",
            autocommit=True,
        )
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
