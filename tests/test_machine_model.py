"""M1: the storage does what a dictionary of promises says, whatever else happens in between."""

from __future__ import annotations

import logging
import os
import random
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, Phase, seed, settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machines.model import FAULTS, Machine
from tests.machines.report import DOSE, tell
from tests.machines.world import World
from tests.servers.roots import fresh

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(1200 * max(1, DOSE))]

# Some sequences end before their time.
EXAMPLES, STEPS = max(1, round(180 * DOSE)), 50


def test_model(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    """After every step of every sequence the storage agrees with the model, and at the end all is in its place."""
    world = World(fresh("model"), in_memory=True)
    settings.STORAGES = world.settings()
    settings.QUEUED_STORAGE_STAGING_AGE = 0.000001
    caplog.set_level(logging.CRITICAL, "queued_storage")
    number = int(os.environ.get("QUEUED_STORAGE_SEED", random.randrange(2**32)))
    machine = type("Model", (Machine,), {"world": world, "hits": {}})
    options = hypothesis_settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(number)(machine), settings=options)
    except BaseException:
        tell(f"model, {connection.vendor}: QUEUED_STORAGE_SEED={number} replays this")
        raise
    tell(f"model, {connection.vendor}: {machine.steps} steps, seed {number}, faults hit: {machine.hits}")
    if DOSE >= 1:
        assert machine.steps >= 5000 * DOSE
        # Chosen at random: all of them are hit in a larger dose.
        hit = [fault for fault in FAULTS if machine.hits.get(fault)]
        assert len(hit) >= (len(FAULTS) if DOSE >= 10 else 4), machine.hits
