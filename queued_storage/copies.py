"""What lies at the two places of a record at this moment, for people: found or not, and where to look at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from queued_storage import asking, examining, links
from queued_storage.digests import format_digests
from queued_storage.examining import Found, Look
from queued_storage.models import Side, TransferRecord
from queued_storage.pairs import StoragePair, pair_for
from queued_storage.redaction import describe

# Somebody waits for the page.
SECONDS = 5.0


@dataclass(frozen=True)
class Copy:
    """One side of a file: what was found there, why not where it was not, and a URL of it, if people may have one."""

    side: Side
    found: Found
    reason: str = ""
    size: int | None = None
    digests: str = ""
    url: str = ""

    @property
    def is_there(self) -> bool:
        """Whether anything lies there."""
        return self.found in (Found.SAME, Found.DIFFERENT)


def look_at_both(record: TransferRecord, private_links: bool, seconds: float = SECONDS) -> list[Copy]:
    """Ask both sides of a record, side by side, for no longer than ``seconds`` in all; never raises.

    A side that gives no answer in time is ``Found.UNKNOWN``. URLs of private files are left out without
    ``private_links``.
    """
    try:
        storage = pair_for(record.storage)
    except Exception as error:
        return [Copy(side, Found.UNKNOWN, describe(error)) for side in Side]
    questions = [_question(side, record, storage, private_links) for side in Side]
    silence = f"no answer within {seconds:g} seconds"
    answers = asking.ask(seconds, *questions)
    return [each or Copy(side, Found.UNKNOWN, silence) for side, each in zip(Side, answers, strict=True)]


def _question(side: Side, record: TransferRecord, storage: StoragePair, private_links: bool) -> Callable[[], Copy]:
    look, url = (_look_locally, _local_url) if side == Side.LOCAL else (examining.look_remotely, _remote_url)

    def ask() -> Copy:
        try:
            found = look(record, storage)
            copy = Copy(side, found.found, found.reason, found.size, format_digests(found.digests))
        except Exception as error:
            return Copy(side, Found.UNKNOWN, describe(error, storage.local_options, storage.remote_options))
        if not copy.is_there or (links.private(storage) and not private_links):
            return copy
        try:
            return replace(copy, url=_harmless(url(record, storage)))
        except Exception:
            # Many storages have no URLs; the copy is there all the same.
            return copy

    return ask


def _look_locally(record: TransferRecord, storage: StoragePair) -> Look:
    return examining.look_locally(record, storage)


def _local_url(record: TransferRecord, storage: StoragePair) -> str:
    if not links.private(storage):
        return str(storage.local.url(record.local_name))
    # The view gives out what holds the name now: of another record, or of the remote, it would be another copy.
    holds = record.key is not None and record.location == Side.LOCAL
    return links.make(storage, record.name) if holds else ""


def _remote_url(record: TransferRecord, storage: StoragePair) -> str:
    return str(storage.remote.url(record.remote_name))


def _harmless(url: str) -> str:
    return url if urlsplit(url).scheme in ("", "http", "https") else ""
