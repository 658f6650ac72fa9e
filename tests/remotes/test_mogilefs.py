"""MogileFS: the round trip against the tests' own trackers and nodes, its faults, and on request a real tracker."""

from __future__ import annotations

import io
import os
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from queued_storage.exceptions import ErrorKind, MismatchError, StorageConfigurationError
from queued_storage.remotes.base import Stat
from queued_storage.remotes.mogilefs import MogileFSStorage
from tests.remotes.material import (
    Upload,
    check_bytes,
    closed_port,
    digests_of,
    error_of,
    full_port,
    silent_port,
    text,
    upload,
)
from tests.remotes.roundtrip import RoundTrip
from tests.servers.mogilefs import Cluster


class MogileFSContract(RoundTrip):
    """What MogileFS cannot do."""

    backend = "queued_storage.remotes.mogilefs.MogileFSStorage"
    checks_known_digests = frozenset({"md5", "sha256"})
    keeps_content_type = False  # MogileFS stores keys and bytes, nothing else
    has_credentials = False  # MogileFS trusts its network

    def options_at(self, options: dict[str, Any], port: int) -> dict[str, Any]:
        """Return the options of a tracker at ``port``."""
        return options | {"trackers": [f"127.0.0.1:{port}"], "connect_timeout": 0.4, "read_timeout": 0.4}


class TestMogileFS(MogileFSContract):
    """Every promise of the round trip, against the tests' own cluster."""

    digest_algorithms = frozenset({"md5"})

    @pytest.fixture
    def options(self, mogilefs_cluster: Cluster) -> dict[str, Any]:
        """Return the options of the tests' domain."""
        mogilefs_cluster.heal()
        return {"trackers": mogilefs_cluster.trackers, "domain": "files", "base_url": "https://files.example/media/"}

    def test_a_domain_that_is_not_there_is_denied(self, options: dict[str, Any], folder: str) -> None:
        """A missing domain is never taken for a missing file."""
        self.assert_fails(self.build(options | {"domain": "nowhere"}), folder, ErrorKind.DENIED, 5)


if "MOGILEFS_TRACKERS" in os.environ:

    class TestRealMogileFS(MogileFSContract):
        """Every promise of the round trip, against the trackers and the domain that the environment names."""

        @pytest.fixture
        def options(self) -> dict[str, Any]:
            """Return the options of the real cluster."""
            domain = os.environ.get("MOGILEFS_DOMAIN", "queued-storage-tests")
            address = "https://files.example/media/"
            return {"trackers": os.environ["MOGILEFS_TRACKERS"], "domain": domain, "base_url": address}

else:

    @pytest.mark.skip(reason="no real tracker: set MOGILEFS_TRACKERS and MOGILEFS_DOMAIN to run the round trip there")
    def test_a_real_mogilefs() -> None:
        """The whole round trip runs against a real cluster where the environment names one."""


@pytest.fixture
def cluster(mogilefs_cluster: Cluster) -> Cluster:
    """The cluster with all faults switched off."""
    mogilefs_cluster.heal()
    return mogilefs_cluster


@pytest.fixture
def storage(cluster: Cluster) -> MogileFSStorage:
    """A storage on the cluster."""
    return MogileFSStorage(cluster.trackers, "files", connect_timeout=1, read_timeout=1)


@pytest.fixture
def name() -> str:
    """A name of this test."""
    return f"n{uuid.uuid4().hex}"


def leftovers(cluster: Cluster) -> list[str]:
    """Return the keys that uploads left behind."""
    return [key for key in cluster.files if key.startswith("queued-upload/")]


def test_a_transfer_costs_four_requests(storage: MogileFSStorage, cluster: Cluster, name: str) -> None:
    """Three questions to a tracker and one PUT store a file; reading it costs two questions and one GET."""
    storage._save(name, upload(100_000))
    assert cluster.commands == ["create_open", "create_close", "rename"]
    assert [node.requests for node in cluster.nodes] == [["PUT"], []]
    cluster.commands.clear()
    with storage.open(name) as stream:
        stream.read()
    assert cluster.commands == ["file_info", "get_paths"]
    assert cluster.nodes[0].requests == ["PUT", "GET"]


@pytest.mark.parametrize("port", [closed_port, silent_port, full_port])
def test_a_dead_tracker_is_passed_over_and_asked_last(
    cluster: Cluster, name: str, port: Callable[[], AbstractContextManager[int]]
) -> None:
    """The next tracker is asked, and from then on first, so that the time-out is paid once."""
    with port() as number:
        storage = MogileFSStorage(
            [f"127.0.0.1:{number}", *cluster.trackers], "files", connect_timeout=1, read_timeout=1
        )
        assert not storage.exists(name)
        started = time.monotonic()
        for _ in range(5):
            assert not storage.exists(name)
        assert time.monotonic() - started < 1
    cluster.mute_trackers |= {0, 1}
    assert storage.sort_error(error_of(lambda: storage.exists(name))) == ErrorKind.PASSING


