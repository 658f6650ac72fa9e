"""Apache CouchDB: a document per file, the bytes as its attachment, the document's revision as the lock."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable
from itertools import chain
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit

from queued_storage.exceptions import ErrorKind, MismatchError, StorageConfigurationError
from queued_storage.remotes.base import Stat
from queued_storage.remotes.couchdb_names import identifier, quoted, sort_in
from queued_storage.remotes.hiding import Hidden
from queued_storage.remotes.plain_http import Answer, AnswerError, Endpoint
from queued_storage.remotes.streamed import BLOCK, StreamedStorage, Upload, missing, skip, taken
from queued_storage.remotes.streams import Body

ABSENT = {"missing", "deleted", "Document is missing attachment"}


class CouchDBStorage(StreamedStorage):
    """Files in the CouchDB database ``database`` of ``server`` (``http://host:5984``).

    A file's document has the file's name as its id, and the bytes are the attachment ``attachment``. A name that is
    taken is refused by the server itself (409). ``username`` and ``password`` come from the options, from ``server``
    (``https://user:password@host``) or from ``COUCHDB_USER`` and ``COUCHDB_PASSWORD``. ``base_url`` is the public
    address of the database, for ``url()``. Time-outs are in seconds, per connection and per read or write.
    """

    page_size = 1000

    def __init__(
        self,
        server: str,
        database: str,
        username: str | None = None,
        password: str | None = None,
        *,
        attachment: str = "content",
        base_url: str | None = None,
        connect_timeout: float = 5,
        read_timeout: float = 30,
        ca_file: str | None = None,
    ) -> None:
        parts = urlsplit(server)
        server = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        user = username or unquote(parts.username or "") or os.environ.get("COUCHDB_USER", "")
        word = password or unquote(parts.password or "") or os.environ.get("COUCHDB_PASSWORD", "")
        self._endpoint = Endpoint(server, connect_timeout=connect_timeout, read_timeout=read_timeout, ca_file=ca_file)
        self._authorization = Hidden("Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()) if user else ""
        self._database = "/" + quote(database, safe="")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", attachment):
            raise StorageConfigurationError("'attachment' is made of letters, digits, dots, dashes and underscores.")
        self._attachment = attachment
        self._base_url = (base_url or server.rstrip("/") + self._database).rstrip("/")

    def __repr__(self) -> str:
        return f"<CouchDBStorage {self._base_url}>"

    def stat(self, name: str) -> Stat | None:
        """Return size and, unless the server keeps the file compressed, its MD5; ``None`` if there is no attachment."""
        _, stub = self._document(self._checked(name)) or ("", None)
        return None if stub is None else _stat(stub)

    def exists(self, name: str) -> bool:
        """Return whether the name is taken, be it by a document without the attachment."""
        return self._document(self._checked(name)) is not None

    def url(self, name: str | None) -> str:
        """Return the attachment's address, without credentials; no request is made."""
        return f"{self._base_url}/{quoted(self._checked(name or ''))}/{self._attachment}"

    def delete(self, name: str) -> None:
        """Delete the document in the revision that is seen now; one that is not there is no error."""
        name = self._checked(name)
        found = self._document(name)
        if found is not None:
            self._remove(name, found[0])

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of folders and files in ``path``, a page of documents at a time; a folder costs one page."""
        prefix = identifier(path.strip("/")) + "/" if path.strip("/") else ""
        folders: dict[str, None] = {}
        files: list[str] = []
        start: str | None = prefix
        while start is not None:
            start = self._page(prefix, start, folders, files)
        return list(folders), files

    def _upload(self, name: str, upload: Upload) -> None:
        start, end, boundary = self._envelope(name, upload)
        headers = {
            "Content-Type": f"multipart/related; boundary={boundary}",
            "Content-Length": str(len(start) + upload.size + len(end)),
        }
        body = chain([start], upload.blocks(), [end])
        with self._endpoint.request("PUT", self._document_path(name), self._headers(headers), body) as answer:
            if answer.status == 409:
                raise taken(name)
            if answer.status not in {201, 202}:
                raise _error("PUT", answer)
            revision = str(answer.json()["rev"])
        self._verify(name, revision, upload)

    def _envelope(self, name: str, upload: Upload) -> tuple[bytes, bytes, str]:
        # Document and attachment in one request: half of it is nothing, and a deleted document is no obstacle.
        stub = {"follows": True, "content_type": upload.content_type, "length": upload.size}
        if upload.known_md5:
            stub["digest"] = "md5-" + base64.b64encode(bytes.fromhex(upload.known_md5)).decode()
        document = json.dumps({"_id": identifier(name), "_attachments": {self._attachment: stub}})
        boundary = uuid.uuid4().hex
        start = (
            f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{document}\r\n--{boundary}\r\n"
            f'Content-Disposition: attachment; filename="{self._attachment}"\r\n'
            f"Content-Type: {upload.content_type}\r\nContent-Length: {upload.size}\r\n\r\n"
        )
        return start.encode(), f"\r\n--{boundary}--".encode(), boundary

    def _verify(self, name: str, revision: str, upload: Upload) -> None:
        seen, stub = self._document(name) or ("", None)
        if seen != revision or stub is None:
            raise MismatchError("The document changed while it was being verified.")
        stat = _stat(stub)
        # For types that CouchDB compresses its digest is that of the compressed bytes. It has compared a digest that
        # it was given with the bytes themselves; without one they are read back.
        md5 = stat.digests.get("md5") or upload.known_md5 or self._read_md5(name)
        if (stat.size, md5) != (upload.size, upload.md5):
            self._remove(name, revision)
            raise MismatchError(f"The server stored {stat.size} bytes that are not the {upload.size} bytes sent.")

    def _read_md5(self, name: str) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        with self._body(name) as answer:
            while block := answer.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def _fetch(self, name: str) -> tuple[Stat, Body, Callable[[int], Body]]:
        revision, stub = self._document(name) or ("", None)
        if stub is None:
            raise missing(name)
        return _stat(stub), self._body(name, 0, revision), lambda offset: self._body(name, offset, revision)

    def _body(self, name: str, offset: int = 0, revision: str = "") -> Answer:
        headers = self._headers({"Range": f"bytes={offset}-"} if offset else {})
        path = f"{self._document_path(name)}/{self._attachment}" + (revision and "?" + urlencode({"rev": revision}))
        answer = self._endpoint.request("GET", path, headers)
        if answer.status not in {200, 206} or "Content-Encoding" in answer.headers:
            with answer:
                raise missing(name) if _is_absent(answer) else _error("GET", answer)
        skip(answer, offset if answer.status == 200 else 0)
        return answer

    def _document(self, name: str) -> tuple[str, dict[str, Any] | None] | None:
        """Return a document's revision and its attachment's stub, ``None`` if the server says that it is not there."""
        path = f"{self._document_path(name)}?att_encoding_info=true"
        with self._endpoint.request("GET", path, self._headers()) as answer:
            if answer.status == 200:
                document = answer.json()
                return document["_rev"], document.get("_attachments", {}).get(self._attachment)
            if _is_absent(answer):
                return None
            raise _error("GET", answer)

    def _remove(self, name: str, revision: str) -> None:
        path = f"{self._document_path(name)}?{urlencode({'rev': revision})}"
        with self._endpoint.request("DELETE", path, self._headers()) as answer:
            if answer.status not in {200, 202} and not _is_absent(answer):
                raise _error("DELETE", answer)

    def _page(self, prefix: str, start: str, folders: dict[str, None], files: list[str]) -> str | None:
        """Add one page of the listing; return the id with which the next one starts."""
        query = {"limit": self.page_size + 1, "startkey": json.dumps(start), "inclusive_end": "false"}
        if prefix:
            query["endkey"] = json.dumps(prefix[:-1] + "0")
        path = f"{self._database}/_all_docs?{urlencode(query)}"
        with self._endpoint.request("GET", path, self._headers()) as answer:
            if answer.status != 200:
                raise _error("GET", answer)
            found = [str(row["id"]) for row in answer.json()["rows"]]
        for each in found[: self.page_size]:
            sort_in(each, prefix, folders, files)
        if len(found) <= self.page_size:
            return None
        folder, slash, _ = found[-1][len(prefix) :].partition("/")
        if not slash:
            return found[-1]
        # "0" follows "/": with it the rest of a folder that has been named is stepped over.
        sort_in(found[-1], prefix, folders, files)
        return f"{prefix}{folder}0"

    def _headers(self, headers: dict[str, str] | None = None) -> dict[str, str]:
        return {**(headers or {}), **({"Authorization": self._authorization} if self._authorization else {})}

    def _document_path(self, name: str) -> str:
        return f"{self._database}/{quoted(name)}"


def _stat(stub: dict[str, Any]) -> Stat:
    algorithm, _, digest = str(stub.get("digest", "")).partition("-")
    if algorithm != "md5" or "encoding" in stub:
        return Stat(int(stub["length"]))
    return Stat(int(stub["length"]), {"md5": base64.b64decode(digest).hex()})


def _is_absent(answer: Answer) -> bool:
    """Tell a missing document from a missing database, a proxy's error page and everything else."""
    if answer.status != 404:
        return False
    body = answer.json()
    if isinstance(body, dict) and body.get("reason") in ABSENT:
        return True
    raise AnswerError("The database does not exist on the server.", ErrorKind.DENIED, answer.status)


def _error(doing: str, answer: Answer) -> AnswerError:
    try:
        body = answer.json(4096)
    except (AnswerError, OSError):
        return answer.error(doing)
    told = body if isinstance(body, dict) else {}
    error = answer.error(doing, ascii(told.get("reason", ""))[:200])
    if told.get("error") == "content_md5_mismatch":
        error.kind = ErrorKind.MISMATCH
    return error
