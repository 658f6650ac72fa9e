"""Play the show: ``python -m show`` in an environment with everything installed; see ``run.py``."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import django

from show.processes import ShowError
from show.servers import Servers

if TYPE_CHECKING:
    from show.display import Display
    from show.watching import Watcher


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="docs/demo/run.py", description="Show the main job of queued_storage.")
    parser.add_argument("--serve", action="store_true", help="stay up at the end; prints the admin's address and login")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the database, the files and the logs")
    return parser.parse_args()


def interrupted(number: int, frame: object) -> None:
    """Let the show clean up where the signal would just end it."""
    raise KeyboardInterrupt


def main() -> int:
    """Play the show and clean up, whatever happens; return the exit code."""
    options = arguments()
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    servers = Servers(Path(tempfile.mkdtemp(prefix="queued-storage-demo-")))
    try:
        return play(servers, options.serve)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except Exception as error:
        print(servers.tails(), file=sys.stderr)
        print(f"The show failed: {error if isinstance(error, ShowError) else repr(error)}", file=sys.stderr)
        return 1
    finally:
        close(servers, options.keep)


def close(servers: Servers, keep: bool) -> None:
    """End all processes, which a second Ctrl-C cannot prevent, and remove what they wrote."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    servers.close()
    if keep:
        print(f"Kept: {servers.state}")
    else:
        shutil.rmtree(servers.state, ignore_errors=True)


def play(servers: Servers, serve: bool) -> int:
    """Start everything, play, and return the exit code."""
    started = time.monotonic()
    # The slowest one to start is first.
    servers.start_s3()
    os.environ.update(servers.environment())
    django.setup()
    # These import models, which the settings must be there for.
    from show.acts import Show
    from show.bucket import Bucket
    from show.display import Display
    from show.watching import Watcher

    watcher = Watcher(Bucket(servers.s3_port))
    display = Display(lambda: watcher.rows)
    password = prepare(servers, watcher, display)
    Show(servers, watcher, display).play()
    code = summary(watcher, display, started)
    if serve:
        stay(servers, display, password)
    return code


def prepare(servers: Servers, watcher: Watcher, display: Display) -> str:
    """Make the database with its one user, start every process and return the user's password."""
    from django.contrib.auth.models import User
    from django.core.management import call_command

    display.say(f"Everything is in {servers.state}")
    call_command("migrate", verbosity=0)
    password = secrets.token_urlsafe(9)
    User.objects.create_superuser("admin", password=password)
    servers.start_broker()
    servers.start_web()
    servers.start_celery()
    servers.wait("s3", "line", "web", "worker", "beat")
    watcher.bucket.create()
    names = ", ".join(f"{name} ({process.pid})" for name, process in servers.running.items())
    display.say(f"Processes: {names}")
    return password


def summary(watcher: Watcher, display: Display, started: float) -> int:
    """Read every file once more from S3, past the package, say what came of it and return the exit code."""
    from queued_storage.models import TransferRecord

    rows = watcher.rows
    lost = [row.material.name for row in rows if not watcher.verified(row)]
    display.title(f"{len(rows)} files, {sum(row.material.size for row in rows)} bytes, lost: {len(lost)}")
    if TransferRecord.objects.count() != len(rows):
        raise ShowError("the ledger has other files than were uploaded")
    if lost:
        raise ShowError(f"not on S3 as uploaded: {', '.join(lost)}")
    seconds = time.monotonic() - started
    display.say(f"Each was read back from S3 and has the SHA-256 of its upload. {seconds:.0f} s in all.")
    return 0


def stay(servers: Servers, display: Display, password: str) -> None:
    """Print where to look and wait for Ctrl-C."""
    site = f"http://127.0.0.1:{servers.web_port}"
    display.title(f"Gallery  {site}/")
    display.say(f"Admin    {site}/admin/   user: admin   password: {password}")
    display.say("Ctrl-C ends everything.")
    with suppress(KeyboardInterrupt):
        while all(process.alive for process in servers.running.values()):
            time.sleep(0.5)
        raise ShowError("a process ended by itself")


if __name__ == "__main__":
    sys.exit(main())
