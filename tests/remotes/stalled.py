"""A process that saves a file, stops in the middle of its source, and is killed there."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.remotes.material import Blocks, Upload
from tests.remotes.memory import ROOT, configure
from tests.servers.processes import Process
from tests.servers.roots import fresh


@contextmanager
def stalled_save(backend: str, options: dict[str, Any], name: str, size: int) -> Iterator[Process]:
    """Run a save in another process up to half of its bytes; kill it without warning when the block ends."""
    order = json.dumps({"backend": backend, "options": options, "name": name, "size": size})
    command = [sys.executable, "-m", "tests.remotes.stalled", order]
    process = Process(command, name="saver", log=fresh("stalled") / "log", cwd=ROOT)
    try:
        process.wait_for_output("half of it is on its way", bound=60)
        yield process
    finally:
        process.kill()


class _Stalling(Blocks):
    def readinto(self, buffer: Any) -> int:
        if self.position >= self.total // 2:
            os.write(1, b"half of it is on its way\n")
            signal.pause()
        return super().readinto(buffer)


def _main(order: dict[str, Any]) -> None:
    configure()
    from django.utils.module_loading import import_string

    storage = import_string(order["backend"])(**order["options"])
    storage._save(order["name"], Upload(_Stalling(order["size"]), order["size"]))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
