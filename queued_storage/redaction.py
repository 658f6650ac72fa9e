"""Errors and options without secrets, short enough for a row and safe to show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from django.conf import settings

HIDDEN = "********"
# 2 KB in the ledger: enough for a message and its cause, bounded for ten million rows.
LIMIT = 2000
# Shorter values would blank out ordinary words.
SHORTEST = 4

SECRET_NAME = re.compile(
    r"secret|token|pass|pwd|signature|credential|private|api_?key|access_?key|account_?key|sas", re.IGNORECASE
)
# Bounded, so that no text makes the search run away.
_NAME = (
    r"[\w-]{0,40}(?:password|passwd|pwd|secret|token|(?:api|access|account|private)[_-]?key|credential|signature)"
    r"[\w-]{0,40}"
)
# The password, and the whole of what stands before the host.
LOGIN = re.compile(r"(?<=://)(?P<login>[^/\s:]*(?::(?P<password>[^/\s]*))?)(?=@)")
PAIR = re.compile(rf"(\b(?:{_NAME}|sig)['\"]?(?:\s*[=:]\s*['\"]?|>))[^\s'\",;&)}}\]<]+", re.IGNORECASE)
HEADER = re.compile(r"(authorization['\"]?\s*[=:]\s*['\"]?)[^'\"\r\n]+", re.IGNORECASE)
PEM = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)", re.DOTALL)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def secrets(options: Any) -> Iterator[str]:
    """Yield what is secret in ``options``, nested values included.

    That is every text under a secret-looking name, and the password of every URL.
    """
    if isinstance(options, Mapping):
        for name, value in options.items():
            yield from _texts(value) if SECRET_NAME.search(str(name)) else secrets(value)
    elif isinstance(options, (list, tuple, set, frozenset)):
        for value in options:
            yield from secrets(value)
    elif isinstance(options, str):
        yield from (match["password"] for match in LOGIN.finditer(options) if match["password"])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, (str, bytes)):
        yield value if isinstance(value, str) else value.decode(errors="replace")
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from _texts(inner)


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``options`` less every secret-looking name and every value with a secret in it; paths become strings."""
    found = {name: _public(value) for name, value in options.items() if not SECRET_NAME.search(str(name))}
    return {name: value for name, value in found.items() if value is not _SECRET}


_SECRET = object()


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_secrets(value)
    if isinstance(value, (list, tuple)):
        return [inner for inner in map(_public, value) if inner is not _SECRET]
    if isinstance(value, str) and (LOGIN.search(value) or PAIR.search(value) or PEM.search(value)):
        return _SECRET
    return str(value) if isinstance(value, PurePath) else value


def _configured_secrets() -> Iterator[str]:
    for name in dir(settings):
        wanted = name.isupper() and (SECRET_NAME.search(name) or name.endswith("URL"))
        # Django's own defaults hold no secret, and reading a deprecated one of them warns.
        if wanted and settings.is_overridden(name):  # type: ignore[misc]  # the stubs do not know it
            yield from secrets({name: getattr(settings, name, None)})
    for container in ("STORAGES", "DATABASES", "CACHES"):
        yield from secrets(getattr(settings, container, {}))


def _spellings(values: Iterable[str]) -> list[str]:
    # Longest first: one secret may be a part of another.
    wanted = {spelling for value in values if len(value) >= SHORTEST for spelling in (value, quote(value, safe=""))}
    return sorted(wanted, key=len, reverse=True)


def redact(text: object, *options: Mapping[str, Any]) -> str:
    """Return ``text`` without secrets and control characters, at most 2,000 characters.

    Hidden are the values of secret-looking settings and of secret-looking names in STORAGES and ``options``, and
    whatever looks like credentials: ``user:password@``, signatures of URLs, ``Authorization``, private keys.
    """
    # Cut first, generously: an error text of 10 MB must not cost a search of 10 MB for each secret.
    result = str(text)[: LIMIT * 8]
    for value in _spellings([*_configured_secrets(), *(secret for each in options for secret in secrets(each))]):
        result = _without_torn_end(result.replace(value, HIDDEN), value)
    result = PEM.sub(r"\g<1>" + HIDDEN, LOGIN.sub(HIDDEN, result))
    for pattern in (HEADER, PAIR):
        result = pattern.sub(r"\g<1>" + HIDDEN, result)
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", result)[:LIMIT]


def _without_torn_end(text: str, secret: str) -> str:
    # The cut may have gone through a secret, whose first half is then as good as the whole.
    for length in range(min(len(secret) - 1, len(text)), SHORTEST - 1, -1):
        if text.endswith(secret[:length]):
            return text[:-length] + HIDDEN
    return text


def describe(error: BaseException, *options: Mapping[str, Any]) -> str:
    """Return class and text of ``error``, redacted; also where the text cannot be made."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = f"{type(error).__name__}, whose text cannot be made"
    return redact(text, *options)