def test_a_tracker_that_hangs_up_is_no_answer_to_a_question(
    storage: MogileFSStorage, cluster: Cluster, name: str
) -> None:
    """What changes nothing is asked again of the next tracker."""
    storage._save(name, text(b"x"))
    cluster.mute_trackers.add(0)
    assert storage.size(name) == 1
    assert storage.exists(name)
    assert storage.open(name).read() == b"x"
    assert storage.listdir("")[1].count(name) == 1


def test_a_command_is_not_given_twice(storage: MogileFSStorage, cluster: Cluster, name: str) -> None:
    """A tracker that hangs up after a command may have carried it out, so no other one is given it."""
    storage._save(name, text(b"x"))
    cluster.mute_trackers.add(0)
    assert storage.sort_error(error_of(lambda: storage.delete(name))) == ErrorKind.PASSING
    assert storage.exists(name)


@pytest.mark.parametrize("answer", [b"", b"OK fid=1", b"HTTP/1.1 400 Bad Request\r\n", b"ERR \r\n"])
def test_an_answer_that_is_not_the_protocols_is_passing(
    storage: MogileFSStorage, cluster: Cluster, name: str, answer: bytes
) -> None:
    """Half a line, or the line of another server, is trouble and not an answer."""
    cluster.raw_answer = answer
    assert storage.sort_error(error_of(lambda: storage.exists(name))) == ErrorKind.PASSING


def test_dead_paths_are_passed_over(storage: MogileFSStorage, cluster: Cluster, name: str) -> None:
    """The bytes go to and come from the first device that answers."""
    cluster.dead_paths = 2
    storage._save(name, upload(300_000))
    with storage.open(name) as stream:
        assert check_bytes(stream, 300_000) == 300_000


@pytest.mark.parametrize("fault", ["refuse", "forbid", "full", "hang up"])
def test_a_failed_put_is_seen_and_tried_on_the_next_device(
    storage: MogileFSStorage, cluster: Cluster, name: str, fault: str
) -> None:
    """A device that does not take the file leaves it to the next one; if none does, the error may pass."""
    cluster.nodes[0].fault = fault
    storage._save(name, upload(3_000_000))
    assert [node.requests for node in cluster.nodes] == [["PUT"], ["PUT"]]
    assert storage.size(name) == 3_000_000
    cluster.nodes[1].fault = fault
    error = error_of(lambda: storage._save(name + "2", upload(3_000_000)))
    assert storage.sort_error(error) == ErrorKind.PASSING
    assert not storage.exists(name + "2")


