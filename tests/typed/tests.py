"""Tests of a project."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import assert_type

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage, storages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import TestCase

from queued_storage import metrics, probes
from queued_storage.backends import QueuedStorage
from queued_storage.exceptions import ErrorKind, TemporarilyUnavailableError
from queued_storage.models import TransferRecord
from queued_storage.remotes.base import RemoteStorage, Stat
from queued_storage.testing import Fault, capture_transfers, check_pair, run_owed, store


class ReportTests(TestCase):
    """What the how-to on tests shows."""

    def test_it_is_queued(self) -> None:
        """A file is queued, fails once, and arrives."""
        with capture_transfers() as records:
            name = default_storage.save("report.txt", ContentFile(b"some bytes"))
        assert_type(records, list[TransferRecord])
        with store("tests").fail("save", ConnectionResetError("the line is down")) as fault:
            assert_type(fault, Fault)
            assert_type(run_owed(), Counter[str])
        assert run_owed(attempts=2)["transferred"] == 1
        storage = storages["default"]
        assert isinstance(storage, QueuedStorage)
        assert storage.using_remote(name)
        check_pair(storage)


class MyRemote(RemoteStorage):
    """A remote that says what it holds and sorts its own errors."""

    def stat(self, name: str) -> Stat | None:
        """Return what lies there."""
        return Stat(size=3, digests={"sha256": "00"}) if name else None

    def sort_error(self, error: BaseException) -> ErrorKind | None:
        """Wait where the remote asks for it."""
        return ErrorKind.THROTTLED if "slow down" in str(error) else None


def health(request: HttpRequest) -> HttpResponse:
    """Answer a load balancer, and Prometheus."""
    limits = probes.Limits(max_age=timedelta(minutes=15), max_failed=0)
    for each in probes.check(limits, storage="default"):
        assert_type(each.text, str)
    assert_type(probes.page(limits)(request), JsonResponse)
    return metrics.view(request)


def read(storage: QueuedStorage, name: str) -> bytes | None:
    """Read, and try again later where the file cannot be had from here at this moment."""
    try:
        with storage.open(name) as file:
            data: bytes = file.read()
            return data
    except TemporarilyUnavailableError:
        return None
