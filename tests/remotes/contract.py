"""What a remote's test class tells the round-trip suite: how to build its storage, and what its system cannot do."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

import pytest
from django.utils.module_loading import import_string

from queued_storage.exceptions import ErrorKind
from queued_storage.remotes.base import Stat
from tests.remotes.material import digests_of

MB = 1 << 20
NAMES = [
    "sub/dir/a b.bin",
    "Ünïcödé/日本語/файл.txt",
    "joined 👩‍👩‍👧.txt",
    "100% %41 %2e%2e %zz.txt",
    "what?#&+=;:@,$!*'().txt",
    'quote".txt',
    "back`tick{a}[b]^~.txt",
    "_leading",
    ".hidden",
    "-rf",
    "a.",
    "trailing space /x .txt",
    "x" * 200,
]


class Contract:
    """What the suite asks of a remote's test class: hooks, and flags for what a system cannot do (reason beside it)."""

    backend: ClassVar[str]
    # Digests that ``stat()`` always knows, and those that ``_save`` compares when the content brings them along.
    digest_algorithms: ClassVar[frozenset[str]] = frozenset()
    checks_known_digests: ClassVar[frozenset[str]] = frozenset()
    has_times: ClassVar[bool] = False
    has_url: ClassVar[bool] = True
    has_public_url: ClassVar[bool] = False
    keeps_content_type: ClassVar[bool] = True
    has_credentials: ClassVar[bool] = True
    has_network: ClassVar[bool] = True
    # Whether of two writers that start together the server itself turns one away.
    creates_atomically: ClassVar[bool] = True
    # Whatever of the options may never be seen in a repr, an error, a traceback's variables or a log line.
    secrets: ClassVar[tuple[str, ...]] = ()
    names: ClassVar[list[str]] = NAMES
    memory_limit: ClassVar[int] = 12 * MB
    # What the server of the tests can take, where that is less than what its protocol can.
    largest: ClassVar[int] = 5000 * MB

    # -- What a subclass must or may give ----------------------------------------------------------------------------

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Return the options of a storage on the real server; JSON only."""
        raise NotImplementedError

    def options_at(self, options: dict[str, Any], port: int) -> dict[str, Any]:
        """Return the options with another port on 127.0.0.1 for the server, and time-outs of a second."""
        raise NotImplementedError

    def options_denied(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options with credentials that the server refuses."""
        raise NotImplementedError

    def content_type(self, storage: Any, name: str) -> str:
        """Return the content type that the server holds for ``name``."""
        raise NotImplementedError

    def stat(self, storage: Any, name: str) -> Stat | None:
        """Return the remote's answer; overridden for storages that are not a ``RemoteStorage``."""
        answer: Stat | None = storage.stat(name)
        return answer

    def kind(self, storage: Any, error: BaseException) -> ErrorKind | None:
        """Return the kind of an error; overridden for storages that are not a ``RemoteStorage``."""
        answer: ErrorKind | None = storage.sort_error(error)
        return answer

    def build(self, options: dict[str, Any]) -> Any:
        """Return a storage with these options."""
        return import_string(self.backend)(**options)

    @pytest.fixture
    def storage(self, options: dict[str, Any]) -> Any:
        """Return a storage on the real server."""
        return self.build(options)

    @pytest.fixture
    def folder(self) -> str:
        """Return a folder that no other test uses."""
        return f"t{uuid.uuid4().hex[:12]}"

    def assert_stat(self, storage: Any, name: str, size: int) -> None:
        """Fail unless the remote knows size and digests of ``upload(size)``."""
        stat = self.stat(storage, name)
        assert stat is not None
        assert stat.size == size
        known = digests_of(size)
        assert self.digest_algorithms <= set(stat.digests)
        assert stat.digests == {algorithm: known[algorithm] for algorithm in stat.digests}
