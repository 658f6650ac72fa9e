"""A private Azure Blob Storage: npm's ``azurite`` in memory; ``python -m tests.servers.azure`` installs it."""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import Process, Unavailable, answers, on_free_port, stopped_at_end
from .roots import fresh

VERSION = "3.35.0"
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / f"queued-storage-tests/azurite-{VERSION}"
ACCOUNT = "testaccount"
KEY = base64.b64encode(b"a key for tests and nothing else").decode()
CONTAINER = "files"


@dataclass(frozen=True)
class Azure:
    """Where the server is; it has one container, ``CONTAINER``."""

    port: int

    @property
    def endpoint(self) -> str:
        """The address of the account."""
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    def connection_string(self, *, key: str = KEY, port: int = 0) -> str:
        """Return what a client needs to know."""
        endpoint = f"http://127.0.0.1:{port or self.port}/{ACCOUNT}"
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={endpoint};"

    def options(self, **more: Any) -> dict[str, Any]:
        """Return the options of django-storages' ``AzureStorage`` on this server."""
        return {"connection_string": self.connection_string(), "azure_container": CONTAINER, **more}

    def client(self) -> Any:
        """Return a client of the container."""
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(self.connection_string()).get_container_client(CONTAINER)


def program() -> str:
    """Return the executable: ``AZURITE_BLOB``, the one on the path, or the one installed for these tests."""
    installed = FOLDER / "node_modules/.bin/azurite-blob"
    found = os.environ.get("AZURITE_BLOB") or shutil.which("azurite-blob") or shutil.which(str(installed))
    if not found or shutil.which("node") is None:
        raise Unavailable("no azurite: `python -m tests.servers.azure` installs it with npm (Node 18 or 20)")
    return found


def install() -> None:
    """Install the server with npm, once."""
    if not (FOLDER / "node_modules/.bin/azurite-blob").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        options = ["--prefix", str(FOLDER), "--no-audit", "--no-fund"]
        subprocess.run(["npm", "install", *options, f"azurite@{VERSION}"], check=True, cwd=FOLDER)


@contextmanager
def server() -> Iterator[Azure]:
    """Run the server and yield its address."""
    if importlib.util.find_spec("azure.storage") is None:
        raise Unavailable("no azure-storage-blob: `pip install azure-storage-blob`")
    executable, folder = program(), fresh("azure")

    def start(port: int) -> Process:
        options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry"]
        command = [executable, *options, "--blobHost", "127.0.0.1", "--blobPort", str(port)]
        environment = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
        return Process(command, name="azure", log=folder / "log", cwd=folder, env=environment)

    process, port = on_free_port(start, lambda port: answers("127.0.0.1", port), bound=60)
    with stopped_at_end(process):
        azure = Azure(port)
        azure.client().create_container()
        yield azure


if __name__ == "__main__":
    install()
