"""Amazon S3 and everything that speaks its protocol, on django-storages.

``stat``, ``upload`` and ``sort_error`` work on any instance of django-storages' ``S3Storage``; the class below is that
storage with time-outs, without hidden retries, and with ``save()`` going through ``upload``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.files.utils import validate_file_name

from queued_storage.exceptions import ErrorKind
from queued_storage.remotes.base import RemoteStorage, Stat, Stored
from queued_storage.remotes.extras import missing_extra
from queued_storage.remotes.hiding import hide_options
from queued_storage.remotes.registry import Ours
from queued_storage.remotes.streams import remote_file

try:
    from botocore import __version__ as botocore_version, exceptions as botocore_errors
    from botocore.config import Config
    from s3transfer.constants import ALLOWED_DOWNLOAD_ARGS
    from storages.backends.s3 import S3Storage as DjangoStoragesS3
    from storages.utils import clean_name
except (ImportError, ImproperlyConfigured) as error:
    raise missing_extra("The S3 remote", "s3") from error

from queued_storage.remotes import s3_upload
from queued_storage.remotes.s3_client import client_of, know
from queued_storage.remotes.s3_errors import is_missing, sort_error, status_of

__all__ = [
    "S3Storage",
    "abort_incomplete_uploads",
    "incomplete_uploads",
    "many_at_once",
    "refuses_taken",
    "remove_leftovers",
    "sort_error",
    "stat",
    "upload",
]

# Of the uploads in a bucket that others leave unfinished as well: what one look reads, and asks about at once.
MOST_LOOKED_AT = 5000
PAGE = 500
# One client serves all threads: as many connections are kept for them.
MOST_CONNECTIONS = 50
PLAIN_MD5 = re.compile(r'^"?([0-9a-f]{32})"?$')


def stat(storage: Any, name: str) -> Stat | None:
    """Return size and digests of ``name`` from one HEAD request, or ``None`` when the server answers 404.

    Raises botocore's ``ClientError`` for every other answer, 403 included: without ``s3:ListBucket`` the server
    hides whether the object exists. The size of an object that the storage compressed is left out.
    """
    parameters = {**_reading_parameters(storage, name), "ChecksumMode": "ENABLED"}
    client = client_of(storage)
    try:
        head = client.head_object(Bucket=storage.bucket_name, Key=object_key(storage, name), **parameters)
    except botocore_errors.ClientError as error:
        if status_of(error) == 404:
            return None
        raise
    # The storage decompresses these on reading, so the server's figures are not those of the bytes that readers get.
    if storage.gzip and head.get("ContentEncoding") == "gzip":
        return Stat(None)
    return Stat(head["ContentLength"], _digests(head, storage.bucket_name))


def upload(storage: Any, name: str, content: Any) -> str:
    """Create the object ``name`` from ``content`` with the storage's own write parameters and return its name.

    The server gets the CRC-32 of the bytes and refuses others; small files are one PUT, larger ones a multipart
    upload in bounded memory that is aborted when anything fails. Raises ``FileExistsError`` when the name is taken,
    ``MismatchError`` when the bytes read are not those announced, and botocore's exceptions.
    """
    # A subclass that saves in its own way knows something that this module does not.
    if not _saves_our_way(storage):
        _refuse_taken(storage, name)
        return str(storage.save(name, content))
    return _create(storage, name, content)


def refuses_taken(storage: Any) -> bool:
    """Tell whether the server has been seen to refuse a taken name by ``If-None-Match``."""
    return _saves_our_way(storage) and not storage.gzip and s3_upload.is_conditional(storage)


def many_at_once(storage: Any) -> bool:
    """Tell whether several threads may save at once: botocore's client may be shared, and no code but ours runs."""
    return _saves_our_way(storage)


def most_connections(storage: Any) -> int:
    """Return how many connections botocore keeps: more threads would close and open theirs for each request."""
    return int(storage.client_config.max_pool_connections)


