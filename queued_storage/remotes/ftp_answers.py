"""What the answers of an FTP server mean: errors, and the lines that describe a file."""

from __future__ import annotations

import ftplib
import re
import socket
from dataclasses import dataclass, field
from datetime import datetime, timezone

from queued_storage.exceptions import ErrorKind, TransferError

# Servers answer 550 to everything; only their words tell a missing file from a forbidden one.
MISSING = re.compile(r"no such|not found|not exist|n[o']t exist|can(no|')t find|can't check for file", re.IGNORECASE)
FORBIDDEN = re.compile(r"permission|denied|not permitted|not allowed|forbidden|privilege", re.IGNORECASE)
CROWDED = re.compile(r"too many|limit|maximum|busy|overload", re.IGNORECASE)
UNKNOWN_COMMAND = {"500", "501", "502", "504"}
UNIX_LINE = re.compile(r"(?P<type>[-dl])[-\w]{9}\S* +\d+ +\S+ +\S+ +(?P<size>\d+) +\w{3} +\d+ +[\d:]+ (?P<name>.+)")
DOS_LINE = re.compile(r"\S+ +\d+:\d+\w* +(<(?P<dir>DIR)>|(?P<size>\d+)) +(?P<name>.+)")


@dataclass
class Entry:
    """One file or directory; ``size`` and ``modified`` are ``None`` where the server does not say."""

    name: str
    is_folder: bool = False
    size: int | None = None
    modified: datetime | None = field(default=None, compare=False)


def kind_of(error: BaseException) -> ErrorKind | None:
    """Return the kind of an error of ftplib or of the socket, ``None`` for any other."""
    if isinstance(error, TransferError):
        return error.kind
    if isinstance(error, (EOFError, TimeoutError, ConnectionError, socket.gaierror)):
        return ErrorKind.PASSING
    if not isinstance(error, ftplib.Error):
        return None
    code, text = str(error)[:3], str(error)
    if code == "421" and CROWDED.search(text):
        return ErrorKind.THROTTLED
    if code in {"530", "532", "534", "535", "536"} or (code == "550" and FORBIDDEN.search(text)):
        return ErrorKind.DENIED
    return ErrorKind.REFUSED if code == "553" else ErrorKind.PASSING


def is_missing(error: BaseException) -> bool:
    """Return whether the answer says in words that there is no such file."""
    return bool(MISSING.search(str(error)))


def parse_facts(line: str) -> Entry | None:
    """Return what a line of MLST or MLSD describes; ``None`` for the directory itself and its parent."""
    facts, _, name = line.partition(" ")
    values = {key.lower(): value for key, _, value in (fact.partition("=") for fact in facts.split(";"))}
    kind = values.get("type", "file").lower()
    if kind in {"cdir", "pdir"} or not name:
        return None
    size = values.get("size", "")
    return Entry(
        name.rpartition("/")[2],
        kind == "dir",
        int(size) if size.isdigit() and kind != "dir" else None,
        parse_time(values.get("modify", "")),
    )


def parse_line(line: str) -> Entry | None:
    """Return what a line of LIST describes in the forms of Unix or DOS, ``None`` for any other line."""
    if unix := UNIX_LINE.fullmatch(line):
        name = unix["name"].split(" -> ")[0] if unix["type"] == "l" else unix["name"]
        folder = unix["type"] == "d"
        return None if name in {".", ".."} else Entry(name, folder, None if folder else int(unix["size"]))
    if dos := DOS_LINE.fullmatch(line):
        return Entry(dos["name"], bool(dos["dir"]), int(dos["size"]) if dos["size"] else None)
    return None


def parse_time(text: str) -> datetime | None:
    """Return the moment, always UTC, that a server gives as ``YYYYMMDDHHMMSS``."""
    try:
        return datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
