"""File names: what is refused, what is spelled anew, and the names made from them.

One rule for every method of every storage here, stricter than Django's:

- A name is a relative path of one or more components parted by ``/``. ``\\`` counts as ``/``, as it does in Django's
  ``save()``; ``a//b``, ``./a`` and ``a/./b`` are respelled, so that one path has one name.
- Refused: ``..`` as a component, absolute paths, a directory (``a/``, ``a/.``), drive letters, ``scheme:/``, control
  characters, NUL, bidirectional and line-separating controls, U+FEFF, U+FFFE, U+FFFF, lone surrogates, and whatever
  lies in the staging directory.
- Everything else is kept byte for byte: no Unicode normalisation (NFC and NFD are two names), no case folding, no
  unquoting, no stripping.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from collections.abc import Callable
from os.path import splitext
from pathlib import PurePath, PurePosixPath

from django.core.exceptions import SuspiciousFileOperation
from django.utils.functional import Promise

STAGING_DIRECTORY = ".queued_storage"
MAX_NAME_BYTES = 1024
MAX_COMPONENT_BYTES = 255
MAX_EXTENSION_BYTES = 128

_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
# Most names are of this form, and need no further look if they are short.
_HARMLESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_DRIVE_OR_SCHEME = re.compile(r"[A-Za-z](:|[A-Za-z0-9+.-]*:$)")
_GENERATION = re.compile(r"(?P<stem>.+)\.g(?P<generation>[1-9][0-9]{0,17})-[0-9a-f]{16}(?P<extension>\.[^.]*)?")


def clean_name(name: object) -> str:
    """Return the one spelling of ``name`` as a plain ``str``; idempotent.

    Raises ``SuspiciousFileOperation`` for a name that is refused (see the module), or longer than 1024 bytes in
    UTF-8 or 255 in one component, and ``TypeError`` for anything but a string, a lazy string or a ``PurePath``.
    """
    text = _plain(name)
    if _is_harmless(text):
        return text
    return _join(text, _components(text))


def clean_directory(path: object) -> str:
    """Return the one spelling of a directory for ``listdir()``; the root is ``""``.

    ``""`` and ``.`` are the root and a trailing ``/`` is allowed; all else is refused as in ``clean_name()``.
    """
    text = _plain(path)
    return _join(text, _components(text, directory=True))


def fit(name: object) -> str:
    """Return ``clean_name(name)`` with every over-long component cut to 255 bytes, its extension kept.

    For ``save()``, where another name is better than none. Raises as ``clean_name()`` does for all else; a name
    longer than 1024 bytes is refused, not cut.
    """
    text = _plain(name)
    if _is_harmless(text):
        return text
    return clean_name("/".join(_cut_component(part) for part in _components(text)))


def escape(text: object, limit: int = 200) -> str:
    """Return ``text`` as one line of printable ASCII of at most ``limit`` characters, for logs, terminals, errors."""
    plain = str(text)[: limit + 1]
    escaped = plain.encode("unicode_escape").decode("ascii")
    return escaped if len(escaped) <= limit else escaped[: max(limit - 3, 0)] + "..."[:limit]


def printable(text: str) -> str:
    """Return ``text`` with every character escaped that does not print, or turns the direction of what follows."""
    return _FORBIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def record_key(alias: str, name: str) -> uuid.UUID:
    """Return the key of ``name`` in the storage ``alias``: 122 bits of digest, the same on every machine."""
    text = f"{alias}\0{name}".encode("utf-8", "surrogatepass")
    # A version and a variant, six bits of the digest: MariaDB's UUID column refuses values that have none.
    return uuid.UUID(bytes=hashlib.blake2b(text, digest_size=16).digest(), version=5)


def generation_name(name: str, generation: int) -> str:
    """Return a fresh place for another body of ``name``: ``dir/stem.g<generation>-<16 hex digits>.ext``.

    The stem is cut where the limits of ``clean_name()`` ask for it, and where even that is not enough the innermost
    directories are left out. Raises ``ValueError`` for a generation below 1 and as ``clean_name()`` does.
    """
    if generation < 1:
        raise ValueError(f"A generation is a number from 1 on, not {generation}.")
    *directories, base = clean_name(name).split("/")
    stem, extension = _split_extension(base)
    marker = f".g{generation}-{secrets.token_hex(8)}{extension}"
    while True:
        used = sum(_size(part) + 1 for part in directories)
        room = min(MAX_COMPONENT_BYTES, MAX_NAME_BYTES - used) - _size(marker)
        if room >= min(_size(stem), 4):
            return "/".join([*directories, _cut(stem, room) + marker])
        directories.pop()


def alternative_name(name: str, alter: Callable[[str, str], str], max_length: int | None = None) -> str:
    """Return another name beside ``name``: ``alter(stem, extensions)`` is a storage's ``get_alternative_name()``.

    The stem is cut as far as the limits and ``max_length`` (in characters, of the whole name) ask for. Raises
    ``SuspiciousFileOperation`` if nothing would be left of it.
    """
    directory, slash, base = name.rpartition("/")
    extensions = "".join(PurePosixPath(base).suffixes)
    stem = base.removesuffix(extensions)
    if _size(extensions) > MAX_EXTENSION_BYTES:
        stem, extensions = _split_extension(base)
    while stem:
        altered = alter(stem, extensions)
        another = f"{directory}{slash}{altered}"
        characters = len(another) - max_length if max_length else 0
        size = max(_size(altered) - MAX_COMPONENT_BYTES, _size(another) - MAX_NAME_BYTES)
        if characters <= 0 and size <= 0:
            return another
        stem = stem[:-characters] if characters > 0 else _cut(stem, max(_size(stem) - size, 0))
    raise _refused(name, f"it is taken or too long, and no other one fits into max_length={max_length}")


def logical_name(physical: str) -> tuple[str, int] | None:
    """Return name and generation of a place made by ``generation_name()``, or ``None`` if it is none.

    A help for people who look at a bare directory: a name that was cut comes back cut, and anybody can give a file
    a name of this pattern. The ledger knows better.
    """
    directory, slash, base = physical.rpartition("/")
    match = _GENERATION.fullmatch(base)
    if match is None:
        return None
    return f"{directory}{slash}{match['stem']}{match['extension'] or ''}", int(match["generation"])


def _plain(name: object) -> str:
    # Read exactly once: a str subclass or a lazy string may answer differently the next time.
    if isinstance(name, str):
        return str.__str__(name)
    if isinstance(name, (PurePath, Promise)):
        return str(name)
    raise TypeError(f"A file name must be a str or a pathlib path, not {type(name).__name__}.")


def _is_harmless(text: str) -> bool:
    return len(text) <= MAX_COMPONENT_BYTES and _HARMLESS.fullmatch(text) is not None


def _components(text: str, *, directory: bool = False) -> list[str]:
    if not text and not directory:
        raise _refused(text, "it is empty")
    if forbidden := _FORBIDDEN.search(text):
        raise _refused(text, f"it contains U+{ord(forbidden[0]):04X}")
    if len(text) > MAX_NAME_BYTES or _size(text) > MAX_NAME_BYTES:
        raise _refused(text, f"it is longer than {MAX_NAME_BYTES} bytes")
    parts = text.replace("\\", "/").split("/")
    if text and not parts[0]:
        raise _refused(text, "it is absolute")
    if ".." in parts:
        raise _refused(text, "it contains '..'")
    if parts[-1] in ("", ".") and not directory:
        raise _refused(text, "it is a directory")
    parts = [part for part in parts if part not in ("", ".")]
    if parts and _DRIVE_OR_SCHEME.match(parts[0]):
        raise _refused(text, "it begins with a drive or a scheme")
    # Case-insensitive file systems exist, and there this would be the same directory.
    if parts and parts[0].casefold() == STAGING_DIRECTORY:
        raise _refused(text, f"{STAGING_DIRECTORY} is reserved")
    return parts


def _join(text: str, parts: list[str]) -> str:
    if _size(text) > MAX_COMPONENT_BYTES and any(_size(part) > MAX_COMPONENT_BYTES for part in parts):
        raise _refused(text, f"a component is longer than {MAX_COMPONENT_BYTES} bytes")
    return "/".join(parts)


def _refused(text: str, reason: str) -> SuspiciousFileOperation:
    return SuspiciousFileOperation(f"Refused the file name '{escape(text)}': {reason}.")


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def _cut_component(part: str) -> str:
    if _size(part) <= MAX_COMPONENT_BYTES:
        return part
    stem, extension = _split_extension(part)
    return _cut(stem, MAX_COMPONENT_BYTES - _size(extension)) + extension


def _split_extension(base: str) -> tuple[str, str]:
    stem, extension = splitext(base)
    return (base, "") if _size(extension) > MAX_EXTENSION_BYTES else (stem, extension)
