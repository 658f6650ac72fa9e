"""A visitor who fills in the upload form over HTTP."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from urllib.parse import urljoin
from urllib.request import urlopen

from show.material import MB, Material, sha256
from show.processes import ShowError


class Browser:
    """Upload files through the form of the gallery, with its cookie and its token."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._token = ""

    def upload(self, material: Material) -> tuple[int, float]:
        """Add an exhibit; return its id and how many seconds the server took. Raises ``ShowError`` if it refuses."""
        self._token = self._token or self._fetch_token()
        boundary = secrets.token_hex(16)
        fields = {"title": material.name, "csrfmiddlewaretoken": self._token}
        head = "".join(_part(boundary, f'name="{name}"') + f"{value}\r\n" for name, value in fields.items())
        head += _part(boundary, f'name="{material.field}"; filename="{material.name}"')
        tail = f"\r\n--{boundary}--\r\n"
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + material.size + len(tail)),
            "Cookie": f"csrftoken={self._token}",
        }
        started = time.monotonic()
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("POST", "/add/", _body(head, material, tail), headers)
        response = connection.getresponse()
        page = response.read().decode(errors="replace")
        seconds = time.monotonic() - started
        connection.close()
        created = re.fullmatch(r"/(\d+)/", response.headers.get("Location") or "")
        if created is None:
            raise ShowError(f"the upload of {material.name} was answered with {response.status}: {page[:2000]}")
        return int(created[1]), seconds

    def pictures(self) -> list[str]:
        """Open the gallery's page and return the SHA-256 of every picture that it shows, wherever that lies now."""
        site = f"http://127.0.0.1:{self._port}/"
        with urlopen(site, timeout=60) as page:
            sources = re.findall(r'<img src="([^"]+)"', page.read().decode())
        digests = []
        for source in sources:
            with urlopen(urljoin(site, source), timeout=60) as body:
                digests.append(sha256(iter(partial(body.read, MB), b"")))
        return digests

    def _fetch_token(self) -> str:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("GET", "/add/")
        response = connection.getresponse()
        response.read()
        cookie = SimpleCookie(response.headers.get("Set-Cookie", ""))
        connection.close()
        if "csrftoken" not in cookie:
            raise ShowError(f"the upload form was answered with {response.status} and no cookie")
        return cookie["csrftoken"].value


def _part(boundary: str, disposition: str) -> str:
    return f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"


def _body(head: str, material: Material, tail: str) -> Iterator[bytes]:
    yield head.encode()
    with material.path.open("rb") as file:
        yield from iter(lambda: file.read(MB), b"")
    yield tail.encode()
