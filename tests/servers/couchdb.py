"""A private CouchDB: npm's ``pouchdb-server`` in memory; ``python -m tests.servers.couchdb`` installs it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .processes import Process, Unavailable, on_free_port, stopped_at_end
from .roots import fresh

VERSION = "4.2.0"
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / f"queued-storage-tests/pouchdb-{VERSION}"
USER, PASSWORD = "tester", "open-sesame-couch"


@dataclass(frozen=True)
class CouchDB:
    """Where the server is; it accepts the name and password above, refuses wrong ones, and reads need none."""

    url: str

    def create(self, database: str) -> str:
        """Create a database and return its name."""
        # As the administrator: this server dies of an anonymous attempt.
        word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(f"{self.url}/{database}", method="PUT")
        request.add_header("Authorization", f"Basic {word}")
        urllib.request.urlopen(request, timeout=10).close()
        return database


def program() -> str:
    """Return the executable: ``POUCHDB_SERVER``, the one on the path, or the one installed for these tests."""
    installed = FOLDER / "node_modules/.bin/pouchdb-server"
    found = os.environ.get("POUCHDB_SERVER") or shutil.which("pouchdb-server") or shutil.which(str(installed))
    if not found or shutil.which("node") is None:
        raise Unavailable("no pouchdb-server: `python -m tests.servers.couchdb` installs it with npm (Node 18 or 20)")
    return found


def install() -> None:
    """Install the server with npm, once."""
    if not (FOLDER / "node_modules/.bin/pouchdb-server").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        options = ["--prefix", str(FOLDER), "--no-audit", "--no-fund"]
        subprocess.run(["npm", "install", *options, f"pouchdb-server@{VERSION}"], check=True, cwd=FOLDER)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_all_dbs", timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextmanager
def server() -> Iterator[CouchDB]:
    """Run the server and yield its address."""
    executable, folder = program(), fresh("couchdb")
    (folder / "config.json").write_text(json.dumps({"admins": {USER: PASSWORD}}))

    def start(port: int) -> Process:
        options = ["--in-memory", "--no-stdout-logs", "--host", "127.0.0.1", "--config", folder / "config.json"]
        command = [executable, *options, "--port", str(port)]
        # Uploads pass through the temporary folder. An upload that is broken off is a promise that nobody waits for:
        # the Node of the server's time went on, today's would end.
        environment = {"TMPDIR": str(folder), "NODE_OPTIONS": "--unhandled-rejections=warn"}
        return Process(command, name="couchdb", log=folder / "log", cwd=folder, env=environment)

    process, port = on_free_port(start, _answers, bound=60)
    with stopped_at_end(process):
        yield CouchDB(f"http://127.0.0.1:{port}")


if __name__ == "__main__":
    install()