def _saves_our_way(storage: Any) -> bool:
    return type(storage)._save in {DjangoStoragesS3._save, S3Storage._save}


def incomplete_uploads(storage: Any, older_than: timedelta) -> Iterator[tuple[str, str, datetime]]:
    """Yield key, upload id and start of each multipart upload under the storage's location begun long enough ago.

    Their parts cost money and no listing shows them. Needs ``s3:ListBucketMultipartUploads``.
    """
    before = datetime.now(timezone.utc) - older_than
    location = storage.location.strip("/")
    pages = client_of(storage).get_paginator("list_multipart_uploads")
    for page in pages.paginate(Bucket=storage.bucket_name, Prefix=location and f"{location}/"):
        for entry in page.get("Uploads", ()):
            if entry["Initiated"] <= before:
                yield entry["Key"], entry["UploadId"], entry["Initiated"]


def abort_incomplete_uploads(storage: Any, older_than: timedelta) -> list[str]:
    """Abort what ``incomplete_uploads`` yields and return the keys. Needs ``s3:AbortMultipartUpload``."""
    aborted = []
    for key, upload_id, _ in list(incomplete_uploads(storage, older_than)):
        _abort(storage, key, upload_id)
        aborted.append(key)
    return aborted


def _abort(storage: Any, key: str, upload_id: str) -> None:
    client_of(storage).abort_multipart_upload(Bucket=storage.bucket_name, Key=key, UploadId=upload_id)


def remove_leftovers(storage: Any, older_than: timedelta, limit: int, ours: Ours) -> int:
    """Abort uploads that were begun long enough ago, of names that are ``ours``; at most ``limit``; return how many."""
    location = storage.location.strip("/")
    count = 0
    uploads = islice(incomplete_uploads(storage, older_than), MOST_LOOKED_AT)
    while count < limit and (page := list(islice(uploads, PAGE))):
        names = {key: key[len(f"{location}/") :] if location else key for key, _, _ in page}
        wanted = ours(set(names.values()))
        for key, upload_id, _ in page:
            if names[key] in wanted and count < limit:
                _abort(storage, key, upload_id)
                count += 1
    return count


def object_key(storage: Any, name: str) -> str:
    """Return the key of ``name``; raises ``SuspiciousFileOperation`` for a name that leaves its directory."""
    # django-storages would store "a/../x" as "x".
    validate_file_name(name, allow_relative_path=True)
    return str(storage._normalize_name(clean_name(name)))


