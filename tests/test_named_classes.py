"""The named classes: each is a pair of paths in the order local, remote, and each remote is really there."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from queued_storage import backends, pairs
from queued_storage.local import LocalStorage

REMOTES = {
    "QueuedAzureStorage": "queued_storage.remotes.azure.AzureStorage",
    "QueuedCloudFilesStorage": "queued_storage.remotes.swift.SwiftStorage",
    "QueuedCouchDBStorage": "queued_storage.remotes.couchdb.CouchDBStorage",
    "QueuedDatabaseStorage": "queued_storage.remotes.database.storage.DatabaseStorage",
    "QueuedDropboxStorage": "queued_storage.remotes.dropbox.DropboxStorage",
    "QueuedFTPStorage": "queued_storage.remotes.ftp.FTPStorage",
    "QueuedGoogleCloudStorage": "queued_storage.remotes.gcloud.GoogleCloudStorage",
    "QueuedGridFSStorage": "queued_storage.remotes.gridfs.GridFSStorage",
    "QueuedMogileFSStorage": "queued_storage.remotes.mogilefs.MogileFSStorage",
    "QueuedS3BotoStorage": "queued_storage.remotes.s3.S3Storage",
    "QueuedS3Storage": "queued_storage.remotes.s3.S3Storage",
    "QueuedSFTPStorage": "queued_storage.remotes.sftp.SFTPStorage",
}


@pytest.mark.parametrize(("name", "remote"), REMOTES.items())
def test_the_two_sides(name: str, remote: str) -> None:
    """Each class has its remote by default, takes both sides by position, and a local side that loses no file."""
    cls = getattr(backends, name)
    assert (cls().local_path, cls().remote_path) == ("queued_storage.local.LocalStorage", remote)
    assert isinstance(cls().local, LocalStorage)
    chosen = cls("here.Local", "there.Remote", {"a": 1}, {"b": 2}, "prefix", True, "tasks.Mine")
    facts: tuple[Any, ...] = (chosen.local_path, chosen.remote_path, chosen.local_options, chosen.remote_options)
    assert facts == ("here.Local", "there.Remote", {"a": 1}, {"b": 2})
    assert (chosen.prefix, chosen.delayed, chosen.task_path) == ("prefix", True, "tasks.Mine")


@pytest.mark.parametrize("remote", sorted(set(REMOTES.values())))
def test_the_remote_is_there(remote: str) -> None:
    """Each remote can be loaded, or says what to install."""
    if _complete(remote):
        assert isinstance(pairs.load(remote), type)
    else:
        with pytest.raises(ImproperlyConfigured, match=r"pip install 'django-queued-storage\[[a-z0-9]+\]'"):
            pairs.load(remote)


def _complete(remote: str) -> bool:
    needs = {"azure": "azure.storage.blob", "dropbox": "dropbox", "gcloud": "google.cloud.storage", "sftp": "paramiko"}
    needs |= {"gridfs": "gridfs", "s3": "boto3"}  # swift looks for its client when it is used
    package = needs.get(remote.split(".")[2])
    try:
        return package is None or importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def test_every_named_class_is_here() -> None:
    """The table above is complete."""
    found = {name for name in vars(backends) if name.startswith("Queued") and name.endswith("Storage")}
    assert found == {*REMOTES, "QueuedStorage", "QueuedFileSystemStorage"}
