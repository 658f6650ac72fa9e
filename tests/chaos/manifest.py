"""What was promised to whom, written outside of everything under test: one fsynced line for each event."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Writer:
    """Appends events of one process; a line is on the disk when the method returns."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, event: str, file: str, **facts: Any) -> None:
        """Write one event of the file with this id."""
        line = json.dumps({"event": event, "file": file, "at": time.time(), **facts}).encode() + b"\n"
        os.write(self._descriptor, line)
        os.fsync(self._descriptor)


@dataclass
class Promise:
    """What is known of one file from the events so far."""

    sha256: str = ""
    size: int = 0
    name: str = ""
    events: set[str] = field(default_factory=set)
    at: float = 0.0
    seconds: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether the file must be readable: acknowledged, and nobody has begun to delete it."""
        return "ack" in self.events and "delete-intent" not in self.events

    @property
    def deleted(self) -> bool:
        """Whether the file must be gone."""
        return "delete-ack" in self.events


class Reader:
    """Follows the manifests in a folder; each call of ``read`` takes in what is new."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.promises: dict[str, Promise] = {}
        self._offsets: dict[Path, int] = {}

    def read(self) -> dict[str, Promise]:
        """Return every file by its id, up to date."""
        for path in sorted(self.folder.glob("*.jsonl")):
            for event in self._new(path):
                promise = self.promises.setdefault(event["file"], Promise())
                promise.events.add(event["event"])
                promise.at = event["at"]
                promise.seconds = event.get("seconds", promise.seconds)
                promise.sha256 = event.get("sha256", promise.sha256)
                promise.size = event.get("size", promise.size)
                promise.name = event.get("name", promise.name)
        return self.promises

    def _new(self, path: Path) -> Iterator[dict[str, Any]]:
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            for line in file:
                # The last line of a killed writer may be half a line.
                if line.endswith(b"\n"):
                    self._offsets[path] = self._offsets.get(path, 0) + len(line)
                    yield json.loads(line)
