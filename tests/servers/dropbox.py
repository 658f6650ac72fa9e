"""A stand-in for Dropbox: the part of its published HTTP API that a storage needs, with its digests and conflicts."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from .processes import Unavailable
from .roots import fresh

TOKEN = "dropbox-t0ken"
REFRESH_TOKEN = "dropbox-refresh-t0ken"
APP_SECRET = "dropbox-app-s3cret"
BLOCK = 4 * 1024 * 1024
PAGE = 500


class Refusal(Exception):
    """An answer with an error: its status, and the tags from the outside to the inside."""

    def __init__(self, *tags: str, status: int = 409) -> None:
        super().__init__("/".join(tags))
        self.status = status
        self.tags = tags

    def body(self) -> dict[str, Any]:
        """Return the answer as Dropbox would write it."""
        error: dict[str, Any] = {".tag": self.tags[-1]}
        for outer in reversed(self.tags[:-1]):
            # Dropbox flattens the reason of a failed upload into its union.
            inner = {"reason": error, "upload_session_id": "x"} if outer == "path!" else {outer: error}
            error = {".tag": outer.strip("!"), **inner}
        return {"error_summary": "/".join(self.tags) + "/", "error": error}


class Dropbox:
    """The files of one account, kept in a folder of this machine; names differ by more than case."""

    def __init__(self) -> None:
        self.folder = fresh("dropbox")
        self.entries: dict[str, dict[str, Any]] = {}
        self.sessions: dict[str, Path] = {}
        self.lock = threading.RLock()
        self.quota: int | None = None
        self.port = 0

    def options(self, port: int = 0, **more: Any) -> dict[str, Any]:
        """Return the options of our ``DropboxStorage`` on this server, or on ``port``."""
        return {"oauth2_access_token": TOKEN, "server": f"http://127.0.0.1:{port or self.port}", **more}

    # What the routes do; each gets the argument and the body

    def upload(self, argument: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Create a file in one request."""
        return self._commit(argument, self._stored(body, argument), reason="path!")

    def upload_session_start(self, argument: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Open a session."""
        session = uuid.uuid4().hex
        self.sessions[session] = self._stored(body, argument)
        return {"session_id": session}

    def upload_session_append_v2(self, argument: dict[str, Any], body: bytes) -> None:
        """Add bytes to a session."""
        part = self._session(argument["cursor"])
        _check_hash(body, argument)
        with part.open("ab") as file:
            file.write(body)

    def upload_session_finish(self, argument: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Add the last bytes and make the file visible."""
        self.upload_session_append_v2(argument, body)
        part = self.sessions.pop(argument["cursor"]["session_id"])
        return self._commit(argument["commit"], part, reason="path")

    def get_metadata(self, argument: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Say what lies under a path."""
        return self._public(self._find(argument["path"], "path"))

    def delete_v2(self, argument: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Delete a file, or a folder with all in it."""
        found = self._find(argument["path"], "path_lookup")
        if argument.get("parent_rev") not in (None, found.get("rev")):
            raise Refusal("path_write", "conflict", "file")
        lower = found["path_lower"]
        for path in [path for path in self.entries if path == lower or path.startswith(f"{lower}/")]:
            del self.entries[path]
        return {"metadata": self._public(found)}

    def create_folder_v2(self, argument: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Make a folder and those around it."""
        if argument["path"].lower() in self.entries:
            raise Refusal("path", "conflict", "folder")
        self._make_folders(f"{argument['path']}/x", "path")
        metadata = self._public(self.entries[argument["path"].lower()])
        return {"metadata": {key: value for key, value in metadata.items() if key != ".tag"}}

    def list_folder(self, argument: dict[str, Any], body: bytes) -> dict[str, Any]:
        """List a folder, a page at a time."""
        if argument["path"]:
            self._find(argument["path"], "path")
        return self.list_folder_continue({"cursor": f"0:{argument['path'].lower()}"}, body)

    def list_folder_continue(self, argument: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Give the next page."""
        start, _, parent = argument["cursor"].partition(":")
        inside = [entry for path, entry in sorted(self.entries.items()) if path.rpartition("/")[0] == parent]
        end = int(start) + PAGE
        page = [self._public(entry) for entry in inside[int(start) : end]]
        return {"entries": page, "cursor": f"{end}:{parent}", "has_more": end < len(inside)}

    def get_temporary_link(self, argument: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Give an address without credentials."""
        found = self.file(argument)
        link = f"http://127.0.0.1:{self.port}/link/{found['content'].name}"
        return {"metadata": self._public(found, tagged=False), "link": link}

    def file(self, argument: dict[str, Any]) -> dict[str, Any]:
        """Return the file that a path or a revision names."""
        path = argument["path"]
        if path.startswith("rev:"):
            found = next((each for each in self.entries.values() if each.get("rev") == path[4:]), None)
        else:
            found = self._find(path, "path")
        if found is None:
            raise Refusal("path", "not_found")
        if "content" not in found:
            raise Refusal("path", "not_file")
        return found

    # What they need

    def _stored(self, body: bytes, argument: dict[str, Any]) -> Path:
        _check_hash(body, argument)
        part = self.folder / uuid.uuid4().hex
        part.write_bytes(body)
        return part

    def _session(self, cursor: dict[str, Any]) -> Path:
        part = self.sessions.get(cursor["session_id"])
        if part is None:
            raise Refusal("not_found")
        if part.stat().st_size != cursor["offset"]:
            raise Refusal("closed")
        return part

    def _commit(self, commit: dict[str, Any], part: Path, reason: str) -> dict[str, Any]:
        path, size = commit["path"], part.stat().st_size
        if self.quota is not None and size > self.quota:
            raise Refusal(reason, "insufficient_space")
        if any(name in {".", ".."} or len(name) > 255 for name in path.split("/")):
            raise Refusal(reason, "malformed_path")
        assert commit["mode"] in ("add", {".tag": "add"}), "nothing else is wanted of this server"
        with self.lock:
            if (old := self.entries.get(path.lower())) is not None:
                raise Refusal(reason, "conflict", "file" if "content" in old else "folder")
            self._make_folders(path, reason)
            now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            entry = {"path_lower": path.lower(), "path_display": path, "name": path.rpartition("/")[2], "content": part}
            entry |= {"rev": uuid.uuid4().hex[:16], "size": size, "content_hash": content_hash_of(part)}
            entry |= {"client_modified": now, "server_modified": now}
            self.entries[path.lower()] = entry
        return self._public(entry, tagged=False)

    def _make_folders(self, path: str, reason: str) -> None:
        steps = path.split("/")
        for depth in range(2, len(steps)):
            place = "/".join(steps[:depth])
            folder = {"path_lower": place.lower(), "path_display": place, "name": steps[depth - 1]}
            if "content" in self.entries.setdefault(place.lower(), folder):
                raise Refusal(reason, "conflict", "file_ancestor")

    def _find(self, path: str, outer: str) -> dict[str, Any]:
        if not path.startswith("/") or path.endswith("/"):
            raise Refusal(outer, "malformed_path")
        if (found := self.entries.get(path.lower())) is None:
            raise Refusal(outer, "not_found")
        return found

    def _public(self, entry: dict[str, Any], *, tagged: bool = True) -> dict[str, Any]:
        shown = {key: value for key, value in entry.items() if key != "content"}
        tag = {".tag": "file" if "content" in entry else "folder"} if tagged else {}
        return {**tag, "id": f"id:{entry['path_lower']}", **shown}


def content_hash_of(path: Path) -> str:
    """Return Dropbox's digest of a file."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            whole.update(hashlib.sha256(block).digest())
    return whole.hexdigest()


def _check_hash(body: bytes, argument: dict[str, Any]) -> None:
    blocks = [body[start : start + BLOCK] for start in range(0, len(body), BLOCK)]
    digest = hashlib.sha256(b"".join(hashlib.sha256(block).digest() for block in blocks)).hexdigest()
    if argument.get("content_hash") not in (None, digest):
        raise Refusal("content_hash_mismatch")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Dropbox

    def log_message(self, *args: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        content = self.owner.folder / self.path.rpartition("/")[2]
        self._bytes(content, {"Content-Type": "application/octet-stream"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/oauth2/token":
            return self._token(parse_qs(body.decode()))
        route = self.path.removeprefix("/2/files/").replace("/", "_")
        try:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refusal("invalid_access_token", status=401)
            if route == "download":
                return self._download()
            argument = json.loads(self.headers.get("Dropbox-API-Arg") or body or b"null")
            call: Callable[[dict[str, Any], bytes], Any] = getattr(self.owner, route)
            return self._json(200, call(argument, body))
        except Refusal as refusal:
            return self._json(refusal.status, refusal.body())

    def _token(self, form: dict[str, list[str]]) -> None:
        if form.get("refresh_token") == [REFRESH_TOKEN] and form.get("client_secret") == [APP_SECRET]:
            self._json(200, {"access_token": TOKEN, "expires_in": 14400, "token_type": "bearer"})
        else:
            self._json(400, {"error": "invalid_grant", "error_description": "refresh token is invalid or revoked"})

    def _download(self) -> None:
        found = self.owner.file(json.loads(self.headers["Dropbox-API-Arg"]))
        shown = json.dumps(self.owner._public(found, tagged=False))
        self._bytes(found["content"], {"Dropbox-API-Result": shown, "Content-Type": "application/octet-stream"})

    def _json(self, status: int, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _bytes(self, content: Path, headers: dict[str, str]) -> None:
        size = content.stat().st_size
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        for name, value in {**headers, "Content-Length": str(size - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        with content.open("rb") as file:
            file.seek(start)
            while block := file.read(1 << 16):
                try:
                    self.wfile.write(block)
                except OSError:
                    self.close_connection = True
                    return


@contextmanager
def server() -> Iterator[Dropbox]:
    """Run the stand-in in this process and yield it."""
    if importlib.util.find_spec("dropbox") is None:
        raise Unavailable("no dropbox: `pip install dropbox`")
    account = Dropbox()

    class Handler(_Handler):
        owner = account

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    account.port = int(listener.server_address[1])
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield account
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
