"""Counts what a process asks of a remote: HTTP requests, or what the protocol has in their place."""

from __future__ import annotations

import ftplib
import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection

from tests.remotes.gate import gate_to

Asked = list[str]


@contextmanager
def _http(options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Asked]]:
    with _patched(http.client.HTTPConnection, "putrequest", lambda self, method, url, *more, **named: method) as asked:
        yield options, asked


@contextmanager
def _gate(options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Asked]]:
    # A client that is no Python is counted at its server's door.
    address = urlsplit(options["config"]["endpoint"])
    with gate_to((str(address.hostname), int(address.port or 0))) as gate:
        yield options | {"config": options["config"] | {"endpoint": gate.url}}, gate.requests  # type: ignore[misc]


@contextmanager
def _ftp(options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Asked]]:
    with _patched(ftplib.FTP, "putcmd", lambda self, line: line.partition(" ")[0]) as asked:
        yield options, asked


@contextmanager
def _mogilefs(options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Asked]]:
    from queued_storage.remotes.mogilefs_trackers import Trackers

    with (
        _patched(Trackers, "ask", lambda self, command, *more, **named: command) as asked,
        _patched(http.client.HTTPConnection, "putrequest", lambda self, method, *more, **named: method, asked),
    ):
        yield options, asked


@contextmanager
def _sftp(options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Asked]]:
    import paramiko

    with _patched(paramiko.SFTPClient, "_async_request", lambda self, fileobj, kind, *more: str(kind)) as asked:
        yield options, asked


@contextmanager
def _gridfs(options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Asked]]:
    from pymongo import monitoring

    asked: Asked = []

    class Listener(monitoring.CommandListener):
        def started(self, event: Any) -> None:
            asked.append(event.command_name)

        def succeeded(self, event: Any) -> None:
            """Leave it."""

        def failed(self, event: Any) -> None:
            """Leave it."""

    # Of the clients that are made from here on.
    monitoring.register(Listener())
    yield options, asked


@contextmanager
def _database(options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Asked]]:
    asked: Asked = []

    def note(execute: Any, sql: str, *more: Any) -> Any:
        if "queued_storage_database" in sql:
            asked.append(sql.partition(" ")[0])
        return execute(sql, *more)

    with connection.execute_wrapper(note):
        yield options, asked


COUNTERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "http": _http,
    "gate": _gate,
    "ftp": _ftp,
    "mogilefs": _mogilefs,
    "sftp": _sftp,
    "gridfs": _gridfs,
    "database": _database,
}


@contextmanager
def counting(kind: str, options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Asked]]:
    """Yield the options of a storage and the list of what it asks of its remote while the block runs."""
    with COUNTERS[kind](options) as both:
        yield both


@contextmanager
def _patched(owner: Any, name: str, describe: Callable[..., str], asked: Asked | None = None) -> Iterator[Asked]:
    noted: Asked = [] if asked is None else asked
    original = getattr(owner, name)

    def note(*args: Any, **named: Any) -> Any:
        noted.append(describe(*args, **named))
        return original(*args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, note)
        yield noted
