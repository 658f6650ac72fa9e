"""Leave a broken service alone for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

# The pause doubles while the service stays down, up to this many times the first one.
LONGEST = 16


class Breaker:
    """Remember, in this process, that a service failed, and let one caller at a time find out whether it is back.

    The pause begins at ``pause()`` and doubles with each failure in a row.
    """

    def __init__(self, pause: Callable[[], timedelta]) -> None:
        self.pause = pause
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0

    def allows(self) -> bool:
        """Tell whether the service may be called now; after a pause only the first caller is told so."""
        if not self._failures:
            return True
        with self._lock:
            if time.monotonic() < self._until:
                return False
            self._until = time.monotonic() + self._length()
            return True

    def failed(self) -> None:
        """Note a failure: the service is skipped for a while."""
        with self._lock:
            self._failures += 1
            self._until = time.monotonic() + self._length()

    def succeeded(self) -> None:
        """Note a success: the service is used again by everybody."""
        self._failures = 0

    def _length(self) -> float:
        doubled: int = min(2 ** max(self._failures - 1, 0), LONGEST)
        return self.pause().total_seconds() * doubled
