"""A private Google Cloud Storage: PyPI's ``gcp-storage-emulator`` in memory."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .processes import Process, Unavailable, answers, on_free_port, stopped_at_end
from .roots import fresh

BUCKET = "media"


@dataclass(frozen=True)
class GCS:
    """Where the server is; it has one bucket, ``BUCKET``, takes every credential, and ignores preconditions."""

    port: int

    def options(self, port: int = 0, **more: Any) -> dict[str, Any]:
        """Return the options of our ``GoogleCloudStorage`` on this server, or on ``port``."""
        endpoint = f"http://127.0.0.1:{port or self.port}"
        address = {"custom_endpoint": f"{endpoint}/{BUCKET}", "querystring_auth": False}
        return {"bucket_name": BUCKET, "api_endpoint": endpoint, "anonymous": True, **address, **more}

    def client(self) -> Any:
        """Return a client of the bucket."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client

        endpoint = {"api_endpoint": f"http://127.0.0.1:{self.port}"}
        return Client("tests", AnonymousCredentials(), client_options=endpoint).bucket(BUCKET)  # type: ignore[no-untyped-call]


@contextmanager
def server() -> Iterator[GCS]:
    """Run the server and yield its address."""
    for package in ("google.cloud.storage", "gcp_storage_emulator"):
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise Unavailable(f"no {package}: `pip install google-cloud-storage gcp-storage-emulator`")
    folder = fresh("gcs")

    def start(port: int) -> Process:
        options = ["--host", "127.0.0.1", "--port", str(port), "--in-memory", "--default-bucket", BUCKET]
        command = [sys.executable, "-m", "gcp_storage_emulator", "start", *options]
        return Process(command, name="gcs", log=folder / "log", cwd=folder)

    process, port = on_free_port(start, lambda port: answers("127.0.0.1", port), bound=60)
    with stopped_at_end(process):
        yield GCS(port)
