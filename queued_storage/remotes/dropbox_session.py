"""How Dropbox's client reaches its servers, and what of it may be seen."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
from dropbox import create_session
from requests.adapters import HTTPAdapter


def session_to(server: str = "") -> requests.Session:
    """Return a session for Dropbox's client, whose requests all go to ``server`` where one is given."""
    session: requests.Session = create_session()
    if server:
        session.mount("https://", _Elsewhere(server))
    return session


def client_of(storage: Any) -> Any:
    """Return the client of a storage, without its own retries, which would hold a lease for ever."""
    known = vars(storage).get("_queued_storage_client")
    if known is None or known[0] is not storage.client:
        # Not 0, which older clients take for "as before".
        without_retries = storage.client.clone(max_retries_on_error=-1, max_retries_on_rate_limit=-1)
        # Kept with the storage: a clone of its own for each call would fetch a token each time.
        known = storage._queued_storage_client = storage.client, without_retries
    return known[1]


@contextmanager
def nothing_shown() -> Iterator[None]:
    """Empty the frames of an error that passes: the client's variables hold the token, and debug pages show them."""
    try:
        yield
    except BaseException as error:
        each: BaseException | None = error
        while each is not None:
            traceback.clear_frames(each.__traceback__)
            each = each.__cause__ or each.__context__
        raise


class _Elsewhere(HTTPAdapter):
    def __init__(self, server: str) -> None:
        super().__init__()
        self.server = server.rstrip("/")

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        parts = urlsplit(str(request.url))
        request.url = self.server + parts.path + (f"?{parts.query}" if parts.query else "")
        return super().send(request, *args, **options)