class S3Storage(RemoteStorage, DjangoStoragesS3):  # type: ignore[misc]  # django-storages has no type information
    """django-storages' ``S3Storage`` with the promises of a remote: it never replaces an object.

    Takes the same options and settings, and ``connect_timeout`` (5 seconds), ``read_timeout`` (30 seconds) and
    ``conditional_writes`` (on; switch it off for a server that ignores ``If-None-Match``, and names are looked up
    before they are written). A ``client_config`` of your own is used as it is: give it time-outs and ``retries``.
    """

    client_config: Any

    @property
    def many_at_once(self) -> bool:
        """Whether several threads may save at once; see the function ``many_at_once``."""
        return many_at_once(self)

    @property
    def most_connections(self) -> int:
        """How many connections are kept for threads; see the function ``most_connections``."""
        return most_connections(self)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        know(self)
        hide_options(self, settings, "access_key", "secret_key", "security_token", "cloudfront_key")
        if self.config is None and settings.get("client_config", self.get_default_settings()["client_config"]) is None:
            # The ledger retries; a retry inside boto3 would only hide the cause and hold the lease.
            self.client_config = self.client_config.merge(
                Config(
                    connect_timeout=self.connect_timeout,
                    read_timeout=self.read_timeout,
                    max_pool_connections=MOST_CONNECTIONS,
                    retries={"total_max_attempts": 1},
                    # Without one, botocore puts its own together for each request, in a sixth of the calls of a PUT.
                    user_agent=f"django-queued-storage Botocore/{botocore_version}",
                )
            )

    def get_default_settings(self) -> dict[str, Any]:
        """Return django-storages' settings and ours; names are never overwritten by default."""
        defaults: dict[str, Any] = super().get_default_settings()
        ours = {"file_overwrite": False, "connect_timeout": 5, "read_timeout": 30, "conditional_writes": True}
        return {**defaults, **ours}

    def stat(self, name: str) -> Stat | None:
        """Return size and digests of ``name``; see the function ``stat``."""
        return stat(self, name)

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Return the kind of ``error``; see the function ``sort_error``."""
        return sort_error(error)

    def get_modified_time(self, name: str) -> datetime:
        """Return when the object was written; raises ``FileNotFoundError`` when there is none."""
        try:
            modified: datetime = super().get_modified_time(name)
        except botocore_errors.ClientError as error:
            if is_missing(error):
                raise FileNotFoundError(f"No object named {name!a}") from error
            raise
        return modified

    def _save(self, name: str, content: Any) -> str:
        return str(_create(self, name, content))

    def _open(self, name: str, mode: str = "rb") -> Any:
        if mode != "rb" or self.gzip:
            return super()._open(name, mode)
        first = self._get(name)
        tag = first["ETag"]
        # Later ranges must be of the same object as the first.
        return remote_file(
            name,
            first["ContentLength"],
            lambda offset: self._get(name, Range=f"bytes={offset}-", IfMatch=tag)["Body"],
            first["Body"],
        )

    def _get(self, name: str, **parameters: str) -> dict[str, Any]:
        parameters = {**_reading_parameters(self, name), **parameters}
        try:
            answer: dict[str, Any] = client_of(self).get_object(
                Bucket=self.bucket_name, Key=object_key(self, name), **parameters
            )
        except botocore_errors.ClientError as error:
            if is_missing(error):
                raise FileNotFoundError(f"No object named {name!a}") from error
            raise
        return answer


def _create(storage: Any, name: str, content: Any) -> str:
    parameters = storage._get_write_parameters(name, content)
    gzipped = storage.gzip and parameters["ContentType"] in storage.gzip_content_types
    if (gzipped and "ContentEncoding" not in parameters) or not s3_upload.knows(storage, parameters):
        _refuse_taken(storage, name)
        return str(DjangoStoragesS3._save(storage, name, content))
    told = s3_upload.create(storage, object_key(storage, name), content, parameters)
    return Stored(str(clean_name(name)), told)


def _reading_parameters(storage: Any, name: str) -> dict[str, Any]:
    return {k: v for k, v in storage.get_object_parameters(name).items() if k in ALLOWED_DOWNLOAD_ARGS}


def _refuse_taken(storage: Any, name: str) -> None:
    if stat(storage, name) is not None:
        raise FileExistsError(f"An object named {name!a} exists already")


def _digests(head: dict[str, Any], bucket_name: str) -> dict[str, str]:
    digests = {}
    tag = head.get("ETag", "")
    checksum = head.get("ChecksumCRC32", "")
    # A composite checksum is one of checksums; older servers mark it by "-parts" only, in the checksum or the ETag.
    whole = head.get("ChecksumType", "COMPOSITE" if "-" in tag else "FULL_OBJECT") == "FULL_OBJECT"
    if checksum and whole and "-" not in checksum:
        digests["crc32"] = base64.b64decode(checksum).hex()
    encrypted = head.get("ServerSideEncryption", "").startswith("aws:kms") or "SSECustomerAlgorithm" in head
    # Directory buckets ("--x-s3") make up their ETags.
    if (md5 := PLAIN_MD5.match(tag)) and not encrypted and not bucket_name.endswith("--x-s3"):
        digests["md5"] = md5[1]
    return digests
