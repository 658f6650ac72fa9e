"""M3: whichever call of the package fails, once or for ever, nothing is lost and nothing is left behind."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from kombu.transport.memory import Channel

from tests.machines.calls import switched
from tests.machines.failing import Machine
from tests.machines.flows import FLOWS
from tests.machines.invariants import Manifest
from tests.machines.points import Flow
from tests.machines.report import DOSE, tell
from tests.machines.snapshot import CACHE
from tests.machines.wired import WiredWorld
from tests.machines.world import KINDS, World, scratch
from tests.servers.mogilefs import Cluster, server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(3600 * max(1, DOSE))]

SQLITE = connection.vendor == "sqlite"
counted: list[int] = []


# What calls the remote, each call once.
WIRED = [flow for flow in FLOWS if flow.name in ("transfer and evict", "delete moved", "prune")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A MogileFS."""
    with server() as cluster:
        yield cluster


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder; the database is held open meanwhile, or SQLite would write it out whenever the machine lets it go."""
    with scratch("calls") as folder, ExitStack() as stack:
        if SQLITE:
            held = stack.enter_context(closing(sqlite3.connect(connection.settings_dict["NAME"])))
            held.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield folder


@pytest.fixture
def machine(flow: Flow, root: Path, request: Any, settings: Any, caplog: pytest.LogCaptureFixture) -> Iterator[Machine]:
    """A machine over fresh folders, with every call of the package in its hand; some have a remote behind sockets."""
    kinds = {kind: KINDS[kind] for kind in flow.kinds}
    wired = request.node.originalname == "test_each_call_of_a_socket_fails"
    world = (
        WiredWorld(root, kinds=kinds, cluster=request.getfixturevalue("cluster")) if wired else World(root, kinds=kinds)
    )
    settings.STORAGES = world.settings()
    settings.CACHES = {"default": {"BACKEND": "tests.machines.calls.SwitchedCache", "LOCATION": str(root / CACHE)}}
    # Nobody else is writing when the sweep looks.
    settings.QUEUED_STORAGE_STAGING_AGE = 0.000001
    for name, value in flow.settings.items():
        setattr(settings, name, value)
    # Thousands of warnings would be remembered line by line.
    caplog.set_level(logging.CRITICAL, "queued_storage")
    with switched() as board:
        yield Machine(world, Manifest(root / "manifest"), board, Channel.queues.clear)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name.replace(" ", "-"))
def test_each_call_fails(flow: Flow, machine: Machine) -> None:
    """Every call of every kind, in every way that fits it, once and for ever: the promise holds."""
    # The same calls on every database, but for those of the database.
    result = machine.run(flow, DOSE, of="" if SQLITE or DOSE >= 2 else "database")
    tell(f"fail, {connection.vendor}: {result}")
    counted.append(result.points)
    assert result.hits == result.points > 0
    assert not result.violations, "\n".join(result.violations[:40])


@pytest.mark.skipif(not SQLITE, reason="sockets to the remote are the same on every database")
@pytest.mark.parametrize("flow", WIRED, ids=lambda flow: flow.name.replace(" ", "-"))
def test_each_call_of_a_socket_fails(flow: Flow, machine: Machine) -> None:
    """With a remote that is reached by sockets, each call of theirs fails, once and for ever: the promise holds."""
    result = machine.run(flow, DOSE, of="wire")
    tell(f"fail, sockets: {result}")
    counted.append(result.points)
    assert result.hits == result.points > 0
    assert not result.violations, "\n".join(result.violations[:40])


def test_there_were_enough() -> None:
    """At least five thousand points at the dose of CI, some of them of the database alone: it has not gone blind."""
    tell(f"fail, {connection.vendor}: {sum(counted)} points")
    if len(counted) < len(FLOWS) or DOSE < 0.7:
        pytest.skip("a part of the flows or of their points: ask for enough with QUEUED_STORAGE_DOSE=0.7")
    assert sum(counted) >= (5000 if SQLITE else 1000 * min(1, DOSE))
