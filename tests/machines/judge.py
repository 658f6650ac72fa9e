"""The verdict on a durable state: read at once, swept to quiet, read again, pruned, read once more."""

from __future__ import annotations

from queued_storage.exceptions import ErrorKind
from queued_storage.models import State, TransferRecord
from tests.machines.invariants import Debris, Promises, look, read_all, settled
from tests.machines.world import World, prune, settle


def judge(world: World, promises: Promises) -> tuple[list[str], Debris]:
    """Return every violation, and what may be left."""
    bad = read_all(world, promises) + look(world, promises)
    if not settle():
        bad.append("limbo: the sweep does not come to an end")
    # What the remote has refused for good waits for a person; no other failure may.
    for record in TransferRecord.objects.filter(state=State.FAILED, error_kind=ErrorKind.REFUSED):
        world.storage(record.storage).transfer(record.name)
        settle()
    bad += read_all(world, promises) + look(world, promises)
    at_rest, debris = settled(world, promises)
    bad += at_rest
    if not prune():
        return [*bad, "limbo: something is owed after the pruning"], debris
    return bad + read_all(world, promises) + look(world, promises) + settled(world, promises)[0], debris
