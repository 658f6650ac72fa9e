"""What tells one body from another: its size and its digests."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Body:
    """The bytes of a file, known by size and digests (lower-case hexadecimal, by algorithm)."""

    size: int
    digests: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""


def format_digests(digests: Mapping[str, str]) -> str:
    """Write digests the way the ledger keeps them: ``"sha256:… crc32:…"``."""
    return " ".join(f"{algorithm}:{value}" for algorithm, value in digests.items())


def parse_digests(text: str) -> dict[str, str]:
    """Read what ``format_digests`` wrote."""
    return {algorithm: value for algorithm, _, value in (part.partition(":") for part in text.split())}


class Hasher:
    """Size, SHA-256 and CRC32 of the bytes that pass; further algorithms of hashlib by name."""

    def __init__(self, *algorithms: str) -> None:
        self.size = self._crc32 = 0
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in ("sha256", *algorithms)}

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes into account."""
        self.size += len(data)
        self._crc32 = zlib.crc32(data, self._crc32)
        for digest in self._hashes.values():
            digest.update(data)

    @property
    def digests(self) -> dict[str, str]:
        """The digests of all bytes so far, in lower-case hexadecimal."""
        return {**{name: value.hexdigest() for name, value in self._hashes.items()}, "crc32": f"{self._crc32:08x}"}
