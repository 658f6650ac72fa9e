"""One large file: ``python -m benchmarks.large [megabytes] [rounds]``, 1,000 and 3 by default.

Told are time, and memory beyond the start's. Ours is the command without a broker: claimed, sent in parts, verified,
recorded. Where the ETag is compared, the server computes MD5s as S3 does; no other way waits for that.
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
CLIENT = "ours, through django-storages' client"
SIZED, PROVEN = "ours, through obstore, size compared", "ours, through obstore, ETag compared"
BASES = {"the save": "django-storages, save", "s5cmd": "s5cmd", "sendfile": "http_put"}
PEERS = ("upload_fileobj", "crt", "rclone", "s5cmd", "http_put")


def compare(megabytes: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run every way some rounds in turns."""
    folder = fresh("large")
    with (folder / "large.bin").open("wb") as file:
        for _ in range(megabytes):
            file.write(BLOCK)
    found: dict[str, list[dict[str, float]]] = {}
    with database(), null_s3.running() as endpoint, null_s3.running(0.0, "md5") as hashing:
        settings = ours.settings_for(endpoint, folder)
        proven = ours.settings_for(hashing, folder, ours.OBSTORE, ours.object_options(hashing))
        sized = ours.settings_for(
            endpoint, folder, ours.OBSTORE, ours.object_options(endpoint) | {"etag_is_md5": False}
        )
        # The server has thrown away what would be read back.
        sized["default"]["OPTIONS"]["verify"] = "size"
        with override_settings(STORAGES=settings):
            pair = storages["default"]
            bodies = {"large.bin": measure(pair.local, "large.bin")}  # type: ignore[attr-defined]
            for _ in range(rounds):
                for name, chosen in ((CLIENT, settings), (SIZED, sized), (PROVEN, proven)):
                    for server in (endpoint, hashing):
                        null_s3.forget(server)
                    ours.queue(pair, bodies)
                    found.setdefault(name, []).append(ours.run("drain", chosen))
                null_s3.forget(endpoint)
                found.setdefault("django-storages, save", []).append(ours.run("loop", settings))
                for name in PEERS:
                    found.setdefault(name, []).append(peers.run(name, endpoint, folder))
    shutil.rmtree(folder)
    return found


def main(megabytes: int, rounds: int = 3) -> None:
    """Measure and print."""
    found = compare(megabytes, rounds)
    seconds = {name: statistics.median(result["seconds"] for result in results) for name, results in found.items()}
    print(f"one file of {megabytes} MB; medians of {rounds} rounds in turns")
    for name, results in found.items():
        memory = max(result["memory"] for result in results) / 1e6
        ratios = "".join(f"{seconds[other] / seconds[name]:>8.2f} x {short}" for short, other in BASES.items())
        print(f"  {name:<42}{megabytes / seconds[name]:>6.0f} MB/s{ratios}{memory:>6.0f} MB more")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
