"""A private OpenStack Swift on one host, from Debian's packages: proxy, account, container and object server."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .processes import NotReadyError, Process, Unavailable, answers, free_port, stopped_at_end
from .roots import fresh

PROGRAMS = [*(f"swift-{kind}-server" for kind in ("proxy", "account", "container", "object")), "memcached"]
USER, PASSWORD, TEMP_URL_KEY = "test:tester", "open-sesame-swift", "temp-url-key-of-the-tests"
PIPELINE = (
    "catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk tempurl tempauth copy "
    "container-quotas account-quotas slo dlo proxy-logging proxy-server"
)
FILTERS = [
    "catch_errors",
    "gatekeeper",
    "healthcheck",
    "proxy-logging",
    "listing_formats",
    "bulk",
    "tempurl",
    "copy",
    "slo",
    "dlo",
]


@dataclass(frozen=True)
class Swift:
    """Where the proxy is, and a container of the tests' own account."""

    url: str
    memcached: int
    container: str = "files"

    @property
    def auth_url(self) -> str:
        """Where tokens are had (auth version 1)."""
        return f"{self.url}/auth/v1.0"

    def token(self) -> tuple[str, str]:
        """Return the storage URL and a token."""
        request = urllib.request.Request(self.auth_url, headers={"X-Auth-User": USER, "X-Auth-Key": PASSWORD})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers["X-Storage-Url"], answer.headers["X-Auth-Token"]

    def forget_tokens(self) -> None:
        """Make every token invalid, as time would."""
        with socket.create_connection(("127.0.0.1", self.memcached), timeout=5) as cache:
            cache.sendall(b"flush_all\r\n")
            assert cache.recv(10).startswith(b"OK")

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> dict[str, str]:
        """Send a request of the account's owner and return the answer's headers; underscores become dashes."""
        url, token = self.token()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(url + path, body, {"X-Auth-Token": token, **named}, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(answer.headers.items())


def _check(folder: Path) -> None:
    absent = [name for name in [*PROGRAMS, "swift-ring-builder"] if shutil.which(name) is None]
    if absent:
        raise Unavailable(
            f"no {', '.join(absent)}: `apt install swift-proxy swift-account swift-container swift-object`"
        )
    if not os.access("/etc/swift/swift.conf", os.R_OK):
        raise Unavailable("/etc/swift/swift.conf cannot be read")
    try:
        os.setxattr(folder, "user.test", b"1")
    except OSError as error:
        raise Unavailable(f"the temporary folder has no extended attributes ({error})") from error


def _configure(folder: Path, ports: dict[str, int]) -> None:
    common = f"[DEFAULT]\nbind_ip = 127.0.0.1\nuser = {getpass.getuser()}\nswift_dir = {folder}\nworkers = 0\n"
    for kind in ("account", "container", "object"):
        (folder / f"{kind}.conf").write_text(
            f"{common}bind_port = {ports[kind]}\ndevices = {folder}/devices\nmount_check = false\n"
            f"[pipeline:main]\npipeline = {kind}-server\n[app:{kind}-server]\nuse = egg:swift#{kind}\n"
        )
    filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name.replace('-', '_')}\n" for name in FILTERS)
    (folder / "proxy.conf").write_text(
        f"{common}bind_port = {ports['proxy']}\n[pipeline:main]\npipeline = {PIPELINE}\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\nallow_account_management = true\n"
        f"[filter:tempauth]\nuse = egg:swift#tempauth\nuser_{USER.replace(':', '_')} = {PASSWORD} .admin\n"
        f"[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:{ports['memcached']}\n"
        "[filter:container-quotas]\nuse = egg:swift#container_quotas\n"
        f"[filter:account-quotas]\nuse = egg:swift#account_quotas\n{filters}"
    )


def _build_rings(folder: Path, ports: dict[str, int]) -> None:
    for kind in ("account", "container", "object"):
        builder = str(folder / f"{kind}.builder")
        for step in (["create", "4", "1", "1"], ["add", f"r1z1-127.0.0.1:{ports[kind]}/d1", "1"], ["rebalance"]):
            # Its exit status 1 is a warning: one device cannot be balanced.
            done = subprocess.run(["swift-ring-builder", builder, *step], capture_output=True, text=True, check=False)
            if done.returncode not in {0, 1}:
                raise NotReadyError(f"swift-ring-builder {step[0]}: {done.stdout}{done.stderr}")


def _start(folder: Path, ports: dict[str, int], stack: ExitStack) -> None:
    port, user = str(ports["memcached"]), getpass.getuser()
    commands: dict[str, list[str | Path]] = {
        "memcached": ["memcached", "-l", "127.0.0.1", "-p", port, "-U", "0", "-u", user],
        **{kind: [f"swift-{kind}-server", folder / f"{kind}.conf", "-v"] for kind in ports if kind != "memcached"},
    }
    processes = [Process(command, name=name, log=folder / f"{name}.log") for name, command in commands.items()]
    for each in processes:
        stack.enter_context(stopped_at_end(each))
    for each in processes:
        each.wait_until(lambda name=each.name: answers("127.0.0.1", ports[name]), bound=30, what="it listens")  # type: ignore[misc]


@contextmanager
def server() -> Iterator[Swift]:
    """Run Swift and yield its address; the account has a temp URL key and the container ``files``."""
    folder = fresh("swift")
    _check(folder)
    (folder / "devices/d1").mkdir(parents=True)
    with ExitStack() as stack:
        ports = {kind: free_port() for kind in ("memcached", "account", "container", "object", "proxy")}
        _configure(folder, ports)
        _build_rings(folder, ports)
        _start(folder, ports, stack)
        swift = Swift(f"http://127.0.0.1:{ports['proxy']}", ports["memcached"])
        try:
            swift.send("POST", "", X_Account_Meta_Temp_URL_Key=TEMP_URL_KEY)
            swift.send("PUT", f"/{swift.container}")
        except urllib.error.URLError as error:
            logs = "".join(log.read_text(errors="replace")[-2000:] for log in folder.glob("*.log"))
            raise NotReadyError(f"Swift does not work: {error}\n{logs}") from error
        yield swift
