"""Ask what may hang, and wait no longer than so many seconds: a page must not hang with a remote."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from django.db import connections

T = TypeVar("T")

# Threads of this process that may wait at a time; those that were given up wait on, and must not become many.
MOST = 16
_free = threading.BoundedSemaphore(MOST)


def ask(seconds: float, *questions: Callable[[], T]) -> list[T | None]:
    """Return the answers to all questions, asked side by side; ``None`` for one that takes longer than ``seconds``.

    Such a question is given up, not stopped: its thread ends when the answer comes. Raises what a question raises.
    """
    until = time.monotonic() + seconds
    asked = [_begin(question) for question in questions]
    return [_answer(future, until - time.monotonic()) for future in asked]


def _begin(question: Callable[[], T]) -> Future[T] | None:
    if not _free.acquire(blocking=False):
        return None
    future: Future[T] = Future()
    # No pool: the interpreter waits for the threads of a pool when it ends.
    threading.Thread(target=_run, args=(question, future), name="queued-storage-question", daemon=True).start()
    return future


def _run(question: Callable[[], T], future: Future[T]) -> None:
    answer, failure = None, None
    try:
        answer = question()
    except BaseException as error:
        failure = error
    # Nobody else closes them when the thread ends.
    for connection in connections.all(initialized_only=True):
        connection.close()
    _free.release()
    if failure is None:
        future.set_result(answer)  # type: ignore[arg-type]
    else:
        future.set_exception(failure)


def _answer(future: Future[T] | None, seconds: float) -> T | None:
    if future is None:
        return None
    wait([future], max(seconds, 0))
    return future.result() if future.done() else None
