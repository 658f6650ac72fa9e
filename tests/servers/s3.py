"""A private S3: moto's server over HTTP."""

from __future__ import annotations

import importlib.util
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .processes import Process, Unavailable, on_free_port, stopped_at_end
from .roots import fresh

_KEYS = {"access_key": "test-key", "secret_key": "test-secret", "region_name": "us-east-1"}


@dataclass(frozen=True)
class S3Server:
    """Where the server is, and how to reach it."""

    endpoint: str

    def options(self, bucket: str, **more: Any) -> dict[str, Any]:
        """Return the options of django-storages' ``S3Storage`` for a bucket on this server."""
        return {"bucket_name": bucket, "endpoint_url": self.endpoint, **_KEYS, **more}

    def client(self) -> Any:
        """Return a new boto3 client."""
        import boto3

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=_KEYS["access_key"],
            aws_secret_access_key=_KEYS["secret_key"],
            region_name=_KEYS["region_name"],
        )

    def create_bucket(self, bucket: str) -> str:
        """Create a bucket and return its name."""
        client = self.client()
        client.create_bucket(Bucket=bucket)
        client.close()
        return bucket


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextmanager
def server() -> Iterator[S3Server]:
    """Run the server and yield its address."""
    for package in ("moto", "flask", "flask_cors", "boto3"):
        if importlib.util.find_spec(package) is None:
            raise Unavailable(f"no {package}: `pip install 'moto[s3]' flask flask-cors`")
    folder = fresh("s3")

    def start(port: int) -> Process:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        return Process(command, name="s3", log=folder / "log", cwd=folder)

    process, port = on_free_port(start, _answers, bound=60)
    with stopped_at_end(process):
        yield S3Server(f"http://127.0.0.1:{port}")
