"""M2: a process killed at any line loses nothing, and leaves nothing that the sweep does not clear away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connection

from tests.machines.crash import Machine
from tests.machines.flows import FLOWS
from tests.machines.invariants import Manifest
from tests.machines.mutants import MUTANTS, Mutant
from tests.machines.points import Flow
from tests.machines.report import DOSE, tell
from tests.machines.snapshot import CACHE
from tests.machines.victims import Victims
from tests.machines.world import KINDS, World, scratch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(3600 * max(1, DOSE))]

MakeMachine = Callable[..., Machine]


@pytest.fixture(scope="module")
def victims(django_db_setup: None) -> Iterator[Victims]:
    """The process that forks those who are killed."""
    victims = Victims()
    yield victims
    victims.end()


@pytest.fixture
def make_machine(victims: Victims, settings: Any, caplog: pytest.LogCaptureFixture) -> Iterator[MakeMachine]:
    """Make a machine over fresh folders; the cache is one that all processes share."""

    def make(flow: Flow, mutant: str = "") -> Machine:
        root = stack.enter_context(scratch("crash"))
        world, manifest = World(root, kinds={kind: KINDS[kind] for kind in flow.kinds}), Manifest(root / "manifest")
        backend = "django.core.cache.backends.filebased.FileBasedCache"
        changed: dict[str, Any] = {
            "STORAGES": world.settings(),
            "CACHES": {"default": {"BACKEND": backend, "LOCATION": str(root / CACHE)}},
            # Nobody else is writing when the sweep looks.
            "QUEUED_STORAGE_STAGING_AGE": 0.000001,
            **flow.settings,
        }
        for name, value in changed.items():
            setattr(settings, name, value)
        victims.configure(world, manifest, flow.name, mutant, **changed)
        return Machine(world, manifest, victims)

    # Thousands of sweeps would be remembered line by line.
    caplog.set_level(logging.CRITICAL, "queued_storage")
    with ExitStack() as stack:
        yield make


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name.replace(" ", "-"))
def test_killed_at_every_line(flow: Flow, make_machine: MakeMachine) -> None:
    """Whatever line of the package a process is killed at, the promise holds before and after the sweep."""
    # The same lines on every database; how often one comes round is seen on one of them.
    again = (connection.vendor == "sqlite" and not flow.long) or DOSE >= 2
    result = make_machine(flow).run(flow, DOSE, again)
    tell(f"kill, {connection.vendor}: {result}")
    assert result.hits + result.alike == result.points > 0
    assert result.met == result.lines
    assert not result.violations, "\n".join(result.violations[:20])


@pytest.mark.skipif(connection.vendor != "sqlite", reason="whether the machine is blind is seen on one database")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_wrong_order_is_found(mutant: Mutant, make_machine: MakeMachine) -> None:
    """The machine is not blind: each wrong order of two steps shows when the process dies in between."""
    flow = next(flow for flow in FLOWS if flow.name == mutant.flow)
    # A mutant is made in the victim alone: what heals is the real code. The smallest dose must see it, too.
    result = make_machine(flow, mutant.name).run(flow, 0.01, again=False, enough=1)
    tell(f"wrong order: {mutant.name}: seen at point {result.hits + result.alike} of {result.points}")
    assert result.violations, f"nothing in {result.points} points"
    assert f": {mutant.says} " in result.violations[0]
