"""What the faulty storages of one name share: their objects, the faults that were asked for, a count of calls."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from queued_storage.testing.objects import Folder, Memory, Objects

# How long a hanging call waits for its release before it gives up, in seconds.
PATIENCE = 60.0


class FaultNotHitError(AssertionError):
    """A fault was asked for and never met: the test has not tested what it says."""


@dataclass
class Fault:
    """One fault: from the ``nth`` call of ``method`` on, ``times`` times (``None``: for ever); counts its ``hits``.

    As a context manager it ends with the block, which raises ``FaultNotHitError`` if it was not hit.
    """

    store: Store
    method: str
    nth: int = 1
    times: int | None = 1
    error: BaseException | None = None
    lost: BaseException | None = None
    change: Callable[[bytes], bytes] = lambda data: data
    rename: Callable[[str], str] = lambda name: name
    pause: float = 0.0
    hides: bool = False
    hits: int = 0
    calls: int = 0
    gate: threading.Event | None = None
    reached: threading.Event = field(default_factory=threading.Event)

    def meets(self, method: str) -> bool:
        """Count a call and tell whether the fault happens to it."""
        if self.method not in (method, "*"):
            return False
        self.calls += 1
        if self.calls < self.nth or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True

    def strike(self) -> None:
        """Do what happens before the call: note it, stand still, raise."""
        self.reached.set()
        if self.gate is not None and not self.gate.wait(PATIENCE):
            raise TimeoutError(f"nobody released {self.method}() within {PATIENCE:.0f} s")
        time.sleep(self.pause)
        if self.error is not None:
            raise self.error

    def release(self) -> None:
        """Let calls that hang go on."""
        assert self.gate is not None, "this fault does not hang"
        self.gate.set()

    def wait(self, bound: float = PATIENCE) -> None:
        """Wait until the fault is hit; raises ``FaultNotHitError`` after ``bound`` seconds."""
        if not self.reached.wait(bound):
            raise FaultNotHitError(f"{self} was not hit within {bound:.0f} s")

    def end(self) -> None:
        """Take the fault away."""
        if self in self.store.faults:
            self.store.faults.remove(self)

    def check(self) -> None:
        """Raise ``FaultNotHitError`` if the fault was never hit."""
        if not self.hits:
            raise FaultNotHitError(f"{self} was never hit: {self.calls} call(s) of {self.method}() were made")

    def __enter__(self) -> Fault:
        return self

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        self.end()
        if kind is None:
            self.check()

    def __str__(self) -> str:
        return f"the fault in call {self.nth} of {self.method}() of the store {self.store.name!r}"


class Store:
    """The objects behind all faulty storages of one name: look at them, meddle with them, ask for faults.

    Each method that asks for a fault returns it; ``nth`` counts the calls from then on, ``times=None`` means for ever.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.objects: Objects = Memory()
        self.calls: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget objects, faults and counts."""
        self.objects.clear()
        self.heal()
        self.calls.clear()

    def heal(self) -> None:
        """Take all faults away; calls that hang go on."""
        for fault in list(self.faults):
            if fault.gate is not None:
                fault.release()
            fault.end()

    def check_hits(self) -> None:
        """Raise ``FaultNotHitError`` if a fault that is still there was never hit."""
        for fault in self.faults:
            fault.check()

    def fail(self, method: str, error: BaseException, *, nth: int = 1, times: int | None = 1) -> Fault:
        """Raise ``error`` before anything is done; ``method`` is one of Django's, ``part`` or ``*``."""
        return self._add(Fault(self, method, nth, times, error=error))

    def lose_answer(self, error: BaseException, method: str = "save", *, nth: int = 1, times: int | None = 1) -> Fault:
        """Do the work, then raise ``error``: the answer was lost."""
        return self._add(Fault(self, method, nth, times, lost=error))

    def truncate(self, size: int, method: str = "save", *, nth: int = 1, times: int | None = 1) -> Fault:
        """Keep, or with ``"open"`` give, the first ``size`` bytes alone, and call it a success."""
        return self.alter(lambda data: data[:size], method, nth=nth, times=times)

    def alter(
        self, change: Callable[[bytes], bytes], method: str = "save", *, nth: int = 1, times: int | None = 1
    ) -> Fault:
        """Keep, or with ``"open"`` give, other bytes, and call it a success."""
        return self._add(Fault(self, method, nth, times, change=change))

    def rename(self, rename: Callable[[str], str], *, nth: int = 1, times: int | None = 1) -> Fault:
        """Store under another name and say so, as some storages do."""
        return self._add(Fault(self, "save", nth, times, rename=rename))

    def hide(self, *, nth: int = 1, times: int | None = 1) -> Fault:
        """Let a look at one object that is there find nothing, as in stores of eventual consistency."""
        return self._add(Fault(self, "look", nth, times, hides=True))

    def hang(self, method: str, *, nth: int = 1, times: int | None = 1) -> Fault:
        """Let the call stand still until ``release()``, for a minute at most."""
        return self._add(Fault(self, method, nth, times, gate=threading.Event()))

    def drip(self, pause: float) -> Fault:
        """Let each part of an upload take ``pause`` seconds."""
        return self._add(Fault(self, "part", times=None, pause=pause))

    def meet(self, method: str) -> list[Fault]:
        """Count a call, let its faults strike, and return them."""
        with self._lock:
            self.calls[method] += 1
            met = [fault for fault in self.faults if fault.meets(method)]
        for fault in met:
            fault.strike()
        return met

    def look(self, name: str) -> bytes | None:
        """Return the object, ``None`` if there is none or a fault hides it."""
        data = self.objects.get(name)
        if data is None:
            return None
        with self._lock:
            hiding = [fault for fault in self.faults if fault.hides and fault.meets("look")]
        return None if hiding else data

    def _add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault


_stores: dict[str, Store] = {}


def store(name: str = "default", location: str | None = None) -> Store:
    """Return the store of this name, made at the first call; with ``location`` its objects lie in that folder."""
    found = _stores.setdefault(name, Store(name))
    if location is not None and not (isinstance(found.objects, Folder) and str(found.objects.location) == location):
        found.objects = Folder(location)
    return found
