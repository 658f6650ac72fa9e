"""The part of the round-trip suite in which something goes wrong: a source, a server, a password."""

from __future__ import annotations

import logging
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from queued_storage.exceptions import ErrorKind
from tests.remotes.contract import MB, Contract
from tests.remotes.material import SourceBrokeError, closed_port, digests_of, error_of, silent_port, text, upload
from tests.remotes.stalled import stalled_save


class Faults(Contract):
    """Trouble on either side ends in the right kind of error and never in a lie."""

    # -- What goes wrong on our side ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [100_000, 3 * MB])
    def test_a_source_that_breaks_leaves_nothing(self, storage: Any, folder: str, size: int) -> None:
        """The source's own error comes out, no object is visible, and the name can be saved at once."""
        name = f"{folder}/broken.bin"
        with pytest.raises(SourceBrokeError):
            storage._save(name, upload(size, break_at=size // 2))
        self.assert_nothing(storage, name)
        storage._save(name, upload(size))
        assert storage.size(name) == size

    @pytest.mark.parametrize(("size", "end_at"), [(100_000, 0), (100_000, 50_000), (100_000, 150_000), (0, 5)])
    def test_a_source_of_another_length_is_a_mismatch(self, storage: Any, folder: str, size: int, end_at: int) -> None:
        """Fewer or more bytes than were announced are never stored."""
        name = f"{folder}/liar.bin"
        error = error_of(lambda: storage._save(name, upload(size, end_at=end_at)))
        assert self.kind(storage, error) == ErrorKind.MISMATCH, repr(error)
        self.assert_nothing(storage, name)

    def test_bytes_that_changed_since_they_were_hashed_are_a_mismatch(self, storage: Any, folder: str) -> None:
        """A digest known beforehand is compared with what arrived; other bytes are not left under the name."""
        if not self.checks_known_digests:
            pytest.skip("this system compares no digest that is known beforehand")
        for algorithm in sorted(self.checks_known_digests):
            name = f"{folder}/{algorithm}.bin"
            known = {algorithm: digests_of(7)[algorithm]}
            error = error_of(lambda: storage._save(name, upload(100_000, digests=known)))  # noqa: B023 - called at once
            assert self.kind(storage, error) == ErrorKind.MISMATCH, repr(error)
            self.assert_nothing(storage, name)

    def test_true_digests_known_beforehand_are_accepted(self, storage: Any, folder: str) -> None:
        """A transfer that knows size and digests of its bytes saves them like anybody else."""
        name, size = f"{folder}/known.bin", 200_000
        assert storage._save(name, upload(size, digests=digests_of(size))) == name
        self.assert_stat(storage, name, size)

    def assert_nothing(self, storage: Any, name: str) -> None:
        """Fail if anything can be seen of ``name``."""
        assert storage.exists(name) is False
        assert self.stat(storage, name) is None
        assert storage.listdir(name.rpartition("/")[0])[1] == []

    def test_a_process_killed_in_mid_upload_leaves_nothing(self, options: dict[str, Any], folder: str) -> None:
        """A worker that dies with half of the bytes sent leaves no object, and its successor saves the file."""
        name, size = f"{folder}/killed.bin", 3 * MB
        with stalled_save(self.backend, options, name, size):
            pass
        storage = self.build(options)
        self.assert_nothing(storage, name)
        storage._save(name, upload(size))
        self.assert_stat(storage, name, size)

    def test_one_storage_serves_many_threads(self, storage: Any, folder: str) -> None:
        """A worker's threads share the storage object; every one gets its own bytes back."""

        def there_and_back(number: int) -> None:
            name = f"{folder}/{number}.bin"
            storage._save(name, text(str(number).encode() * 20_000))
            with storage.open(name) as stream:
                assert stream.read() == str(number).encode() * 20_000

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(there_and_back, range(16)))
        assert len(storage.listdir(folder)[1]) == 16

    # -- What goes wrong on theirs -----------------------------------------------------------------------------------

    def attempts(self, storage: Any, folder: str) -> list[Any]:
        """Return the calls that a server in trouble must not answer with a lie."""
        name = f"{folder}/x"
        return [
            lambda: storage._save(name, text(b"x")),
            lambda: storage.open(name),
            lambda: storage.exists(name),
            lambda: self.stat(storage, name),
            lambda: storage.size(name),
            lambda: storage.delete(name),
            lambda: storage.listdir(folder),
        ]

    def assert_fails(self, storage: Any, folder: str, kind: ErrorKind, seconds: float) -> None:
        """Fail unless every call ends in an error of ``kind``, in time, with no secret in it."""
        for attempt in self.attempts(storage, folder):
            started = time.monotonic()
            error = error_of(attempt)
            assert not isinstance(error, FileNotFoundError | FileExistsError), "trouble is not an answer"
            assert self.kind(storage, error) == kind, repr(error)
            assert time.monotonic() - started < seconds
            self.assert_no_secret(error)

    def assert_no_secret(self, error: BaseException) -> None:
        """Fail if a secret stands in the error, its causes, or the variables that a debug page shows with them."""
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        written = "".join(shown.format()) + repr(error) + str(error)
        for secret in self.secrets:
            assert secret not in written

    def test_a_refused_connection_is_passing(self, options: dict[str, Any], folder: str) -> None:
        """With nobody listening every call fails at once with an error that may pass."""
        if not self.has_network:
            pytest.skip("this remote has no network of its own")
        with closed_port() as port:
            self.assert_fails(self.build(self.options_at(options, port)), folder, ErrorKind.PASSING, 5)

    def test_a_silent_server_is_passing(self, options: dict[str, Any], folder: str) -> None:
        """A server that accepts and never answers costs its time-out, not for ever."""
        if not self.has_network:
            pytest.skip("this remote has no network of its own")
        with silent_port() as port:
            self.assert_fails(self.build(self.options_at(options, port)), folder, ErrorKind.PASSING, 8)

    def test_refused_credentials_are_denied(
        self, options: dict[str, Any], folder: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Wrong credentials are the matter of the whole storage, and stand in no error and no log line."""
        if not self.has_credentials:
            pytest.skip("this system has no credentials")
        with caplog.at_level(logging.DEBUG):
            self.assert_fails(self.build(self.options_denied(options)), folder, ErrorKind.DENIED, 20)
        for secret in self.secrets:
            assert secret not in caplog.text

    def test_credentials_are_never_shown(self, storage: Any, folder: str, caplog: pytest.LogCaptureFixture) -> None:
        """Neither the storage, nor an opened file, nor a log line of a good transfer shows a secret."""
        with caplog.at_level(logging.DEBUG):
            storage._save(f"{folder}/x", text(b"x"))
            with storage.open(f"{folder}/x") as stream:
                shown = repr(storage) + str(storage) + repr(stream) + repr(stream.file) + repr(vars(storage))
            self.stat(storage, f"{folder}/x")
        for secret in self.secrets:
            assert secret not in shown + caplog.text
