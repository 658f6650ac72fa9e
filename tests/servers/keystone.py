"""The two answers of OpenStack's Keystone (v2.0 and v3) that a login needs, with tokens of the tests' own Swift."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .swift import PASSWORD, Swift

EXPIRES = "2099-01-01T00:00:00.000000Z"


@dataclass(frozen=True)
class Keystone:
    """Where the service is."""

    url: str


def _v2(wanted: dict[str, Any], storage_url: str, token: str) -> dict[str, Any] | None:
    if wanted["auth"]["passwordCredentials"]["password"] != PASSWORD:
        return None
    endpoint = {"publicURL": storage_url, "region": "one"}
    return {
        "access": {
            "token": {"id": token, "expires": EXPIRES, "tenant": {"id": "t", "name": "test"}},
            "user": {"id": "u", "name": "tester", "roles": []},
            "serviceCatalog": [{"type": "object-store", "name": "swift", "endpoints": [endpoint]}],
        }
    }


def _v3(wanted: dict[str, Any], storage_url: str) -> dict[str, Any] | None:
    identity = wanted["auth"]["identity"]
    if "application_credential" in identity["methods"]:
        given = identity["application_credential"]["secret"]
    else:
        given = identity["password"]["user"]["password"]
    if given != PASSWORD:
        return None
    endpoint = {"id": "e", "interface": "public", "region": "one", "region_id": "one", "url": storage_url}
    domain = {"id": "default", "name": "Default"}
    return {
        "token": {
            "expires_at": EXPIRES,
            "issued_at": EXPIRES,
            "methods": identity["methods"],
            "user": {"id": "u", "name": "tester", "domain": domain},
            "project": {"id": "p", "name": "test", "domain": domain},
            "roles": [],
            "catalog": [{"id": "s", "type": "object-store", "name": "swift", "endpoints": [endpoint]}],
        }
    }


@contextmanager
def server(swift: Swift) -> Iterator[Keystone]:
    """Run the service in a thread and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Stay silent."""

        def do_POST(self) -> None:
            """Hand out a token."""
            wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            storage_url, token = swift.token()
            old = self.path == "/v2.0/tokens"
            body = _v2(wanted, storage_url, token) if old else _v3(wanted, storage_url)
            content = json.dumps(body or {"error": {"code": 401, "message": "no", "title": "Unauthorized"}}).encode()
            self.send_response_only((200 if old else 201) if body else 401)
            if body and not old:
                self.send_header("X-Subject-Token", token)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Keystone(f"http://127.0.0.1:{running.server_address[1]}")
    finally:
        running.shutdown()
        running.server_close()
        thread.join()
