"""Servers of the remotes' tests; each is started once per run, by the first test that needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connection
from django.test.utils import modify_settings

from queued_storage.remotes.base import Stat
from queued_storage.remotes.registry import adapter_for
from tests.conftest import serve
from tests.remotes.places import PLACES, Options, Place
from tests.servers import couchdb, keystone, mogilefs, swift


@pytest.fixture(scope="session")
def couchdb_server() -> Iterator[couchdb.CouchDB]:
    """A private CouchDB with the database ``files``."""
    for server in serve(couchdb.server):
        server.create("files")
        yield server


@pytest.fixture(scope="session")
def mogilefs_cluster() -> Iterator[mogilefs.Cluster]:
    """Trackers and storage nodes of our own."""
    yield from serve(mogilefs.server)


@pytest.fixture(scope="session")
def swift_server() -> Iterator[swift.Swift]:
    """A private Swift with the container ``files``."""
    yield from serve(swift.server)


@pytest.fixture(scope="session")
def keystone_server(swift_server: swift.Swift) -> Iterator[keystone.Keystone]:
    """Keystone's logins in front of that Swift."""
    with keystone.server(swift_server) as server:
        yield server


@dataclass(frozen=True)
class Served:
    """A remote of ``places.PLACES`` whose server runs, and the options of a storage on it."""

    name: str
    place: Place
    options: Options

    @property
    def settings(self) -> dict[str, Any]:
        """What a worker of its own needs besides the settings that it shares with the test."""
        return {"INSTALLED_APPS": list(django_settings.INSTALLED_APPS)}

    def entry(self, **more: Any) -> dict[str, Any]:
        """Return an entry of STORAGES."""
        return self.place.entry(self.options, **more)

    def stat(self, name: str) -> Stat | None:
        """Return what the remote itself says of a name, asked by a storage that nobody has used."""
        remote = self.place.contract.build(self.options)
        return adapter_for(remote).stat(remote, name)


@contextmanager
def database_app() -> Iterator[None]:
    """Install the app of the database remote and make its tables."""
    with modify_settings(INSTALLED_APPS={"append": "queued_storage.remotes.database"}):
        call_command("migrate", "queued_storage_database", verbosity=0)
        yield
        call_command("migrate", "queued_storage_database", "zero", verbosity=0)
        connection.close()


@pytest.fixture(scope="session", params=PLACES)
def served(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any) -> Iterator[Served]:
    """Each remote in turn, its server running for all tests that need it."""
    place = PLACES[request.param]
    with ExitStack() as stack:
        if place.counted == "database":
            stack.enter_context(django_db_blocker.unblock())
            stack.enter_context(database_app())
        for options in serve(place.serve):
            yield Served(request.param, place, options)
