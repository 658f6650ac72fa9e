"""The show in three acts: everything runs; everything breaks; everything comes home."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from queued_storage.models import State
from show.browser import Browser
from show.display import Display, size
from show.material import KB, MB, Material, document, picture
from show.processes import ShowError, wait_until
from show.servers import LINE, Servers
from show.watching import Row, Watcher

# Longest time that an act may take, in seconds.
BOUND = 100


class Show:
    """The three acts; each raises ``ShowError`` when what it announces does not happen."""

    def __init__(self, servers: Servers, watcher: Watcher, display: Display) -> None:
        self.servers, self.watcher, self.display = servers, watcher, display
        self.browser = Browser(servers.web_port)
        self.source = servers.state / "visitor"
        self.source.mkdir()

    def play(self) -> None:
        """Play all acts."""
        with self.watcher.watching():
            self.everything_runs()
            self.everything_breaks()
            self.everything_comes_home()

    def everything_runs(self) -> None:
        """Upload files of many sizes and see each of them arrive."""
        self.display.title(f"1. Everything runs. The line to S3 carries {size(LINE)}/s.")
        with self.display.showing():
            self._upload(everyday(self.source))
            self._wait_until_home()

    def everything_breaks(self) -> None:
        """Take the broker away, upload, kill the worker in mid-transfer, and prove that both faults hit."""
        self.display.title("2. Everything breaks.")
        first, materials = len(self.watcher.rows), unlucky(self.source)
        with self.display.showing(first):
            big = self._upload([document(self.source, "film-2.bin", 64 * MB)])[0]
            self._wait_for_transfer(big)
            self.servers.stop_broker()
            self.display.say("The broker is gone, with every message in it. Visitors do not notice:")
            offline = self._upload(materials)
            self._check_nobody_waited(offline)
            self._kill_in_transfer(big)
            self._check_all_served(first)
        self._check_broker_was_missed(offline)
        self._check_page()

    def everything_comes_home(self) -> None:
        """Start the broker, empty, and Celery again, and see the sweep finish everything."""
        self.display.title("3. Everything starts again; the broker is empty. The sweep looks into the ledger.")
        first = next(index for index, row in enumerate(self.watcher.rows) if not row.home)
        started = time.monotonic()
        with self.display.showing(first):
            self.servers.kill("beat")
            self.servers.start_broker()
            self.servers.start_celery()
            self.servers.wait("worker", "beat")
            self._wait_until_home()
        big = self.watcher.rows[first]
        if big.lost_attempts() < 1:
            raise ShowError(f"{big.material.name} came home without the attempt that was killed being counted")
        self.display.say(f"All are home {time.monotonic() - started:.0f} s after the start.")
        self._check_page()

    def _upload(self, materials: Iterable[Material]) -> list[Row]:
        rows = []
        for material in materials:
            row = self.watcher.add(material)
            self.watcher.uploaded(row, *self.browser.upload(material))
            # What must not get lost is the gallery's copy; nobody else has one now.
            material.path.unlink()
            rows.append(row)
        return rows

    def _wait_until_home(self) -> None:
        def all_home() -> bool:
            self._check_watcher()
            return all(row.home for row in self.watcher.rows)

        wait_until(all_home, BOUND, "every file is home")

    def _check_watcher(self) -> None:
        if self.watcher.error is not None:
            raise ShowError(f"the watcher stopped: {self.watcher.error!r}")
        if failed := [row for row in self.watcher.rows if row.state == "failed"]:
            raise ShowError(f"{failed[0].material.name} failed: {failed[0].record().error}")
        if wrong := [row for row in self.watcher.rows if row.wrong]:
            raise ShowError(f"wrong bytes of {wrong[0].material.name} were read: {wrong[0]}")

    def _wait_for_transfer(self, row: Row) -> None:
        def moving() -> bool:
            self._check_watcher()
            if row.state == "remote":
                raise ShowError(f"{row.material.name} was on S3 before anything could break")
            return row.state == "transferring" and row.arrived > 0

        wait_until(moving, BOUND, f"{row.material.name} is being transferred")

    def _check_nobody_waited(self, rows: list[Row]) -> None:
        slowest = max(row.seconds for row in rows)
        # The first one that finds the broker gone may ask it for a second.
        if slowest > 2:
            raise ShowError(f"an upload without a broker took {slowest:.1f} s")
        self.display.say(f"The slowest of these {len(rows)} requests took {slowest:.2f} s.")

    def _kill_in_transfer(self, row: Row) -> None:
        pid = self.servers.kill("worker")
        record, bucket = row.record(), self.watcher.bucket
        unfinished = bucket.unfinished(record.remote_name)
        arrived = sum(unfinished.values())
        if record.state != State.TRANSFERRING or bucket.size(record.remote_name) is not None or not arrived:
            raise ShowError(f"the worker was not killed in mid-transfer: {record.state}, {arrived} bytes on S3")
        row.dead.update(unfinished)
        self.display.say(
            f"The worker (process {pid}) was killed with SIGKILL when {size(arrived)} of {size(row.material.size)} "
            "were on S3; its messages died with it."
        )

    def _check_all_served(self, first: int) -> None:
        def all_read() -> bool:
            self._check_watcher()
            return all(row.through_django is not None for row in self.watcher.rows[first:])

        wait_until(all_read, BOUND, "every file can be read while nothing works")

    def _check_page(self) -> None:
        wanted = [row.material.sha256 for row in self.watcher.rows if row.material.field == "picture"]
        if sorted(self.browser.pictures()) != sorted(wanted):
            raise ShowError("the gallery's page does not show the pictures that were uploaded")
        self.display.say(f"The gallery's page shows all {len(wanted)} pictures.")

    def _check_broker_was_missed(self, rows: list[Row]) -> None:
        if "Could not publish" not in self.servers.running["web"].output():
            raise ShowError("no message was refused: the broker was not really gone")
        if moved := [row.name for row in rows if row.record().state != State.QUEUED]:
            raise ShowError(f"{moved[0]} moved without a broker and a worker")
        self.display.say("All of them are served from the local disk; the ledger knows what is owed.")


def everyday(folder: Path) -> Iterable[Material]:
    """Make what people upload on a quiet day, one after the other."""
    yield document(folder, "note.txt", KB)
    yield picture(folder, "hills.jpg", 800, 500)
    yield picture(folder, "evening.png", 1600, 1000)
    yield document(folder, "letter.bin", 64 * KB)
    yield document(folder, "song.bin", 10 * MB)
    yield picture(folder, "poster.jpg", 3000, 2000)
    yield document(folder, "film-1.bin", 100 * MB)


def unlucky(folder: Path) -> list[Material]:
    """Make what people upload while the broker is gone."""
    return [
        document(folder, "reminder.txt", KB),
        picture(folder, "morning.jpg", 1200, 800),
        document(folder, "report.bin", 2 * MB),
        document(folder, "archive.bin", 10 * MB),
    ]
