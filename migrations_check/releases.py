"""The released schemas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Release:
    """A released version with the last migration of each app in it.

    ``changed`` names, table by table, the columns whose values a later migration means to change or remove.
    """

    version: str
    migrations: Mapping[str, str]
    changed: Mapping[str, frozenset[str]] = field(default_factory=dict)


#: Every release, oldest first. A release adds itself here; see the release steps in CONTRIBUTING.md.
RELEASES: tuple[Release, ...] = ()
