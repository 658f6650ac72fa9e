"""A local storage in whose files the first reader gets stuck, so that it can be killed in the middle of an upload."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from django.core.files import File

from queued_storage.local import LocalStorage


class PausingStorage(LocalStorage):
    """Stands still after most of a file; writes ``marker`` before, and with the marker there it does not."""

    def __init__(self, *args: Any, marker: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.marker = Path(marker)

    def _open(self, name: str, mode: str = "rb") -> Any:
        file = super()._open(name, mode)
        return file if self.marker.exists() else _Pausing(file, name, self.marker)


class _Pausing(File):  # type: ignore[type-arg]
    def __init__(self, file: Any, name: str, marker: Path) -> None:
        super().__init__(file, name)
        self.marker = marker

    def read(self, size: int = -1) -> Any:
        if self.file.tell() > self.size * 9 // 10:
            self.marker.touch()
            signal.pause()
        return self.file.read(size)
