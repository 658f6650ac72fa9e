"""Follow each file on its way, from the ledger and from both sides."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from botocore.exceptions import BotoCoreError, ClientError
from django.core.files.storage import storages
from django.db import connection
from gallery.models import Exhibit

from queued_storage.models import Outcome, State, TransferRecord
from show.bucket import Bucket
from show.material import MB, Material, sha256


@dataclass(frozen=True)
class Seen:
    """What somebody who read the file got."""

    side: str
    size: int
    sha256: str


@dataclass
class Row:
    """One uploaded file and what is known of it."""

    material: Material
    state: str = "uploading"
    seconds: float = 0.0
    name: str = ""
    key: str = ""
    arrived: int = 0
    # Uploads that died with their worker; the next one begins anew.
    dead: set[str] = field(default_factory=set)
    through_django: Seen | None = None
    on_s3: Seen | None = None

    @property
    def home(self) -> bool:
        """Whether both sides have been read since the file is on the remote, and have the bytes that were uploaded."""
        wanted = ("remote", self.material.size, self.material.sha256)
        seen = [self.through_django, self.on_s3]
        return all(what is not None and (what.side, what.size, what.sha256) == wanted for what in seen)

    @property
    def wrong(self) -> bool:
        """Whether somebody has read other bytes than were uploaded."""
        seen = [what for what in (self.through_django, self.on_s3) if what is not None]
        return any((what.size, what.sha256) != (self.material.size, self.material.sha256) for what in seen)

    def record(self) -> TransferRecord:
        """Return the file's row in the ledger."""
        return TransferRecord.objects.get(name=self.name)

    def lost_attempts(self) -> int:
        """Return how many attempts at this file ended with a dead worker."""
        return self.record().attempts.filter(outcome=Outcome.LOST).count()


class Watcher:
    """Look at every row that is not home, again and again, in a thread of its own."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.rows: list[Row] = []
        self.error: BaseException | None = None
        self._end = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs."""
        thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join(10)

    def add(self, material: Material) -> Row:
        """Follow a new file."""
        self.rows.append(Row(material))
        return self.rows[-1]

    def uploaded(self, row: Row, exhibit: int, seconds: float) -> None:
        """Note that the upload of a row was answered with the exhibit of this id."""
        row.seconds = seconds
        row.name = getattr(Exhibit.objects.get(pk=exhibit), row.material.field).name
        row.state = "local"

    def _run(self) -> None:
        try:
            while not self._end.wait(0.1):
                for row in [row for row in self.rows if row.name and not row.home]:
                    self.look(row)
        except BaseException as error:
            self.error = error
            raise
        finally:
            connection.close()

    def look(self, row: Row) -> None:
        """Bring a row up to date; what cannot be read now is read at the next look."""
        try:
            self._look(row)
        except (OSError, BotoCoreError, ClientError):
            # Between two answers the file may have moved.
            return

    def _look(self, row: Row) -> None:
        record = row.record()
        row.key = record.remote_name
        if record.state == State.TRANSFERRING:
            parts = [size for upload, size in self.bucket.unfinished(row.key).items() if upload not in row.dead]
            # Without parts it is completed and being verified, or its worker is dead.
            row.arrived = max(row.arrived, *parts) if parts else self.bucket.size(row.key) or row.arrived
        elif record.state == State.TRANSFERRED:
            row.arrived = self.bucket.size(row.key) or 0
        else:
            row.arrived = 0
        row.state = {State.TRANSFERRED: "remote", State.QUEUED: "local"}.get(State(record.state), str(record.state))
        if record.state == State.TRANSFERRED:
            row.on_s3 = Seen("remote", *self.bucket.sha256(row.key))
            row.through_django = self._read("remote", row)
        elif row.through_django is None:
            row.through_django = self._read("local", row)

    def verified(self, row: Row) -> bool:
        """Read a file once more from S3; tell whether it has the bytes that were uploaded."""
        return self.bucket.sha256(row.key) == (row.material.size, row.material.sha256)

    def _read(self, side: str, row: Row) -> Seen:
        with storages["default"].open(row.name) as file:
            return Seen(side, file.size, sha256(file.chunks(MB)))
