"""RabbitMQ: the one at ``RABBITMQ_URL`` or on the standard port; with a virtual host of our own if we may make one."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from .processes import Unavailable

_DEFAULT = "amqp://guest:guest@127.0.0.1:5672/"


def url() -> str:
    """Return the address of a RabbitMQ that answers; raise ``Unavailable`` when none does."""
    address = os.environ.get("RABBITMQ_URL", _DEFAULT)
    if not _connects(address):
        raise Unavailable(f"no RabbitMQ at {urlsplit(address).hostname}: install rabbitmq-server or set RABBITMQ_URL")
    return address


def _connects(address: str) -> bool:
    from kombu import Connection

    try:
        with Connection(address, connect_timeout=3) as connection:
            connection.connect()
    except Connection(address).connection_errors:
        return False
    return True


def _control(*arguments: str) -> bool:
    program = shutil.which("rabbitmqctl") or shutil.which("rabbitmqctl", path="/usr/sbin")
    if program is None:
        return False
    return subprocess.run([program, "--quiet", *arguments], capture_output=True, timeout=60).returncode == 0


@contextmanager
def virtual_host() -> Iterator[str]:
    """Yield a URL with a virtual host of our own, or the default one where we are not allowed to make any."""
    address = url()
    parts = urlsplit(address)
    name = f"queued-storage-{uuid.uuid4().hex[:12]}"
    own = urlunsplit(parts._replace(path=f"/{name}"))
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if not (local and _control("add_vhost", name)):
        # Queue names carry a random part, so sharing a virtual host with others does no harm.
        yield address
        return
    try:
        _control("set_permissions", "-p", name, parts.username or "guest", ".*", ".*", ".*")
        yield own if _connects(own) else address
    finally:
        _control("delete_vhost", name)
