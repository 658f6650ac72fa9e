"""List a directory of both sides by the names that the ledger knows."""

from __future__ import annotations

from typing import Any

from queued_storage import ledger
from queued_storage.models import State
from queued_storage.names import clean_directory, logical_name, record_key
from queued_storage.pairs import StoragePair


def listdir(storage: StoragePair, path: str) -> tuple[list[str], list[str]]:
    """Return directories and files under ``path`` on either side, without deleted and superseded ones, sorted.

    Raises ``FileNotFoundError`` if neither side has such a directory, and whatever the remote raises when it fails.
    """
    path = clean_directory(path)
    directories: set[str] = set()
    files: set[str] = set()
    missing = 0
    for side in (storage.local, storage.remote):
        try:
            found_directories, found_files = side.listdir(path)
        except FileNotFoundError:
            missing += 1
            continue
        directories.update(name for name in found_directories if name)
        files.update(name for name in found_files if name)
    if missing == 2:
        raise FileNotFoundError(f"No directory {path!a} in the storage {storage.alias}.")
    return sorted(directories), sorted(_known(storage, f"{path}/" if path else "", files))


def _known(storage: StoragePair, prefix: str, places: set[str]) -> set[str]:
    # What lies there under the name of a generation belongs to the record that says so.
    names: dict[str, str] = {}
    for place in places:
        logical = logical_name(place)
        names[place] = logical[0] if logical else place
    keys = {record_key(storage.alias, prefix + name): name for name in {*names.values(), *places}}
    records: dict[Any, Any] = ledger.lookup_many(keys)
    by_name = {keys[key]: record for key, record in records.items()}
    return {name for place, name in ((place, _name(prefix, place, names[place], by_name)) for place in places) if name}


def _name(prefix: str, place: str, name: str, by_name: dict[str, Any]) -> str | None:
    record = by_name.get(place) or by_name.get(name)
    if record is None:
        return place
    if record.state == State.DELETED or prefix + place not in (record.local_name, record.remote_name, record.name):
        return None
    return str(record.name).removeprefix(prefix)