def test_a_source_that_cannot_be_read_twice_is_not_sent_twice(
    storage: MogileFSStorage, cluster: Cluster, name: str
) -> None:
    """After a failed PUT a pipe's bytes are gone; the attempt ends instead of storing the rest."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *args: Any) -> int:
            raise io.UnsupportedOperation("seek")

    cluster.dead_paths = 1
    storage._save(name, Upload(Pipe(b"x" * 500_000), 500_000))
    assert storage.size(name) == 500_000
    cluster.nodes[0].fault = "hang up"
    error = error_of(lambda: storage._save(name + "2", Upload(Pipe(b"x" * 500_000), 500_000)))
    assert storage.sort_error(error) == ErrorKind.PASSING
    assert [node.requests for node in cluster.nodes] == [["PUT", "PUT"], []]


@pytest.mark.parametrize("fault", ["cut", "flip"])
def test_a_device_that_keeps_other_bytes_is_a_mismatch(
    storage: MogileFSStorage, cluster: Cluster, name: str, fault: str
) -> None:
    """The tracker compares size and digest with what arrived; nothing becomes visible."""
    cluster.nodes[0].fault = fault
    error = error_of(lambda: storage._save(name, upload(100_000)))
    assert storage.sort_error(error) == ErrorKind.MISMATCH
    assert not storage.exists(name)
    assert leftovers(cluster) == []


def test_a_taken_name_leaves_no_upload_behind(storage: MogileFSStorage, cluster: Cluster, name: str) -> None:
    """When the tracker refuses to rename onto a key, the uploaded file is deleted again."""
    storage._save(name, text(b"first"))
    with pytest.raises(FileExistsError):
        storage._save(name, text(b"second"))
    assert leftovers(cluster) == []
    assert storage.size(name) == 5


def test_the_bytes_are_never_under_a_name_before_they_are_whole(
    storage: MogileFSStorage, cluster: Cluster, name: str
) -> None:
    """Closing an upload replaces a key without a question, so only a renamed one ever reaches the name."""
    storage._save(name, text(b"x"))
    assert cluster.closed_keys[-1].startswith("queued-upload/")
    assert name not in cluster.closed_keys


def test_a_class_without_checksums_has_a_size_only(storage: MogileFSStorage, cluster: Cluster, name: str) -> None:
    """Where MogileFS keeps no digest, ``stat`` gives none, and the file can be read."""
    storage._save(name, upload(1000))
    assert storage.stat(name) == Stat(1000, {"md5": digests_of(1000)["md5"]})
    cluster.keeps_checksums = False
    assert storage.stat(name) == Stat(1000)
    with storage.open(name) as stream:
        assert check_bytes(stream, 1000) == 1000
    cluster.keeps_checksums = True
    cluster.files[name].checksum = ""
    assert storage.stat(name) == Stat(1000)


def test_bytes_that_rotted_on_the_device_are_not_handed_out(
    storage: MogileFSStorage, cluster: Cluster, name: str
) -> None:
    """A file read from end to end is compared with its digest, and a shortened one is not read at all."""
    storage._save(name, text(b"precious"))
    file = cluster.nodes[0].file(cluster.files[name].paths[0])
    file.write_bytes(b"specious")
    with storage.open(name) as stream, pytest.raises(MismatchError):
        stream.read()
    file.write_bytes(b"prec")
    error = error_of(lambda: storage.open(name))
    assert not isinstance(error, FileNotFoundError)
    assert storage.sort_error(error) == ErrorKind.PASSING


def test_a_file_whose_devices_are_all_down_is_not_missing(
    storage: MogileFSStorage, cluster: Cluster, name: str
) -> None:
    """The tracker knows the key, so an unreachable device is a temporary error."""
    storage._save(name, text(b"x"))
    for fault in ["refuse", "forbid", "hang up"]:
        cluster.nodes[0].fault = fault
        error = error_of(lambda: storage.open(name))
        assert not isinstance(error, FileNotFoundError)
        assert storage.sort_error(error) == ErrorKind.PASSING
    cluster.files[name].paths.clear()
    assert storage.sort_error(error_of(lambda: storage.open(name))) == ErrorKind.PASSING


def test_a_name_longer_than_a_key_is_refused(storage: MogileFSStorage, cluster: Cluster) -> None:
    """Trackers cut longer keys without a word, so that such a name is never sent."""
    error = error_of(lambda: storage._save("é" * 128, text(b"x")))
    assert storage.sort_error(error) == ErrorKind.REFUSED
    assert cluster.commands == []
    storage._save("é" * 127, text(b"x"))
    storage.delete("é" * 127)


class SmallPages(MogileFSStorage):
    """Asks for two keys at a time."""

    page_size = 2


@pytest.mark.parametrize("character", ["a", "%", "\\", "(", "[", "*", "+", "?", "|", "^", "$", ".", "_"])
def test_a_folder_named_like_a_pattern_is_listed(cluster: Cluster, name: str, character: str) -> None:
    """Pages follow each other, and a character that trackers take for a pattern stands for itself."""
    storage = SmallPages(cluster.trackers, "files")
    folder = f"{name}/{character}x"
    for each in ["1", "2", "3/a", "3/b", "4", "5"]:
        storage._save(f"{folder}/{each}", text(b"x"))
    storage._save(f"{name}/{character}y", text(b"x"))
    storage._save(f"{name}/{character}yyy/sub/deep", text(b"x"))
    assert storage.listdir(folder) == (["3"], ["1", "2", "4", "5"])


def test_without_a_public_address_there_is_no_url(storage: MogileFSStorage) -> None:
    """Storage nodes are not for visitors."""
    with pytest.raises(ValueError, match="base_url"):
        storage.url("x")


@pytest.mark.parametrize("trackers", [[], "", " , ", ["http://x:1"], ["x:y"], ["x:1/files"]])
def test_trackers_that_cannot_be_are_refused(trackers: Any) -> None:
    """An empty list, and addresses of another form, are said at once."""
    with pytest.raises(StorageConfigurationError):
        MogileFSStorage(trackers, "files")


@pytest.mark.parametrize("address", ["localhost:{}", "127.0.0.1:{}"])
def test_trackers_are_host_and_port(cluster: Cluster, address: str) -> None:
    """Names and numbers are both addresses."""
    port = cluster.trackers[0].rpartition(":")[2]
    assert not MogileFSStorage(address.format(port), "files").exists("never")


def test_trackers_may_be_one_string(cluster: Cluster, name: str) -> None:
    """The list may come from an environment variable, separated by commas."""
    storage = MogileFSStorage(", ".join(cluster.trackers), "files", file_class="documents")
    started = time.monotonic()
    storage._save(name, text(b"x"))
    assert storage.exists(name)
    assert time.monotonic() - started < 5
    assert cluster.classes[-1] == "documents"
