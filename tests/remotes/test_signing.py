"""Which remotes sign their URLs, and are private for that: what is said of them is what their URLs show."""

from __future__ import annotations

import base64
import importlib.util
from typing import Any

import pytest
from django.utils.module_loading import import_string
from google.auth.credentials import AnonymousCredentials

from queued_storage import backends, links
from queued_storage.backends import QueuedStorage

OURS = "queued_storage.remotes"
KEY = base64.b64encode(b"a key of Azure").decode()
GOOGLE = {"bucket_name": "b", "project_id": "p", "credentials": AnonymousCredentials()}
S3 = {"bucket_name": "b", "region_name": "eu-central-1", "access_key": "k", "secret_key": "s"}
AZURE = {"account_name": "a", "account_key": KEY, "azure_container": "c"}
STORE = {"url": "s3://b", "config": {"region": "eu-central-1", "access_key_id": "k", "secret_access_key": "s"}}
SWIFT = {"container": "c", "auth_url": "https://swift.example/auth", "base_url": "https://swift.example/v1/a/c"}
# Class, options, what only a signed URL of it has ("" for a plain one, None where no URL is had without a server),
# and whether it signs.
REMOTES: dict[str, tuple[str, dict[str, Any], str | None, bool]] = {
    "s3": (f"{OURS}.s3.S3Storage", S3, "X-Amz-Signature=", True),
    "s3 public": (f"{OURS}.s3.S3Storage", {**S3, "querystring_auth": False}, "", False),
    "s3 behind a domain": (f"{OURS}.s3.S3Storage", {**S3, "custom_domain": "cdn.example"}, "", False),
    "azure": (f"{OURS}.azure.AzureStorage", {**AZURE, "expiration_secs": 60}, "sig=", True),
    "azure public": (f"{OURS}.azure.AzureStorage", AZURE, "", False),
    "azure behind a domain": (
        f"{OURS}.azure.AzureStorage",
        {**AZURE, "expiration_secs": 60, "custom_domain": "cdn.example"},
        "sig=",
        True,
    ),
    "object store": (f"{OURS}.objectstore.ObjectStorage", STORE, "X-Amz-Signature=", True),
    "object store, public": (
        f"{OURS}.objectstore.ObjectStorage",
        {**STORE, "base_url": "https://cdn.example/"},
        "",
        False,
    ),
    "object store in memory": (f"{OURS}.objectstore.ObjectStorage", {"url": "memory://"}, None, False),
    "swift": (f"{OURS}.swift.SwiftStorage", {**SWIFT, "temp_url_key": "k"}, "temp_url_sig=", True),
    "swift, public": (f"{OURS}.swift.SwiftStorage", SWIFT, "", False),
    "dropbox": (f"{OURS}.dropbox.DropboxStorage", {"oauth2_access_token": "t"}, None, True),
    "dropbox of django-storages": (
        "storages.backends.dropbox.DropboxStorage",
        {"oauth2_access_token": "t"},
        None,
        True,
    ),
    "couchdb": (f"{OURS}.couchdb.CouchDBStorage", {"server": "http://c.example", "database": "files"}, "", False),
    "google": (f"{OURS}.gcloud.GoogleCloudStorage", GOOGLE, None, True),
    "google, public": (f"{OURS}.gcloud.GoogleCloudStorage", {**GOOGLE, "querystring_auth": False}, None, False),
    "google, public by its list": (
        f"{OURS}.gcloud.GoogleCloudStorage",
        {**GOOGLE, "default_acl": "publicRead"},
        None,
        False,
    ),
    "ftp": (
        f"{OURS}.ftp.FTPStorage",
        {"location": "ftp://u:p@f.example/", "base_url": "https://f.example/"},
        "",
        False,
    ),
    "gridfs": (
        f"{OURS}.gridfs.GridFSStorage",
        {"uri": "mongodb://m.example", "database": "d", "base_url": "https://m.example/"},
        "",
        False,
    ),
    "mogilefs": (
        f"{OURS}.mogilefs.MogileFSStorage",
        {"trackers": ["m.example:7001"], "domain": "d", "base_url": "https://m.example/"},
        "",
        False,
    ),
    "sftp": (f"{OURS}.sftp.SFTPStorage", {"host": "s.example", "base_url": "https://s.example/"}, "", False),
    "database": (f"{OURS}.database.storage.DatabaseStorage", {"base_url": "https://d.example/"}, "", False),
}


@pytest.mark.parametrize("remote", REMOTES)
def test_a_remote_that_signs_is_private(remote: str) -> None:
    """What ``links`` says of a remote is what its URL shows."""
    path, options, signature, signs = REMOTES[remote]
    if "objectstore" in path and importlib.util.find_spec("obstore") is None:
        pytest.skip("obstore is not installed")
    storage = import_string(path)(**options)
    assert links.signs_urls(storage) is signs
    if signature is not None:
        url = storage.url("a.txt")
        assert url.startswith("http")
        assert (signature in url, "?" in url) == (True, bool(signature))


def test_every_remote_is_looked_at() -> None:
    """No named class has a remote that nobody has asked whether it signs."""
    named = [each for each in vars(backends).values() if isinstance(each, type) and issubclass(each, QueuedStorage)]
    remotes = {each.default_remote for each in named if each.default_remote}
    assert remotes - {path for path, *_ in REMOTES.values()} == set()
