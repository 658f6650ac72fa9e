"""What the ledger says of every remote in trouble: nobody there, silence, a wrong password, no room, an object gone.

A worker killed in mid-upload is in ``test_queued_path.py``.
"""

from __future__ import annotations

import uuid
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages

from queued_storage import sweeping
from queued_storage.exceptions import ErrorKind
from queued_storage.models import Outcome, State
from tests.conftest import serve
from tests.fixtures import attempts, facts, make_due, moved, put, read, record_of, saved, transfer
from tests.remotes.conftest import Served
from tests.remotes.contract import MB
from tests.remotes.material import closed_port, silent_port, upload
from tests.remotes.places import PLACES, contract_of

pytestmark = [pytest.mark.django_db(transaction=True)]

TYPE = {"content_type": "application/octet-stream"}


@pytest.fixture
def wanted() -> str:
    """A name that no other test uses."""
    return f"{uuid.uuid4().hex}/a b.bin"


def waiting(record: Any, body: bytes, kind: ErrorKind) -> None:
    """Fail unless the record waits for another attempt, served locally, with the reason and no secret in it."""
    found = facts(record, body)
    error, due = found.pop("error"), found.pop("due")
    expected = saved(record.name, body, error_kind=kind, retries=1, **TYPE)
    assert found == {key: value for key, value in expected.items() if key not in {"error", "due"}}
    assert error
    assert due > timedelta(0)
    assert [row[:2] for row in attempts(record)] == [(Outcome.RETRY, kind)]


@pytest.mark.parametrize("trouble", [closed_port, silent_port])
def test_nobody_answers(served: Served, settings: Any, wanted: str, trouble: Any) -> None:
    """A refused connection and a time-out are passing: the file waits, is served locally, and is tried again."""
    if not served.place.contract.has_network:
        pytest.skip("this remote has no network of its own")
    with trouble() as port:
        options = served.place.contract.options_at(served.options, port)
        settings.STORAGES = settings.STORAGES | {"default": served.place.entry(options)}
        storage = storages["default"]
        record = put(storage, wanted, b"bytes")
        assert sweeping.process(record.pk) == Outcome.RETRY
        waiting(record, b"bytes", ErrorKind.PASSING)
        assert read(storage, wanted) == b"bytes"


def test_credentials_are_refused(served: Served, settings: Any, wanted: str) -> None:
    """A wrong password is a matter of the whole storage: the file waits, and the ledger shows no secret."""
    contract, serve_it = served.place.contract, lambda: nullcontext(served.options)
    if served.place.guarded is not None:
        contract, serve_it = contract_of(served.place.guarded[0]), served.place.guarded[1]
    if not contract.has_credentials:
        pytest.skip("no server of this protocol that runs here asks for credentials")
    for options in serve(serve_it):
        denied = served.place.entry(contract.options_denied(options))
        settings.STORAGES = settings.STORAGES | {"default": denied}
        record = put(storages["default"], wanted, b"bytes")
        assert sweeping.process(record.pk) == Outcome.RETRY
        waiting(record, b"bytes", ErrorKind.DENIED)
        error = facts(record)["error"]
        assert not [secret for secret in contract.secrets if secret in error]


def test_an_object_that_is_gone(served: Served, settings: Any, wanted: str) -> None:
    """A transferred file that somebody removed is found out before the local copy goes, which stays and is served."""
    entry = served.entry(keep_local=timedelta(days=1))
    settings.STORAGES = settings.STORAGES | {"default": entry}
    storage = storages["default"]
    record = transfer(storage, wanted, b"bytes")
    storage.remote.delete(wanted)
    assert read(storage, wanted) == b"bytes"
    make_due(record, by=timedelta(days=2))
    sweeping.process(record.pk)
    found = facts(record, b"bytes")
    assert "nothing at" in found.pop("error")
    expected = moved(wanted, b"bytes", error_kind=ErrorKind.MISMATCH, **TYPE)
    assert found == {key: value for key, value in expected.items() if key != "error"}
    assert read(storage, wanted) == b"bytes"


FULL = [name for name, place in PLACES.items() if place.full is not None]


@pytest.mark.parametrize("name", FULL)
def test_no_room(name: str, settings: Any, wanted: str) -> None:
    """A full disk or a quota leaves no half file; it passes where the remote's answer does not say that it is final."""
    place = PLACES[name]
    assert place.full is not None
    body = bytes(upload(3 * MB).read())
    for options in serve(place.full):
        settings.STORAGES = settings.STORAGES | {"default": place.entry(options)}
        storage = storages["default"]
        record = record_of(storage, storage.save(wanted, ContentFile(body)))
        outcome = sweeping.process(record.pk)
        state, kind = place.when_full
        if state == State.QUEUED:
            assert outcome == Outcome.RETRY
            waiting(record, body, kind)
        else:
            assert outcome == Outcome.FAILED
            assert (facts(record)["state"], facts(record)["error_kind"]) == (state, kind)
        assert read(storage, wanted) == body
        assert storage.remote.exists(wanted) is False
        if hasattr(storage.remote, "close"):
            storage.remote.close()
