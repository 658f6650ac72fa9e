"""M3: the n-th call fails. Everything that the package calls outside of itself goes over one switchboard.

A call site is a function of ``os``, ``tempfile`` or ``socket`` called by a module of the package, a statement or a
commit, a call of the cache, the publishing of a message, a call of the remote, or of a socket to it. A failure comes
before the call, after it (the answer is lost), or in place of it; once, or from then on for ever.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from django.core.cache.backends.filebased import FileBasedCache
from django.db import InterfaceError, OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from kombu import Producer
from kombu.exceptions import OperationalError as BrokerError
from kombu.pools import ProducerPool

from queued_storage import access
from queued_storage.testing import FaultyRemoteStorage
from queued_storage.testing.stores import Folder, Store
from tests.machines.points import PACKAGE

Call = Callable[[], Any]


@dataclass(frozen=True)
class Failure:
    """One way in which a call of a kind can go wrong."""

    name: str
    strike: Callable[[Call], Any]


def before(error: Callable[[], BaseException]) -> Failure:
    """Fail before anything is done."""

    def strike(call: Call) -> Any:
        raise error()

    return Failure(str(error()) or type(error()).__name__, strike)


def after(error: Callable[[], BaseException]) -> Failure:
    """Do it, and fail then: the answer is lost."""

    def strike(call: Call) -> Any:
        call()
        raise error()

    return Failure(f"done, then {error()}", strike)


def refused(*codes: int) -> list[Failure]:
    """Fail with each of these errors of the operating system."""
    return [before(lambda code=code: OSError(code, os.strerror(code))) for code in codes]


def _short(call: Any) -> Any:
    return call.with_half()


def _hang_up(call: Call) -> int:
    call()
    return 0


def _cut(call: Call, first: bool) -> Any:
    # The connection dies with the question, or with the answer.
    try:
        if not first:
            call()
    finally:
        if connection.connection is not None:
            connection.connection.close()
    raise OperationalError("server closed the connection unexpectedly")


# SQLite answers by a function call, which nobody can cut.
CUT = (
    []
    if connection.vendor == "sqlite"
    else [
        Failure("cut before", lambda call: _cut(call, True)),
        Failure("cut after", lambda call: _cut(call, False)),
    ]
)
E = errno
DISK = {
    "open": refused(E.EMFILE, E.ENOSPC, E.EACCES, E.EIO, E.ESTALE),
    "write": [*refused(E.ENOSPC, E.EIO, E.EDQUOT, E.EFBIG), Failure("half of it", _short)],
    "read": refused(E.EIO, E.ESTALE),
    "link": [*refused(E.EIO, E.ENOSPC, E.EMLINK, E.EACCES), after(lambda: OSError(E.EIO, os.strerror(E.EIO)))],
    "fsync": refused(E.EIO, E.ENOSPC, E.EDQUOT),
    "mkdir": [*refused(E.ENOSPC, E.EACCES, E.EROFS), after(lambda: OSError(E.EEXIST, os.strerror(E.EEXIST)))],
    "unlink": [*refused(E.EIO, E.EACCES, E.EROFS), after(lambda: OSError(E.ENOENT, os.strerror(E.ENOENT)))],
    "rmdir": refused(E.EIO, E.EBUSY),
    "stat": refused(E.EIO, E.ESTALE, E.EACCES),
    "fstat": refused(E.EIO, E.ESTALE),
    "fchmod": refused(E.EPERM, E.EIO),
    "fchown": refused(E.EPERM, E.EIO),
    "scandir": refused(E.EIO, E.EMFILE, E.EACCES),
    "dup": refused(E.EMFILE),
    # Whatever close() says, the handle is gone.
    "close": [after(lambda: OSError(E.EIO, os.strerror(E.EIO))), after(lambda: OSError(E.EDQUOT, "quota"))],
}
CONNECTION = [
    before(lambda: ConnectionResetError(E.ECONNRESET, "reset")),
    before(lambda: TimeoutError("no answer")),
]
REMOTE = [*CONNECTION, before(lambda: PermissionError("403 Forbidden")), before(lambda: RuntimeError("500"))]
LOST = [after(lambda: ConnectionResetError(E.ECONNRESET, "reset"))]
FAILURES: dict[str, list[Failure]] = {
    **{f"os.{name}": failures for name, failures in DISK.items()},
    "tempfile.TemporaryFile": refused(E.ENOSPC, E.EMFILE),
    "socket.gethostname": refused(E.EIO),
    "wire.connect": [*refused(E.ECONNREFUSED, E.ENETUNREACH), before(lambda: TimeoutError("no answer"))],
    "wire.sendall": [*refused(E.ECONNRESET, E.EPIPE), before(lambda: TimeoutError("no answer"))],
    # The other side has done what it was asked for by then, so that nothing comes later than the verdict.
    "wire.recv_into": [*LOST, after(lambda: TimeoutError("no answer")), Failure("the other side hangs up", _hang_up)],
    "database.statement": [
        before(lambda: OperationalError("database is locked")),
        before(lambda: InterfaceError("connection already closed")),
        *CUT,
    ],
    "database.commit": CUT or [before(lambda: OperationalError("disk I/O error"))],
    "database.connect": [before(lambda: OperationalError("could not connect"))],
    "cache": [*CONNECTION, before(lambda: RuntimeError("MISCONF")), *LOST],
    "broker.publish": [*CONNECTION, before(lambda: BrokerError("gone")), *LOST],
    "broker.connect": [*CONNECTION, before(lambda: BrokerError("gone"))],
    "remote.save": [*REMOTE],
    "remote.part": [*REMOTE],
    "remote.stat": REMOTE,
    "remote.open": REMOTE,
    "remote.exists": REMOTE,
    "remote.size": REMOTE,
    "remote.delete": REMOTE,
    "remote.saved": LOST,
    "remote.deleted": LOST,
}


@dataclass(frozen=True)
class Point:
    """The ``nth`` call of a kind, how it fails, and whether all later ones do too."""

    kind: str
    nth: int
    failure: Failure
    for_ever: bool

    def __str__(self) -> str:
        return f"{self.kind} no. {self.nth}: {self.failure.name}{', for ever' if self.for_ever else ''}"


class Switchboard:
    """Counts the calls while it is on, and lets one of them fail."""

    def __init__(self) -> None:
        self.on = False
        # What servers call in threads of their own is theirs.
        self.thread = threading.get_ident()
        self.plan: Point | None = None
        self.calls: Counter[str] = Counter()
        self.hits = 0
        # Whether it was in the removal of what a save had written before it went wrong.
        self.removing = False

    @contextmanager
    def watching(self, plan: Point | None) -> Iterator[None]:
        """Count from nought, and fail as planned."""
        self.plan, self.calls, self.hits, self.removing, self.on = plan, Counter(), 0, False, True
        try:
            yield
        finally:
            self.on = False

    def put_through(self, kind: str, call: Call) -> Any:
        """Make a call, or let it fail."""
        if not self.on or kind not in FAILURES or threading.get_ident() != self.thread:
            return call()
        self.calls[kind] += 1
        plan, nth = self.plan, self.calls[kind]
        if plan is None or plan.kind != kind or not (nth == plan.nth or (plan.for_ever and nth > plan.nth)):
            return call()
        self.hits += 1
        self.removing |= _within("_discard")
        return plan.failure.strike(call)

    def points(self, of: str = "") -> list[Point]:
        """Return every point that the calls counted last allow, of the kinds that begin so."""
        return [
            Point(kind, nth, failure, for_ever)
            for kind, count in self.calls.items()
            if kind.startswith(of)
            for nth in range(1, count + 1)
            for failure in FAILURES[kind]
            for for_ever in (False, True)
        ]


def _within(function: str) -> bool:
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_name != function:
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None


board = Switchboard()


class SwitchedCache(FileBasedCache):
    """A cache whose calls go over the switchboard."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Read."""
        return board.put_through("cache", lambda: super(SwitchedCache, self).get(*args, **kwargs))

    def add(self, *args: Any, **kwargs: Any) -> Any:
        """Add."""
        return board.put_through("cache", lambda: super(SwitchedCache, self).add(*args, **kwargs))

    def set(self, *args: Any, **kwargs: Any) -> Any:
        """Write."""
        return board.put_through("cache", lambda: super(SwitchedCache, self).set(*args, **kwargs))

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        """Delete."""
        return board.put_through("cache", lambda: super(SwitchedCache, self).delete(*args, **kwargs))


