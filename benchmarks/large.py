"""One large file: ``python -m benchmarks.large [megabytes]``, 1,000 by default; time, and memory beyond the start's.

Ours is the command without a broker: claimed, sent in parts, verified, recorded.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys

os.environ.setdefault("TEST_DATABASE", "postgresql")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from django.core.files.storage import storages
from django.test import override_settings

from benchmarks import null_s3, ours, peers
from benchmarks.measuring import database
from queued_storage.copying import measure
from tests.servers.roots import fresh

BLOCK = os.urandom(1_000_000)
PEERS = ("upload_fileobj", "crt", "rclone", "s5cmd", "http_put")


def compare(megabytes: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run every way some rounds in turns."""
    folder = fresh("large")
    with (folder / "large.bin").open("wb") as file:
        for _ in range(megabytes):
            file.write(BLOCK)
    found: dict[str, list[dict[str, float]]] = {}
    with database(), null_s3.running() as endpoint:
        settings = ours.settings_for(endpoint, folder)
        object_store = ours.settings_for(endpoint, folder, ours.OBSTORE, ours.object_options(endpoint))
        # obstore tells no digest of an upload in parts, and the server has thrown away what would be read back.
        object_store["default"]["OPTIONS"]["verify"] = "size"
        with override_settings(STORAGES=settings):
            pair = storages["default"]
            bodies = {"large.bin": measure(pair.local, "large.bin")}  # type: ignore[attr-defined]
            for _ in range(rounds):
                for name, chosen in (
                    ("through django-storages' client", settings),
                    ("through obstore, size compared", object_store),
                ):
                    null_s3.forget(endpoint)
                    ours.queue(pair, bodies)
                    found.setdefault(f"ours, {name}", []).append(ours.run("drain", chosen))
                null_s3.forget(endpoint)
                found.setdefault("django-storages, save", []).append(ours.run("loop", settings))
                for name in PEERS:
                    found.setdefault(name, []).append(peers.run(name, endpoint, folder))
    shutil.rmtree(folder)
    return found


def main(megabytes: int, rounds: int = 3) -> None:
    """Measure and print."""
    found = compare(megabytes, rounds)
    base = statistics.median(result["seconds"] for result in found["django-storages, save"])
    print(f"one file of {megabytes} MB; medians of {rounds} rounds in turns")
    for name, results in found.items():
        seconds = statistics.median(result["seconds"] for result in results)
        memory = max(result["memory"] for result in results) / 1e6
        print(f"  {name:<42}{megabytes / seconds:>8.0f} MB/s {base / seconds:>7.2f} x the save{memory:>9.0f} MB more")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
