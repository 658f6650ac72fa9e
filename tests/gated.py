"""A remote that stands still in mid-upload while a gate is there: a named pipe that nobody writes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage


class GatedStorage(FileSystemStorage):
    """A file system remote; its uploads wait for as long as ``gate`` exists."""

    def __init__(self, gate: str, **options: Any) -> None:
        super().__init__(**options)
        self.gate = Path(gate)

    def _save(self, name: str, content: Any) -> str:
        content.read(1024)
        if self.gate.exists():
            self.gate.read_bytes()
        return super()._save(name, content)
