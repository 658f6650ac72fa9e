"""The six documented arguments of 0.8: messages of an old release, and tasks that override ``run``."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import Storage
from django.utils.module_loading import import_string

from queued_storage import ledger, pairs, saving, signals, sweeping
from queued_storage.exceptions import StorageConfigurationError
from queued_storage.models import State, TransferRecord
from queued_storage.names import clean_name, escape, logical_name, record_key

logger = logging.getLogger("queued_storage")


def run(
    task: Any,
    name: Any,
    cache_key: Any,
    local_path: Any,
    remote_path: Any,
    local_options: Any,
    remote_options: Any,
    **kwargs: Any,
) -> bool:
    """Transfer one file named by the six arguments; True once it is on the remote.

    If a configured storage has these paths, the file goes through its ledger record, which is made if it is missing.
    Otherwise the storages are built from the arguments, there is no record, and a failure is retried by Celery.
    A message without a usable name is ignored.
    """
    try:
        name = clean_name(name)
    except (TypeError, SuspiciousFileOperation) as error:
        logger.warning("Ignored a malformed message", extra={"error": escape(error)})
        return False
    record = _record(name, cache_key, local_path, remote_path)
    if record is not None:
        sweeping.process(record.pk, None, task)
        after = ledger.get(record.pk)
        return after is not None and after.state == State.TRANSFERRED
    local, remote = _build(local_path, local_options), _build(remote_path, remote_options)
    result = task.transfer(name, local, remote, **kwargs)
    if result is False:
        raise task.retry()
    if result is not True:
        raise ValueError(f"{type(task).__name__}.transfer() must return True or False, not {type(result).__name__}")
    if not task.keep_local:
        local.delete(name)
    signals.tell(signals.file_transferred, type(task), name=name, local=local, remote=remote, record=None)
    return True


def _build(path: str, options: Mapping[str, Any] | None) -> Storage:
    found = import_string(path)
    # Anybody who can send a message can name anything that can be imported.
    if not (isinstance(found, type) and issubclass(found, Storage)):
        raise StorageConfigurationError(f"{escape(path)} is no storage class; configure the storage in STORAGES")
    return found(**(options or {}))


def _record(name: str, cache_key: Any, local_path: Any, remote_path: Any) -> TransferRecord | None:
    found = _by_cache_key(cache_key)
    if found is not None and name in (found.name, found.local_name):
        return found
    # A message of 0.8: its cache key says nothing, its paths say which storages it may be about.
    candidates = [
        storage
        for storage in pairs.configured()
        if meant(local_path, storage.local_path) and meant(remote_path, storage.remote_path)
    ]
    known = (_known(storage, name) for storage in candidates)
    return next((record for record in known if record), None) or next(
        (record for record in (adopt(storage, name) for storage in candidates) if record), None
    )


# What has taken the place of a storage that the classes of 0.8 had.
SUCCESSORS = {
    "django.core.files.storage.FileSystemStorage": {"queued_storage.local.LocalStorage"},
    "storages.backends.couchdb.CouchDBStorage": {"queued_storage.remotes.couchdb.CouchDBStorage"},
    "storages.backends.database.DatabaseStorage": {"queued_storage.remotes.database.storage.DatabaseStorage"},
    "storages.backends.ftp.FTPStorage": {"queued_storage.remotes.ftp.FTPStorage"},
    "storages.backends.mogile.MogileFSStorage": {"queued_storage.remotes.mogilefs.MogileFSStorage"},
    "storages.backends.mongodb.GridFSStorage": {"queued_storage.remotes.gridfs.GridFSStorage"},
    "storages.backends.mosso.CloudFilesStorage": {"queued_storage.remotes.swift.SwiftStorage"},
    "storages.backends.s3boto.S3BotoStorage": {
        "queued_storage.remotes.s3.S3Storage",
        "storages.backends.s3.S3Storage",
        "storages.backends.s3boto3.S3Boto3Storage",
    },
    "storages.backends.sftpstorage.SFTPStorage": {"queued_storage.remotes.sftp.SFTPStorage"},
}


def meant(path: Any, today: str) -> bool:
    """Tell whether a message that says ``path`` may be about the storage that is configured as ``today``.

    So it is if both are the same, ``today`` is an alias of it, or what has taken its place since 0.8.
    """
    entry = django_settings.STORAGES.get(today)
    actual = entry["BACKEND"] if entry is not None else today
    return isinstance(path, str) and (path in (today, actual) or actual in SUCCESSORS.get(path, ()))


def _by_cache_key(cache_key: Any) -> TransferRecord | None:
    try:
        return ledger.lookup(uuid.UUID(str(cache_key).rpartition("_")[2]))
    except ValueError:
        return None


def _known(storage: pairs.StoragePair, name: str) -> TransferRecord | None:
    # The arguments carry the local name, which says which generation of which name it is.
    logical = logical_name(name)
    found = ledger.lookup(record_key(storage.alias, logical[0])) if logical is not None else None
    if found is not None and found.local_name == name:
        return found
    # Of a generation that was superseded meanwhile nothing is to be adopted: its copies are being removed.
    return ledger.lookup(record_key(storage.alias, name)) or found


def adopt(storage: pairs.StoragePair, name: str) -> TransferRecord | None:
    """Make a queued record for a local file that has none; ``None`` if there is no such file.

    Its size and digest are taken when it is transferred.
    """
    if not storage.local.exists(name):
        return None
    record = saving.new_record(storage, name, name, None)
    if not ledger.insert(record):
        return ledger.lookup(record_key(storage.alias, name))
    logger.info("Adopted", extra={"record_id": record.pk, "storage": storage.alias, "file": escape(name)})
    return ledger.get(record.pk)