class SwitchedSocket(socket.socket):
    """A socket whose calls go over the switchboard; of an answer that comes in pieces the first one does."""

    _answered = False

    def connect(self, *args: Any) -> None:
        """Connect."""
        board.put_through("wire.connect", lambda: super(SwitchedSocket, self).connect(*args))

    def sendall(self, *args: Any) -> None:
        """Send."""
        self._answered = False
        board.put_through("wire.sendall", lambda: super(SwitchedSocket, self).sendall(*args))

    def recv_into(self, *args: Any) -> int:
        """Receive."""
        if self._answered:
            return super().recv_into(*args)
        self._answered = True
        received: int = board.put_through("wire.recv_into", lambda: super(SwitchedSocket, self).recv_into(*args))
        return received


class _OfTheSystem:
    """A call of a function of the system, which may also be done by half."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs

    def __call__(self) -> Any:
        return self.function(*self.args, **self.kwargs)

    def with_half(self) -> Any:
        """Write half of the bytes, at least one."""
        handle, data = self.args
        return self.function(handle, data[: max(1, len(data) // 2)])


def _switched(module: Any, name: str) -> Any:
    function, kind = getattr(module, name), f"{module.__name__}.{name}"

    def call(*args: Any, **kwargs: Any) -> Any:
        if not sys._getframe(1).f_code.co_filename.startswith(PACKAGE):
            return function(*args, **kwargs)
        return board.put_through(kind, _OfTheSystem(function, args, kwargs))

    return mock.patch.object(module, name, call)


def _wrapped(owner: Any, name: str, kind: Callable[..., str]) -> Any:
    function = getattr(owner, name)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return board.put_through(kind(*args), lambda: function(self, *args, **kwargs))

    return mock.patch.object(owner, name, call)


def _statement(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    return board.put_through("database.statement", lambda: execute(sql, params, many, context))


def _commit(self: BaseDatabaseWrapper) -> Any:
    return board.put_through("database.commit", lambda: _real_commit(self))


_real_commit = BaseDatabaseWrapper._commit


@contextmanager
def switched() -> Iterator[Switchboard]:
    """Send all calls over the switchboard."""
    with ExitStack() as stack:
        for name in DISK:
            stack.enter_context(_switched(os, name))
        # The pauses before a statement is tried again cost time and show nothing.
        stack.enter_context(mock.patch.object(access, "PAUSES", (0.0,) * len(access.PAUSES)))
        stack.enter_context(_switched(tempfile, "TemporaryFile"))
        stack.enter_context(_switched(socket, "gethostname"))
        stack.enter_context(mock.patch.object(socket, "socket", SwitchedSocket))
        stack.enter_context(connection.execute_wrapper(_statement))
        stack.enter_context(mock.patch.object(BaseDatabaseWrapper, "_commit", _commit))
        stack.enter_context(_wrapped(BaseDatabaseWrapper, "connect", lambda: "database.connect"))
        stack.enter_context(_wrapped(Store, "meet", lambda method: f"remote.{method}"))
        stack.enter_context(_wrapped(Folder, "publish", lambda *args: "remote.saved"))
        stack.enter_context(_wrapped(FaultyRemoteStorage, "delete", lambda name: "remote.deleted"))
        stack.enter_context(_wrapped(Producer, "publish", lambda *args: "broker.publish"))
        stack.enter_context(_wrapped(ProducerPool, "acquire", lambda *args: "broker.connect"))
        yield board
