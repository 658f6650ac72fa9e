"""MogileFS: trackers for the names, plain HTTP to storage nodes for the bytes."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.utils.encoding import filepath_to_uri

from queued_storage.exceptions import ErrorKind, TransferError
from queued_storage.remotes.base import Stat
from queued_storage.remotes.mogilefs_trackers import TrackerError, Trackers
from queued_storage.remotes.plain_http import Answer, Endpoint, UnreachableError
from queued_storage.remotes.streamed import StreamedStorage, Upload, missing, skip, taken
from queued_storage.remotes.streams import Body

MAX_KEY = 255


class MogileFSStorage(StreamedStorage):
    """Files in the MogileFS domain ``domain``, found through any of ``trackers`` (``host:port``, a list or one string).

    ``file_class`` is the class of new files. ``base_url`` is the public address under which a web server in front
    serves the keys; without it there is no ``url()``. A file is uploaded under a key that starts with ``upload_prefix``
    and renamed, which the tracker refuses when the name is taken. Time-outs are in seconds, per connection and read.
    """

    page_size = 1000

    def __init__(
        self,
        trackers: str | Sequence[str],
        domain: str,
        *,
        file_class: str = "",
        base_url: str | None = None,
        upload_prefix: str = "queued-upload/",
        connect_timeout: float = 5,
        read_timeout: float = 30,
    ) -> None:
        addresses = [each.strip() for each in trackers.split(",")] if isinstance(trackers, str) else list(trackers)
        self._trackers = Trackers([each for each in addresses if each], connect_timeout, read_timeout)
        self._domain = domain
        self._class = file_class
        self._base_url = base_url
        self._upload_prefix = upload_prefix
        self._endpoint = partial(Endpoint, connect_timeout=connect_timeout, read_timeout=read_timeout)

    def __repr__(self) -> str:
        return f"<MogileFSStorage {self._domain}>"

    def stat(self, name: str) -> Stat | None:
        """Return the size, and the MD5 where the file's class keeps one."""
        info = self._ask_or("unknown_key", "file_info", key=self._checked(name))
        if info is None:
            return None
        algorithm, _, digest = info.get("checksum", "").partition(":")
        return Stat(int(info["length"]), {"md5": digest.lower()} if algorithm == "MD5" else {})

    def url(self, name: str | None) -> str:
        """Return the public address, or raise ``ValueError`` if no ``base_url`` is set: nodes are not for visitors."""
        if self._base_url is None:
            raise ValueError("This file is not accessible via a URL: set 'base_url' in the storage's options.")
        return f"{self._base_url.rstrip('/')}/{filepath_to_uri(self._checked(name or ''))}"

    def delete(self, name: str) -> None:
        """Delete the key; one that is not there is no error."""
        self._ask_or("unknown_key", "delete", key=self._checked(name))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of folders and files in ``path``; reads every key below it, a page at a time."""
        prefix = path.strip("/") + "/" if path.strip("/") else ""
        # Trackers use the prefix as a pattern, so it is sent up to the first character that means more than itself.
        head = re.split(r"[%\\()\[\]{}+*?|^$]", prefix, maxsplit=1)[0]
        folders: dict[str, None] = {}
        files: list[str] = []
        after = ""
        while keys := self._page(head, after):
            for key in keys:
                first, slash, _ = key[len(prefix) :].partition("/")
                if key.startswith(prefix) and slash:
                    folders[first] = None
                elif key.startswith(prefix):
                    files.append(first)
            after = keys[-1]
        return list(folders), files

    def _page(self, prefix: str, after: str) -> list[str]:
        found = self._ask_or("none_match", "list_keys", prefix=prefix, after=after, limit=self.page_size)
        return [] if found is None else [found[f"key_{number + 1}"] for number in range(int(found["key_count"]))]

    def _upload(self, name: str, upload: Upload) -> None:
        if len(name.encode()) > MAX_KEY:
            raise TransferError(f"A MogileFS key has at most {MAX_KEY} bytes.", ErrorKind.REFUSED)
        key = f"{self._upload_prefix}{uuid.uuid4().hex}"
        opened = self._ask("create_open", key=key, fid=0, multi_dest=1, **self._with_class())
        device, path = self._put(opened, upload)
        where = {"key": key, "fid": opened["fid"], "devid": device, "path": path}
        check = {"size": str(upload.size), "checksum": f"MD5:{upload.md5}", "checksumverify": "1"}
        # The tracker reads the file back before it answers: at least 10 MB a second are expected of it.
        try:
            self._ask("create_close", upload.size / 10_000_000, **where, **check)
            self._ask("rename", from_key=key, to_key=name)
        except TransferError as error:
            with suppress(TransferError):
                self._ask("delete", key=key)
            if isinstance(error, TrackerError) and error.code == "key_exists":
                raise taken(name) from None
            raise

    def _put(self, opened: dict[str, str], upload: Upload) -> tuple[str, str]:
        """Send the bytes to the first device that takes them; return its id and the path there."""
        failure: TransferError = TrackerError("the tracker named no device to store the file on", "no_devices")
        for number in range(1, int(opened.get("dev_count", 0)) + 1):
            device, path = opened[f"devid_{number}"], opened[f"path_{number}"]
            if not upload.repeatable:
                break
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(upload.size)}
            try:
                with self._node(path).request("PUT", urlsplit(path).path, headers, upload.blocks()) as answer:
                    if 200 <= answer.status < 300:
                        return device, path
                    failure = answer.error("PUT to a storage node")
            except UnreachableError as error:
                failure = error
            # Whatever this device has against the file, the next attempt may find another one.
            failure.kind = ErrorKind.PASSING
        raise failure

    def _fetch(self, name: str) -> tuple[Stat, Body, Callable[[int], Body]]:
        stat = self.stat(name)
        if stat is None or stat.size is None:
            raise missing(name)
        size = stat.size
        return stat, self._body(name, size, 0), lambda offset: self._body(name, size, offset)

    def _body(self, name: str, size: int, offset: int) -> Body:
        found = self._ask("get_paths", key=name)
        failure: TransferError = TrackerError("the tracker knows the file, but no path to it that is up", "no_paths")
        for number in range(1, int(found["paths"]) + 1):
            path = found[f"path{number}"]
            try:
                answer = self._node(path).request(
                    "GET", urlsplit(path).path, {"Range": f"bytes={offset}-"} if offset else {}
                )
            except UnreachableError as error:
                failure = error
                continue
            if _is_whole(answer, size, offset):
                return skip(answer, offset if answer.status == 200 else 0)
            answer.close()
            failure = answer.error("GET from a storage node", "not the whole file")
            failure.kind = ErrorKind.PASSING
        raise failure

    def _ask(self, command: str, patience: float = 0, /, **arguments: str | int) -> dict[str, str]:
        return self._trackers.ask(command, patience, domain=self._domain, **arguments)

    def _ask_or(self, code: str, command: str, /, **arguments: str | int) -> dict[str, str] | None:
        """Return the answer, or ``None`` if it is the error ``code``."""
        try:
            return self._ask(command, **arguments)
        except TrackerError as error:
            if error.code != code:
                raise
            return None

    def _with_class(self) -> dict[str, Any]:
        return {"class": self._class} if self._class else {}

    def _node(self, path: str) -> Endpoint:
        parts = urlsplit(path)
        return self._endpoint(f"{parts.scheme}://{parts.netloc}")


def _is_whole(answer: Answer, size: int, offset: int) -> bool:
    length = {200: size, 206: size - offset}.get(answer.status)
    return length is not None and answer.headers.get("Content-Length") == str(length)
