"""How far a long command has come, for the person who waits."""

from __future__ import annotations

import importlib
import time
from typing import Any

from django.core.management.base import OutputWrapper


class Progress:
    """A count of files: on a terminal tqdm's bar, or a line that is rewritten where tqdm is not installed.

    Elsewhere a line is written every ten seconds, so that a short command leaves none in a log file.
    """

    def __init__(self, stream: OutputWrapper, total: int | None, shown: bool) -> None:
        self.stream, self.total, self.shown, self.done = stream, total, shown, 0
        self.terminal = stream.isatty()
        self.every = 0.1 if self.terminal else 10.0
        self.last = time.monotonic() if not self.terminal else 0.0
        self.bar = _bar(stream, total) if shown and self.terminal else None

    def step(self, files: int = 1) -> None:
        """Count so many more."""
        self.done += files
        if self.bar is not None:
            self.bar.update(files)
            return
        now = time.monotonic()
        if self.shown and (now - self.last >= self.every or (self.terminal and self.done == self.total)):
            self.last = now
            text = f"{self.done} files" if self.total is None else f"{self.done} of {self.total} files"
            self._write(f"\r{text}" if self.terminal else f"{text}\n")
            self.stream.flush()

    def clear(self) -> None:
        """Leave an empty line behind for other output."""
        if self.bar is not None:
            self.bar.clear()
        elif self.shown and self.terminal:
            self._write("\r\x1b[K")

    def close(self) -> None:
        """Leave nothing behind."""
        self.clear()
        if self.bar is not None:
            self.bar.close()

    def _write(self, text: str) -> None:
        self.stream.write(text, style_func=str, ending="")


def _bar(stream: OutputWrapper, total: int | None) -> Any:
    try:
        tqdm = importlib.import_module("tqdm").tqdm
    except ImportError:
        return None
    return tqdm(total=total, unit=" files", unit_scale=False, leave=False, dynamic_ncols=True, file=stream._out)
