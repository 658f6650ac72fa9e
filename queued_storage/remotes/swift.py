"""OpenStack Swift (also sold as Cloud Files): one object per file in one container."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from queued_storage.exceptions import ErrorKind, MismatchError
from queued_storage.remotes.base import Stat
from queued_storage.remotes.hiding import hidden
from queued_storage.remotes.plain_http import Answer, AnswerError
from queued_storage.remotes.streamed import StreamedStorage, Upload, missing, skip, taken
from queued_storage.remotes.streams import Body
from queued_storage.remotes.swift_auth import Login, Session
from queued_storage.remotes.times import django_time


class SwiftStorage(StreamedStorage):
    """Objects in ``container``; a name that is taken is refused by the server (``If-None-Match: *``).

    ``auth_url``, ``username``, ``password`` and ``auth_version`` ("1", "2" or "3") log in; what Keystone wants beside
    them stands in ``os_options`` under the names of python-swiftclient (``project_name``, ``user_domain_name``,
    ``region_name``, ...). What is not given is read from the usual ``OS_*`` or ``ST_*`` variables.

    ``storage_url`` replaces the account's address that the login gives. ``base_url`` is the container's address for
    visitors. With ``temp_url_key`` addresses are signed and last ``temp_url_seconds``. Time-outs are in seconds, per
    connection and per read or write.
    """

    page_size = 1000

    def __init__(
        self,
        container: str,
        auth_url: str | None = None,
        username: str | None = None,
        password: str | None = None,
        auth_version: str | None = None,
        *,
        os_options: Mapping[str, str] | None = None,
        storage_url: str | None = None,
        base_url: str | None = None,
        temp_url_key: str | None = None,
        temp_url_seconds: int = 3600,
        temp_url_digest: str = "sha256",
        connect_timeout: float = 5,
        read_timeout: float = 30,
        ca_file: str | None = None,
    ) -> None:
        timeouts = {"connect_timeout": connect_timeout, "read_timeout": read_timeout}
        self._login = Login(
            auth_url, username, password, auth_version, os_options or {}, storage_url, ca_file=ca_file, **timeouts
        )
        self._container = container
        self._base_url = base_url.rstrip("/") if base_url else None
        self._temp_url_key = hidden(temp_url_key or "")
        self._temp_url_seconds = temp_url_seconds
        self._temp_url_digest = temp_url_digest
        self._container_seen = False

    def __repr__(self) -> str:
        return f"<SwiftStorage {self._container}>"

    def stat(self, name: str) -> Stat | None:
        """Return the size and, unless the object is made of segments, its MD5."""
        with self._request("HEAD", self._checked(name)) as answer:
            return None if self._is_absent(answer) else _stat(_good(answer))

    def get_modified_time(self, name: str) -> datetime:
        """Return when the object was written, by the server's clock; ``FileNotFoundError`` if it is not there."""
        with self._request("HEAD", self._checked(name)) as answer:
            if self._is_absent(answer):
                raise missing(name)
            return django_time(datetime.fromtimestamp(float(_good(answer).headers["X-Timestamp"]), timezone.utc))

    def delete(self, name: str) -> None:
        """Delete the object; one that is not there is no error."""
        with self._request("DELETE", self._checked(name)) as answer:
            if not self._is_absent(answer):
                _good(answer)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of folders and files in ``path``, a page at a time."""
        prefix = path.strip("/") + "/" if path.strip("/") else ""
        folders: list[str] = []
        files: list[str] = []
        query = {"format": "json", "delimiter": "/", "prefix": prefix, "limit": self.page_size}
        while rows := self._listing(query):
            for row in rows:
                if "subdir" in row:
                    folders.append(row["subdir"][len(prefix) : -1])
                elif row["name"] != prefix:
                    files.append(row["name"][len(prefix) :])
            query["marker"] = rows[-1].get("subdir") or rows[-1]["name"]
        return folders, files

    @property
    def signs_urls(self) -> bool:
        """Whether ``url()`` signs."""
        return bool(self._temp_url_key)

    def url(self, name: str | None) -> str:
        """Return the object's address, signed if there is a ``temp_url_key``; logs in only without ``base_url``."""
        base = self._base_url or f"{self._login.session().url}/{quote(self._container, safe='')}"
        address = f"{base}/{quote(self._checked(name or ''))}"
        if not self.signs_urls:
            return address
        expires = int(time.time()) + self._temp_url_seconds
        text = f"GET\n{expires}\n{unquote(urlsplit(address).path)}".encode()
        signature = hmac.new(self._temp_url_key.encode(), text, getattr(hashlib, self._temp_url_digest)).hexdigest()
        return f"{address}?temp_url_sig={signature}&temp_url_expires={expires}"

    def _upload(self, name: str, upload: Upload) -> None:
        headers = {
            "Content-Type": upload.content_type,
            "Content-Length": str(upload.size),
            "If-None-Match": "*",
            **({"ETag": upload.known_md5} if upload.known_md5 else {}),
        }
        with self._request("PUT", name, headers, upload=upload) as answer:
            if answer.status == 412:
                raise taken(name)
            etag = _good(answer).headers.get("ETag", "").strip('"')
        if etag != upload.md5:
            # The name was free a moment ago, so what lies there is this upload.
            self.delete(name)
            raise MismatchError("The server's digest is not that of the bytes sent.")

    def _fetch(self, name: str) -> tuple[Stat, Body, Callable[[int], Body]]:
        answer = self._request("GET", name)
        if answer.status != 200:
            with answer:
                raise missing(name) if self._is_absent(answer) else answer.error("GET")
        etag = answer.headers.get("ETag", "")
        return _stat(answer), answer, lambda offset: self._range(name, offset, etag)

    def _range(self, name: str, offset: int, etag: str) -> Body:
        answer = self._request("GET", name, {"Range": f"bytes={offset}-", "If-Match": etag})
        if answer.status not in {200, 206}:
            with answer:
                raise answer.error("GET")
        return skip(answer, offset if answer.status == 200 else 0)

    def _listing(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        with self._request("GET", "", query=query) as answer:
            rows: list[dict[str, Any]] = _good(answer).json()
            return rows

    def _request(
        self,
        method: str,
        name: str,
        headers: Mapping[str, str] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        upload: Upload | None = None,
    ) -> Answer:
        """Send a request for an object, or for the container if ``name`` is empty."""
        path = f"/{quote(self._container, safe='')}" + (f"/{quote(name)}" if name else "")
        path += f"?{urlencode(query)}" if query else ""
        known = self._login.known
        answer = self._send(known or self._login.session(), method, path, headers or {}, upload)
        if answer.status == 401 and known and (upload is None or upload.repeatable):
            # Tokens run out; this is the one request that is sent again, with a new one.
            answer.close()
            answer = self._send(self._login.renew(), method, path, headers or {}, upload)
        return answer

    def _send(
        self, session: Session, method: str, path: str, headers: Mapping[str, str], upload: Upload | None
    ) -> Answer:
        body = upload.blocks() if upload else ()
        return session.endpoint.request(method, path, {**headers, "X-Auth-Token": session.token}, body)

    def _is_absent(self, answer: Answer) -> bool:
        """Tell a missing object from a missing container, which an object's 404 does not."""
        if answer.status == 404 and not self._container_seen:
            with self._request("HEAD", "") as container:
                if container.status == 404:
                    raise AnswerError("The container does not exist.", ErrorKind.DENIED, 404)
                _good(container)
        self._container_seen = self._container_seen or answer.status in {200, 204, 404}
        return answer.status == 404


def _good(answer: Answer) -> Answer:
    if not 200 <= answer.status < 300:
        raise answer.error("The request to the container", answer.headers.get("X-Trans-Id", ""))
    return answer


def _stat(answer: Answer) -> Stat:
    size, etag = int(answer.headers["Content-Length"]), answer.headers.get("ETag", "").strip('"')
    # The tag of an object made of segments is not the digest of its bytes.
    segmented = "X-Static-Large-Object" in answer.headers or "X-Object-Manifest" in answer.headers
    return Stat(size) if segmented or not etag else Stat(size, {"md5": etag})
