"""What processes do with files, one flow for each thing that can be interrupted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db import transaction

from queued_storage import draining, ledger, locations, sweeping, tasks
from queued_storage.exceptions import SaveUnknownError
from queued_storage.models import TransferRecord
from queued_storage.names import record_key
from queued_storage.testing import store
from tests.machines.invariants import Manifest
from tests.machines.points import Flow
from tests.machines.world import World, advance, settle

FIRST = b"the first content of this file; " * 5
SECOND = b"another content, of another length; " * 6
NAME = "folder/file.txt"


def save(world: World, manifest: Manifest, alias: str, name: str = NAME, content: bytes = FIRST) -> TransferRecord:
    """Save a file, with its lines in the manifest, and return its record."""
    saved = promised(manifest, alias, name, content, lambda: world.storage(alias).save(name, ContentFile(content)))
    return record_of(world, alias, saved)


def promised(manifest: Manifest, alias: str, name: str, content: bytes, do: Callable[[], str]) -> str:
    """Let ``do`` save a file, with its lines in the manifest, and return the name that it was given."""
    file = manifest.intent(alias, name, content)
    try:
        saved = do()
    except SaveUnknownError:
        raise
    except Exception:
        manifest.refuse(file)
        raise
    manifest.ack(file, saved)
    return saved


def record_of(world: World, alias: str, name: str = NAME) -> TransferRecord:
    """Return the record that holds a name."""
    record = ledger.lookup(record_key(world.storage(alias).alias, name))
    assert record is not None
    return record


def moved(world: World, manifest: Manifest, alias: str, name: str = NAME, content: bytes = FIRST) -> TransferRecord:
    """Save a file, bring it to its place, and read it, so that the cache knows it."""
    record = save(world, manifest, alias, name, content)
    assert settle()
    world.storage(alias).size(name)
    return record


def nothing(world: World, manifest: Manifest) -> None:
    """Begin with empty storages."""


def _save_in_memory(world: World, manifest: Manifest, context: Any) -> None:
    save(world, manifest, "keep")


def _save_upload(world: World, manifest: Manifest, context: Any) -> None:
    with TemporaryUploadedFile("file.txt", "text/plain", len(FIRST), None) as upload:
        upload.write(FIRST)
        upload.seek(0)
        promised(manifest, "keep", NAME, FIRST, lambda: world.storage("keep").save(NAME, upload))


def _save_outer(world: World, manifest: Manifest, context: Any) -> None:
    files = [manifest.intent("keep", name, content) for name, content in ((NAME, FIRST), ("other", SECOND))]
    with transaction.atomic():
        names = [world.storage("keep").save(NAME, ContentFile(FIRST))]
        with transaction.atomic():
            names.append(world.storage("keep").save("other", ContentFile(SECOND)))
    for file, name in zip(files, names, strict=True):
        manifest.ack(file, name)


def _save_rolled_back(world: World, manifest: Manifest, context: Any) -> None:
    file = manifest.intent("keep", "other", SECOND)
    with transaction.atomic():
        world.storage("keep").save("other", ContentFile(SECOND))
        transaction.set_rollback(True)
    manifest.fail(file)


def _one_owed(world: World, manifest: Manifest) -> None:
    save(world, manifest, "through")


def _save_through(world: World, manifest: Manifest, context: Any) -> None:
    save(world, manifest, "through", "other", SECOND)


def _one_kept(world: World, manifest: Manifest) -> None:
    save(world, manifest, "keep")


def _one_evicted(world: World, manifest: Manifest) -> None:
    moved(world, manifest, "evict")


def _save_taken(world: World, manifest: Manifest, context: Any) -> None:
    save(world, manifest, "evict", NAME, SECOND)


def _one_deleted(world: World, manifest: Manifest) -> None:
    moved(world, manifest, "evict")
    _delete_name(world, manifest, "evict")
    assert settle()


def _delete_name(world: World, manifest: Manifest, alias: str, name: str = NAME) -> None:
    manifest.delete_intent(alias, name)
    world.storage(alias).delete(name)
    manifest.delete_ack(alias, name)


def _open_for_writing(world: World, manifest: Manifest, context: Any) -> None:
    def write() -> str:
        with world.storage("overwrite").open(NAME, "wb") as staged:
            staged.write(SECOND)
        return NAME

    promised(manifest, "overwrite", NAME, SECOND, write)


def _one_overwritable(world: World, manifest: Manifest) -> None:
    moved(world, manifest, "overwrite")


def _overwrite(world: World, manifest: Manifest, context: Any) -> None:
    record = save(world, manifest, "overwrite", NAME, SECOND)
    sweeping.process(record.pk)
    sweeping.process_all(TransferRecord.objects.exclude(pk=record.pk))


def _queued(alias: str) -> Any:
    return lambda world, manifest: save(world, manifest, alias).pk


def _process(world: World, manifest: Manifest, pk: int) -> None:
    sweeping.process(pk)


def _retry(world: World, manifest: Manifest, pk: int) -> None:
    # Broken off half way, then stored with the answer lost, then found there.
    with store("parts").fail("part", ConnectionResetError("broken off"), nth=2):
        sweeping.process(pk)
    with store("parts").lose_answer(TimeoutError("no answer")):
        sweeping.process(pk)
    sweeping.process(pk)


def _fail_and_requeue(world: World, manifest: Manifest, pk: int) -> None:
    with store("evict").fail("save", OSError(36, "File name too long")):
        sweeping.process(pk)
    world.storage("evict").transfer(NAME)
    sweeping.process(pk)


def _several(world: World, manifest: Manifest) -> list[int]:
    return [save(world, manifest, "evict", f"file{number}").pk for number in range(3)]


def _down_and_up(world: World, manifest: Manifest, pks: list[int]) -> None:
    with store("evict").fail("stat", ConnectionError("down"), times=None):
        for pk in pks:
            sweeping.process(pk)
    advance(timedelta(hours=1))
    sweeping.sweep(sweeping.process_all)
    sweeping.sweep(sweeping.process_all)


def _together(world: World, manifest: Manifest, pks: list[int]) -> None:
    for _ in draining.drain():
        pass


def _delete(alias: str) -> Any:
    def act(world: World, manifest: Manifest, context: Any) -> None:
        record = record_of(world, alias)
        _delete_name(world, manifest, alias)
        sweeping.process(record.pk)

    return act


def _in_transfer(world: World, manifest: Manifest) -> None:
    # A worker that has died with the file in hand.
    in_flight(save(world, manifest, "keep"))


def in_flight(record: TransferRecord) -> None:
    """Claim a record for a worker that is never heard of again."""
    assert ledger.claim(record.pk, record_key("lease", str(record.pk)), "another:1").exists()


def _every_state(world: World, manifest: Manifest) -> None:
    moved(world, manifest, "evict", "deleted")
    _delete_name(world, manifest, "evict", "deleted")
    save(world, manifest, "later", "delayed")
    save(world, manifest, "parts", "queued")
    record = save(world, manifest, "evict", "evictable")
    ledger.complete(_uploaded(world, "evict", record), timedelta(0))
    in_flight(save(world, manifest, "keep", "taken"))
    advance(timedelta(hours=2))


def _uploaded(world: World, alias: str, record: TransferRecord) -> TransferRecord:
    in_flight(record)
    record = record_of(world, alias, record.name)
    store(alias).objects[record.remote_name] = FIRST
    return record


def _sweep(world: World, manifest: Manifest, context: Any) -> None:
    sweeping.sweep(sweeping.process_all)


def _evictable(world: World, manifest: Manifest) -> int:
    record = save(world, manifest, "parts")
    ledger.complete(_uploaded(world, "parts", record), timedelta(0))
    return record.pk


def _unrecorded(world: World, manifest: Manifest) -> None:
    world.storage("keep").local.save(NAME, ContentFile(FIRST))
    manifest.found("keep", NAME, FIRST)


def _adopt(world: World, manifest: Manifest, context: Any) -> None:
    storage = world.storage("keep")
    key = locations.cache_key(storage, NAME)
    tasks.Transfer().run(NAME, key, storage.local_path, storage.remote_path, {}, {})


def _long_deleted(world: World, manifest: Manifest) -> None:
    _one_deleted(world, manifest)
    advance(timedelta(days=8))


def _held(world: World, manifest: Manifest) -> None:
    save(world, manifest, "held")


def _release(world: World, manifest: Manifest, context: Any) -> None:
    world.storage("held").transfer(NAME)
    sweeping.process(record_of(world, "held").pk)


# A figure that no other process shares, and that does not grow old by chance.
_LOOKING = {"QUEUED_STORAGE_CACHE": None, "QUEUED_STORAGE_OWED_AGE": 3600}

FLOWS = [
    Flow("save", ("keep",), nothing, _save_in_memory),
    Flow("save upload", ("keep",), nothing, _save_upload),
    Flow("save in transaction", ("keep",), nothing, _save_outer),
    Flow("save rolled back", ("keep",), _one_kept, _save_rolled_back),
    Flow("save through", ("through",), _one_owed, _save_through, _LOOKING),
    Flow("save taken name", ("evict",), _one_evicted, _save_taken),
    Flow("save deleted name", ("evict",), _one_deleted, _save_taken),
    Flow("open for writing", ("overwrite",), _one_overwritable, _open_for_writing),
    Flow("overwrite", ("overwrite",), _one_overwritable, _overwrite),
    Flow("transfer", ("keep",), _queued("keep"), _process),
    Flow("transfer in parts", ("parts",), _queued("parts"), _process),
    Flow("transfer and evict", ("evict",), _queued("evict"), _process),
    Flow("transfer together", ("evict",), _several, _together, long=True),
    Flow("retry", ("parts",), _queued("parts"), _retry),
    Flow("fail, requeue", ("evict",), _queued("evict"), _fail_and_requeue),
    Flow("remote down and up", ("evict",), _several, _down_and_up, {"QUEUED_STORAGE_DOWN_AFTER": 2}, long=True),
    Flow("release held", ("held",), _held, _release),
    Flow("delete queued", ("keep",), _queued("keep"), _delete("keep")),
    Flow("delete moved", ("evict",), _one_evicted, _delete("evict")),
    Flow("delete in transfer", ("keep",), _in_transfer, _delete("keep")),
    Flow("prune", ("evict",), _long_deleted, _sweep),
    Flow("sweep", ("keep", "evict", "parts", "later"), _every_state, _sweep, long=True),
    Flow("verify, evict", ("parts",), _evictable, _process),
    Flow("adopt", ("keep",), _unrecorded, _adopt),
]
