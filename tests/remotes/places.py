"""Every remote as data: its named class, its server, the options of a storage there, and what a transfer costs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from django.utils.module_loading import import_string

from queued_storage.exceptions import ErrorKind
from queued_storage.models import State
from tests.remotes.contract import MB, Contract
from tests.servers import azure, couchdb, dropbox, ftp, gcs, gridfs, mogilefs, rclone, s3, sftp, swift
from tests.servers.debian import version_of
from tests.servers.roots import fresh

Options = dict[str, Any]
Serve = Callable[[], AbstractContextManager[Options]]
FROM_REMOTE = "remote"


@dataclass(frozen=True)
class Place:
    """One remote: ``serve`` runs its server and yields options; ``suite`` is the class of its round trip.

    ``requests`` are those of a transfer, verified: of 100 KB, and of 20 MB. ``full`` runs a server that has no room,
    and ``when_full`` is what the ledger says then.
    """

    backend: str
    suite: str
    serve: Serve
    server: Callable[[], str]
    requests: tuple[int, int]
    counted: str = "http"
    remote: str = FROM_REMOTE
    full: Serve | None = None
    # Another server of the same protocol that checks passwords, and its round trip.
    guarded: tuple[str, Serve] | None = None
    when_full: tuple[State, ErrorKind] = (State.QUEUED, ErrorKind.PASSING)

    @property
    def contract(self) -> Contract:
        """The remote's round trip, which knows how to point its options elsewhere."""
        return contract_of(self.suite)

    def entry(self, options: Options, **more: Any) -> dict[str, Any]:
        """Return an entry of STORAGES with a fresh folder as its local side."""
        remote = {} if self.remote == FROM_REMOTE else {"remote": self.remote}
        local = {"location": str(fresh("local")), "base_url": "/media/"}
        return {
            "BACKEND": f"queued_storage.backends.{self.backend}",
            "OPTIONS": {**remote, "local_options": local, "remote_options": options, **more},
        }


def contract_of(suite: str) -> Contract:
    """Return the round trip of that name."""
    contract: Contract = import_string(f"tests.remotes.{suite}")()
    return contract


def _at(server: Callable[..., Any], options: Callable[[Any], Options], **started: Any) -> Serve:
    @contextmanager
    def serve() -> Iterator[Options]:
        with server(**started) as running:
            yield options(running)

    return serve


def _s3(running: s3.S3Server) -> Options:
    return running.options(running.create_bucket(f"b{uuid.uuid4().hex}"), addressing_style="path")


def _rclone(running: s3.S3Server) -> Options:
    own = {"addressing_style": "path", "signature_version": "s3v4", "conditional_writes": False}
    return running.options(rclone.BUCKET, **own)


def _through(running: s3.S3Server, bucket: str) -> Options:
    keys = {"access_key_id": "test-key", "secret_access_key": "test-secret", "region": "us-east-1"}
    config = {"endpoint": running.endpoint, "virtual_hosted_style_request": False, **keys}
    return {"url": f"s3://{bucket}/a prefix", "config": config, "etag_is_md5": True}


def _objectstore(running: s3.S3Server) -> Options:
    return _through(running, running.create_bucket(f"b{uuid.uuid4().hex}"))


def _couchdb(running: couchdb.CouchDB) -> Options:
    login = {"username": couchdb.USER, "password": couchdb.PASSWORD, "read_timeout": 400}
    return {"server": running.url, "database": running.create("files"), **login}


def _gridfs(running: gridfs.MongoServer) -> Options:
    return {"uri": running.uri(), "database": "files", "base_url": "http://files.example/gridfs"}


def _mogilefs(running: mogilefs.Cluster) -> Options:
    return {"trackers": running.trackers, "domain": "files", "base_url": "https://files.example/media/"}


def _mogilefs_full(running: mogilefs.Cluster) -> Options:
    for node in running.nodes:
        node.fault = "full"
    return _mogilefs(running)


def _swift(running: swift.Swift) -> Options:
    login = {"auth_url": running.auth_url, "username": swift.USER, "password": swift.PASSWORD}
    return {"container": running.container, "temp_url_key": swift.TEMP_URL_KEY, **login}


