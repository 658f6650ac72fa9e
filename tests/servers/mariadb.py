"""A MariaDB: the one at ``MARIADB_URL``, a private one from an installed ``mariadbd``, or one that already runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .processes import Process, Unavailable, answers, on_free_port, stopped_at_end
from .roots import fresh

_FAST = ["--innodb-flush-log-at-trx-commit=0", "--skip-log-bin", "--innodb-buffer-pool-size=64M"]


def driver() -> Any:
    """Return ``MySQLdb``; where mysqlclient is not installed, PyMySQL under that name."""
    try:
        import MySQLdb
    except ImportError:
        try:
            import pymysql
        except ImportError:
            raise Unavailable("no driver for MariaDB: `pip install PyMySQL` or `pip install mysqlclient`") from None
        pymysql.install_as_MySQLdb()
        import MySQLdb
    return MySQLdb


def _answers(port: int) -> bool:
    database = driver()
    try:
        database.connect(host="127.0.0.1", port=port, user="root", connect_timeout=2).close()
    except database.OperationalError:
        return False
    return True


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


@contextmanager
def _private(daemon: str, installer: str) -> Iterator[str]:
    folder = fresh("mariadb")
    data = folder / "data"
    data.mkdir(mode=0o700)
    user = ["--user=nobody"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(data, "nobody")
    create = [installer, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", *user]
    subprocess.run([*create, "--skip-test-db"], check=True, capture_output=True)

    def start(port: int) -> Process:
        places = [f"--datadir={data}", f"--socket={data / 'socket'}", f"--pid-file={data / 'pid'}"]
        options = [*places, f"--port={port}", "--bind-address=127.0.0.1", *_FAST, *user]
        return Process([daemon, "--no-defaults", *options], name="mariadb", log=folder / "log")

    process, port = on_free_port(start, _answers, bound=60)
    with stopped_at_end(process):
        yield f"mariadb://root@127.0.0.1:{port}/"


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of a MariaDB whose user may create databases."""
    driver()
    daemon, installer = _program("mariadbd"), _program("mariadb-install-db")
    if chosen := os.environ.get("MARIADB_URL"):
        yield chosen
    elif daemon and installer:
        with _private(daemon, installer) as url:
            yield url
    elif answers("127.0.0.1", 3306) and _answers(3306):
        yield "mariadb://root@127.0.0.1:3306/"
    else:
        raise Unavailable("no MariaDB: install Debian's mariadb-server, or set MARIADB_URL")
