"""List the objects of an S3 storage with their sizes: a thousand for each request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from queued_storage.remotes.s3_client import client_of
from queued_storage.walking import Entry


def scan(storage: Any, prefix: str) -> Iterator[Entry]:
    """Yield the objects under the storage's location whose name begins with ``prefix``; folder markers are left out."""
    location = storage.location.strip("/")
    below = f"{location}/" if location else ""
    pages = client_of(storage).get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=storage.bucket_name, Prefix=below + prefix):
        for found in page.get("Contents", ()):
            key = found["Key"]
            if not key.endswith("/"):
                # What the storage compressed is of another size for its readers.
                size = None if storage.gzip else int(found["Size"])
                yield Entry(key[len(below) :], size, found["LastModified"].timestamp())
