"""What a transfer costs on every remote: requests, as they stand in ``places.py`` and in docs/remotes."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from typing import Any

import pytest
from django.core.files.storage import storages

from tests.fixtures import transfer
from tests.remotes.conftest import Served
from tests.remotes.contract import MB
from tests.remotes.counting import counting
from tests.remotes.material import upload

# Of an SFTP read, in bytes: paramiko.SFTPFile.MAX_REQUEST_SIZE.
PACKET = 32_768

pytestmark = [pytest.mark.django_db(transaction=True)]


def test_requests_of_a_transfer(served: Served, settings: Any, record_property: Any) -> None:
    """A transfer, verified, costs the requests that are promised: for 100 KB, and for 20 MB."""
    sizes, asked = (1, 100_000, 20 * MB), []
    with counting(served.place.counted, served.options) as (options, requests):
        settings.STORAGES = settings.STORAGES | {"default": served.place.entry(options)}
        storage = storages["default"]
        folder = uuid.uuid4().hex
        # The first file pays for the login and makes the folder.
        for size in sizes:
            body = bytes(upload(size).read())
            requests.clear()
            transfer(storage, f"{folder}/{size}.bin", body)
            asked.append([getattr(each, "method", each) for each in requests])
    figures = (len(asked[1]), len(asked[2]))
    record_property("remote", served.name)
    record_property("requests", figures)
    for size, found, promised, each in zip(sizes[1:], figures, served.place.requests, asked[1:], strict=True):
        # paramiko's readv() takes its prefetch for done when the answers overtake its requests, and then reads what it
        # has asked for already once more. All other requests are counted exactly.
        again = math.ceil(size / PACKET) if served.place.counted == "sftp" else 0
        assert promised <= found <= promised + again, Counter(each)
