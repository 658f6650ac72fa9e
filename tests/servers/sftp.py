"""A private SSH server for files: asyncssh in a process of its own, or OpenSSH's ``sftp-server`` behind it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .folding import folded
from .processes import Process, Unavailable, answers, on_free_port, stopped_at_end
from .roots import fresh

USER = "somebody"
PASSWORD = "sftp-s3cret"
REPOSITORY = Path(__file__).parents[2]
OPENSSH = Path("/usr/lib/openssh/sftp-server")


@dataclass(frozen=True)
class SFTPServer:
    """Where the server is, what it serves, and the file with its key."""

    port: int
    root: Path
    known_hosts: Path

    def options(self, **more: Any) -> dict[str, Any]:
        """Return the options of a storage on this server."""
        login = {"port": self.port, "username": USER, "password": PASSWORD}
        params = {**login, "allow_agent": False, "look_for_keys": False}
        return {"host": "127.0.0.1", "params": params, "known_host_file": str(self.known_hosts), **more}


@contextmanager
def server(*, openssh: bool = False, largest: int = 0, folding: bool = False) -> Iterator[SFTPServer]:
    """Run a server, where no file can be larger than ``largest``; ``folding`` takes upper and lower case for one."""
    for package in ("asyncssh", "paramiko"):
        if importlib.util.find_spec(package) is None:
            raise Unavailable(f"no {package}: `pip install asyncssh paramiko`")
    if openssh and not OPENSSH.exists():
        raise Unavailable("no sftp-server: `apt-get install openssh-sftp-server`")
    import asyncssh

    folder = fresh("sftp")
    root = folder / "root"
    root.mkdir()
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(folder / "key")
    public = key.export_public_key().decode().strip()

    def start(port: int) -> Process:
        order: dict[str, Any] = {"port": port, "root": str(root), "key": str(folder / "key")}
        order |= {"openssh": openssh, "largest": largest, "folding": folding}
        command = [sys.executable, "-m", "tests.servers.sftp", json.dumps(order)]
        return Process(command, name="sftp", log=folder / "log", cwd=REPOSITORY)

    process, port = on_free_port(start, lambda port: answers("127.0.0.1", port), bound=30)
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {public}\n")
    with stopped_at_end(process):
        yield SFTPServer(port, root, known_hosts)


async def _serve(order: dict[str, Any]) -> None:
    import asyncssh

    class Behind(asyncssh.SSHServerSession[bytes]):
        """Passes bytes between the client and OpenSSH's file server."""

        def connection_made(self, chan: Any) -> None:
            self.chan, self.sent = chan, asyncio.Queue[bytes]()

        def subsystem_requested(self, subsystem: str) -> bool:
            return subsystem == "sftp"

        def session_started(self) -> None:
            self.task = asyncio.create_task(self.run())

        def data_received(self, data: bytes, datatype: Any) -> None:
            self.sent.put_nowait(data)

        def connection_lost(self, exc: Exception | None) -> None:
            self.task.cancel()

        async def run(self) -> None:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(str(OPENSSH), "-d", order["root"], stdin=pipe, stdout=pipe)
            assert process.stdin is not None
            assert process.stdout is not None
            there = asyncio.create_task(self.forward(process.stdin))
            try:
                while block := await process.stdout.read(65536):
                    self.chan.write(block)
            finally:
                there.cancel()
                process.kill()
                await process.wait()
                self.chan.close()

        async def forward(self, stdin: asyncio.StreamWriter) -> None:
            while True:
                stdin.write(await self.sent.get())
                await stdin.drain()

    class Login(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

        def session_requested(self) -> Any:
            return Behind() if order["openssh"] else True

    class Files(asyncssh.SFTPServer):
        def __init__(self, chan: Any) -> None:
            super().__init__(chan, chroot=order["root"])

        def map_path(self, path: bytes) -> bytes:
            mapped = super().map_path(path)
            return folded(mapped.decode(), order["root"]).encode() if order["folding"] else mapped

    options: dict[str, Any] = {"server_host_keys": [order["key"]], "encoding": None, "sftp_factory": Files}
    listener = await asyncssh.create_server(Login, "127.0.0.1", order["port"], **options)
    await listener.wait_closed()


def _main(order: dict[str, Any]) -> None:
    if order["largest"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], order["largest"]))
    os.umask(0o022)
    asyncio.run(_serve(order))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