def _swift_full(running: swift.Swift) -> Options:
    running.send("POST", f"/{running.container}", X_Container_Meta_Quota_Bytes="1000")
    return _swift(running)


def _dropbox_full(running: dropbox.Dropbox) -> Options:
    running.quota = 1000
    return running.options()


def _of(package: str) -> Callable[[], str]:
    return lambda: f"{package} {version(package)}"


PLACES = {
    "azure": Place(
        "QueuedAzureStorage",
        "test_azure.TestAzure",
        _at(azure.server, lambda running: running.options(expiration_secs=60)),
        lambda: f"azurite {azure.VERSION}",
        (3, 7),
    ),
    "couchdb": Place(
        "QueuedCouchDBStorage",
        "test_couchdb.TestCouchDB",
        _at(couchdb.server, _couchdb),
        lambda: f"pouchdb-server {couchdb.VERSION}",
        (5, 5),
    ),
    "database": Place(
        "QueuedDatabaseStorage",
        "test_database.TestDatabase",
        lambda: nullcontext({"base_url": "https://files.example/database"}),
        lambda: "the database of the run",
        (7, 26),
        counted="database",
    ),
    "dropbox": Place(
        "QueuedDropboxStorage",
        "test_dropbox.TestDropbox",
        _at(dropbox.server, lambda running: running.options(root_path="/media")),
        lambda: "stand-in in tests/servers",
        (4, 7),
        full=_at(dropbox.server, _dropbox_full),
    ),
    "ftp": Place(
        "QueuedFTPStorage",
        "test_ftp.TestPlain",
        _at(ftp.server, lambda running: running.options(base_url="http://files.example/ftp")),
        _of("pyftpdlib"),
        (39, 39),
        counted="ftp",
        full=_at(ftp.server, lambda running: running.options(), largest=MB),
    ),
    "google cloud": Place(
        "QueuedGoogleCloudStorage",
        "test_gcloud.TestGoogle",
        _at(gcs.server, lambda running: running.options()),
        _of("gcp-storage-emulator"),
        (3, 6),
    ),
    "gridfs": Place(
        "QueuedGridFSStorage",
        "test_gridfs.TestGridFS",
        _at(gridfs.server, _gridfs),
        _of("SecantusDB"),
        (7, 12),
        counted="gridfs",
    ),
    "mogilefs": Place(
        "QueuedMogileFSStorage",
        "test_mogilefs.TestMogileFS",
        _at(mogilefs.server, _mogilefs),
        lambda: "tracker and nodes in tests/servers",
        (7, 7),
        counted="mogilefs",
        full=_at(mogilefs.server, _mogilefs_full),
    ),
    "object store": Place(
        "QueuedFileSystemStorage",
        "test_objectstore.TestMoto",
        _at(s3.server, _objectstore),
        _of("moto"),
        (1, 8),
        counted="gate",
        remote="queued_storage.remotes.objectstore.ObjectStorage",
        guarded=("test_objectstore.TestRclone", _at(rclone.server, lambda running: _through(running, rclone.BUCKET))),
    ),
    "s3": Place(
        "QueuedS3Storage",
        "test_s3.TestMoto",
        _at(s3.server, _s3),
        _of("moto"),
        (1, 7),
        guarded=("test_s3.TestRclone", _at(rclone.server, _rclone)),
    ),
    "sftp": Place(
        "QueuedSFTPStorage",
        "test_sftp.TestOpenSSH",
        _at(sftp.server, lambda running: running.options(base_url="https://files.example/sftp"), openssh=True),
        lambda: f"OpenSSH {version_of('openssh-sftp-server')}",
        (18, 1290),
        counted="sftp",
        full=_at(sftp.server, lambda running: running.options(), openssh=True, largest=MB),
    ),
    "swift": Place(
        "QueuedCloudFilesStorage",
        "test_swift.TestSwift",
        _at(swift.server, _swift),
        lambda: f"Swift {version_of('swift-proxy')}",
        (4, 4),
        full=_at(swift.server, _swift_full),
        when_full=(State.FAILED, ErrorKind.REFUSED),
    ),
}
