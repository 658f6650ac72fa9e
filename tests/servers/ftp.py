"""A private FTP server: pyftpdlib in a process of its own."""

from __future__ import annotations

import datetime
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
PASSWORD = "ftp-s3cr3t pass"
REPOSITORY = Path(__file__).parents[2]
# What servers without RFC 3659's machine-readable listings lack; vsftpd is one.
MACHINE_COMMANDS = ["MLSD", "MLST"]


@dataclass(frozen=True)
class FTPServer:
    """Where the server is and what it serves."""

    port: int
    root: Path
    certificate: Path | None = None

    def options(self, **more: Any) -> dict[str, Any]:
        """Return the options of a storage on this server."""
        tls = {"tls": True, "ca_file": str(self.certificate)} if self.certificate else {}
        return {"host": "localhost", "port": self.port, "user": USER, "password": PASSWORD, **tls, **more}


@contextmanager
def server(
    *,
    tls: bool = False,
    without: tuple[str, ...] = (),
    largest: int = 0,
    may: str = "elradfmwMT",
    folding: bool = False,
) -> Iterator[FTPServer]:
    """Run a server: TLS only; ``without`` some commands; files at most ``largest``; what the user ``may`` do.

    With ``folding`` upper and lower case are the same for it, as on Windows.
    """
    for package in ["pyftpdlib", *(["OpenSSL"] if tls else [])]:
        if importlib.util.find_spec(package) is None:
            raise Unavailable(f"no {package}: `pip install pyftpdlib pyopenssl`")
    folder = fresh("ftp")
    root = folder / "root"
    root.mkdir()
    certificate = _certificate(folder) if tls else None

    def start(port: int) -> Process:
        order: dict[str, Any] = {"port": port, "root": str(root), "without": without, "largest": largest, "may": may}
        order |= {"tls": str(certificate or ""), "folding": folding}
        command = [sys.executable, "-m", "tests.servers.ftp", json.dumps(order)]
        return Process(command, name="ftp", log=folder / "log", cwd=REPOSITORY)

    process, port = on_free_port(start, lambda port: answers("127.0.0.1", port), bound=30)
    with stopped_at_end(process):
        yield FTPServer(port, root, certificate)


def _certificate(folder: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *form) + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def _serve(order: dict[str, Any]) -> None:
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.filesystems import AbstractedFS
    from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
    from pyftpdlib.servers import ThreadedFTPServer

    if order["largest"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], order["largest"]))
    os.umask(0o022)
    authorizer = DummyAuthorizer()
    authorizer.add_user(USER, PASSWORD, order["root"], perm=order["may"])
    base = TLS_FTPHandler if order["tls"] else FTPHandler
    commands = {name: facts for name, facts in base.proto_cmds.items() if name not in order["without"]}
    members: dict[str, Any] = {"authorizer": authorizer, "proto_cmds": commands, "auth_failed_timeout": 0}
    if order["folding"]:

        class Folding(AbstractedFS):
            def ftp2fs(self, ftppath: str) -> str:
                return folded(super().ftp2fs(ftppath), self.root)

        members["abstracted_fs"] = Folding
    if order["tls"]:
        members |= {"certfile": order["tls"], "tls_control_required": True, "tls_data_required": True}
    ThreadedFTPServer(("127.0.0.1", order["port"]), type("Handler", (base,), members)).serve_forever()


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
