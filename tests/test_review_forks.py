"""A forked child shares no connection with its parent: each would read the other's answers."""

from __future__ import annotations

import os
from typing import Any

import pytest

pytest.importorskip("storages.backends.s3")

from queued_storage.remotes import s3, s3_client


def in_child(look: Any) -> bool:
    """Return what ``look`` tells in a forked child."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = int(not look())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def make() -> Any:
    """Return a storage whose server nobody asks."""
    return s3.S3Storage(
        bucket_name="b", access_key="a", secret_key="s", endpoint_url="http://127.0.0.1:9", region_name="us-east-1"
    )


def test_the_client_of_all_threads() -> None:
    """The child makes its own, also in the thread that made that of the parent."""
    storage = make()
    client = s3_client.client_of(storage)
    assert in_child(lambda: s3_client.client_of(storage) is not client)


def test_the_client_of_django_storages() -> None:
    """What django-storages does by itself, such as a removal, has a connection of the child's as well."""
    storage = make()
    client = storage.connection.meta.client
    bucket = storage.bucket
    assert in_child(lambda: storage.connection.meta.client is not client and storage.bucket is not bucket)
    assert storage.connection.meta.client is client
