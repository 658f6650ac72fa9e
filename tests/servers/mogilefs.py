"""A MogileFS of our own, since no package of the real one exists: trackers and storage nodes with switchable faults.

It follows the published protocol of MogileFS 2.x: one line ``command key=value&...``, one line ``OK ...`` or
``ERR code text`` back, values URL-encoded; bytes go to and come from storage nodes over HTTP.
"""

from __future__ import annotations

import hashlib
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from .processes import free_port
from .roots import fresh

BLOCK = 1 << 18
FAULT_STATUS = {"refuse": 500, "forbid": 403, "full": 507}


class TrackerRefusal(Exception):
    """What a tracker answers with ``ERR``."""


@dataclass
class Stored:
    """One row of the file table."""

    fid: int
    length: int
    checksum: str
    paths: list[str]


@dataclass
class Node:
    """A storage node; ``fault`` is one of ``refuse``, ``forbid``, ``cut``, ``flip``, ``full``, ``hang up`` or empty."""

    folder: Path
    fault: str = ""
    requests: list[str] = field(default_factory=list)
    port: int = 0

    def url(self, fid: int) -> str:
        """Return the address of a file, in the layout of MogileFS."""
        return f"http://127.0.0.1:{self.port}/dev1/0/000/{fid // 1000:03}/{fid:010}.fid"

    def file(self, url: str) -> Path:
        """Return where the bytes of an address lie."""
        return self.folder / url.rpartition("/")[2]


class Cluster:
    """Two trackers over one database, and two nodes; ``commands`` holds what the trackers were asked."""

    domains = ("files",)

    def __init__(self, folder: Path) -> None:
        self.nodes = [Node(folder / name) for name in ("node1", "node2")]
        self.trackers: list[str] = []
        self.mute_trackers: set[int] = set()
        self.commands: list[str] = []
        self.keeps_checksums = True
        self.classes: list[str] = []
        self.closed_keys: list[str] = []
        self.raw_answer: bytes | None = None
        self.dead_paths = 0
        self.lock = threading.RLock()
        self.files: dict[str, Stored] = {}
        self.open_fids: dict[int, list[str]] = {}
        self.last_fid = 0
        self.dead_port = free_port()

    def heal(self) -> None:
        """Switch all faults off and forget what was asked."""
        self.mute_trackers.clear()
        self.commands.clear()
        self.keeps_checksums, self.dead_paths, self.raw_answer = True, 0, None
        for node in self.nodes:
            node.fault = ""
            node.requests.clear()

    def answer(self, line: str) -> str:
        """Carry out one command and return the tracker's line."""
        command, _, rest = line.partition(" ")
        arguments = dict(parse_qsl(rest, keep_blank_values=True))
        method: Callable[[dict[str, str]], dict[str, object]] | None = getattr(self, f"do_{command}", None)
        self.commands.append(command)
        try:
            if method is None:
                raise TrackerRefusal("unknown_command")
            if arguments.get("domain") not in self.domains:
                raise TrackerRefusal("unreg_domain")
            with self.lock:
                return f"OK {urlencode(method(arguments))}"
        except TrackerRefusal as refusal:
            return f"ERR {refusal} {str(refusal).replace('_', '+')}"

    def row(self, key: str) -> Stored:
        """Return the row of a key."""
        if not key:
            raise TrackerRefusal("no_key")
        if key not in self.files:
            raise TrackerRefusal("unknown_key")
        return self.files[key]

    def dead(self, fid: int) -> list[str]:
        """Return the paths that lead nowhere, as many as are wanted."""
        return [f"http://127.0.0.1:{self.dead_port}/dev9/0/000/000/{fid:010}.fid"] * self.dead_paths

    def do_create_open(self, arguments: dict[str, str]) -> dict[str, object]:
        """Hand out a new fid and where to put its bytes."""
        self.last_fid += 1
        self.classes.append(arguments.get("class", ""))
        urls = self.dead(self.last_fid) + [node.url(self.last_fid) for node in self.nodes]
        self.open_fids[self.last_fid] = urls
        answer: dict[str, object] = {"fid": self.last_fid, "dev_count": len(urls)}
        for number, url in enumerate(urls, 1):
            answer |= {f"devid_{number}": number, f"path_{number}": url}
        return answer

    def do_create_close(self, arguments: dict[str, str]) -> dict[str, object]:
        """Make an upload a file, after a look at its size and checksum; replaces the key, as MogileFS does."""
        urls = self.open_fids.pop(int(arguments["fid"]), None)
        if urls is None:
            raise TrackerRefusal("no_temp_file")
        url = arguments["path"]
        if urls[int(arguments["devid"]) - 1] != url:
            raise TrackerRefusal("bogus_args")
        file = self.holder(url).file(url)
        if not file.exists():
            raise TrackerRefusal("size_verify_error")
        size = file.stat().st_size
        if int(arguments["size"] or 0) and int(arguments["size"]) != size:
            raise TrackerRefusal("size_mismatch")
        checksum = arguments.get("checksum", "")
        if checksum and arguments.get("checksumverify") and checksum != _md5(file):
            raise TrackerRefusal("checksum_mismatch")
        self.closed_keys.append(arguments["key"])
        self.files[arguments["key"]] = Stored(int(arguments["fid"]), size, checksum, [url])
        return {}

    def holder(self, url: str) -> Node:
        """Return the node of an address."""
        return next(node for node in self.nodes if f":{node.port}/" in url)

    def do_file_info(self, arguments: dict[str, str]) -> dict[str, object]:
        """Tell size and checksum."""
        row = self.row(arguments["key"])
        answer: dict[str, object] = {"fid": row.fid, "key": arguments["key"], "length": row.length, "devcount": 1}
        return answer | ({"checksum": row.checksum or "MISSING"} if self.keeps_checksums else {})

    def do_get_paths(self, arguments: dict[str, str]) -> dict[str, object]:
        """Tell where the bytes are."""
        row = self.row(arguments["key"])
        urls = self.dead(row.fid) + row.paths
        return {"paths": len(urls), **{f"path{number}": url for number, url in enumerate(urls, 1)}}

    def do_rename(self, arguments: dict[str, str]) -> dict[str, object]:
        """Move a key, never onto another one."""
        row = self.row(arguments["from_key"])
        if arguments["to_key"] in self.files:
            raise TrackerRefusal("key_exists")
        del self.files[arguments["from_key"]]
        self.files[arguments["to_key"]] = row
        return {}

    def do_delete(self, arguments: dict[str, str]) -> dict[str, object]:
        """Forget a key and its bytes."""
        for url in self.row(arguments["key"]).paths:
            self.holder(url).file(url).unlink(missing_ok=True)
        del self.files[arguments["key"]]
        return {}

    def do_list_keys(self, arguments: dict[str, str]) -> dict[str, object]:
        """List keys after one, in the order of their bytes; pattern characters are refused, as MogileFS does."""
        prefix, after = arguments.get("prefix", ""), arguments.get("after", "")
        if "%" in prefix or "\\" in prefix:
            raise TrackerRefusal("invalid_chars")
        limit = min(int(arguments.get("limit") or 1000), 1000)
        keys = sorted((key for key in self.files if key.startswith(prefix)), key=str.encode)
        keys = [key for key in keys if key.encode() > after.encode()][:limit]
        if not keys:
            raise TrackerRefusal("none_match")
        named = {f"key_{number}": key for number, key in enumerate(keys, 1)}
        return {"key_count": len(keys), "next_after": keys[-1], **named}


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.md5(usedforsecurity=False)
        while block := stream.read(BLOCK):
            digest.update(block)
    return f"MD5:{digest.hexdigest()}"


def _tracker(cluster: Cluster, number: int) -> socketserver.ThreadingTCPServer:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                if number in cluster.mute_trackers:
                    return
                answer = cluster.answer(line.decode("ascii").strip()).encode("ascii") + b"\r\n"
                self.wfile.write(answer if cluster.raw_answer is None else cluster.raw_answer)
                if cluster.raw_answer is not None:
                    return

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 50

    return Server(("127.0.0.1", 0), Handler)


def _node(node: Node) -> ThreadingHTTPServer:
    class Handler(_NodeHandler):
        owner = node

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server


class _NodeHandler(BaseHTTPRequestHandler):
    owner: Node
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Stay silent."""

    def do_PUT(self) -> None:
        """Store the body; nothing is stored of one that breaks off."""
        self.owner.requests.append("PUT")
        if self.owner.fault == "hang up":
            self.close_connection = True
            return
        if self.owner.fault in FAULT_STATUS:
            self.close_connection = True
            self.respond(FAULT_STATUS[self.owner.fault], 0)
            return
        left, final = int(self.headers["Content-Length"]), self.owner.file(self.path)
        partial = final.with_suffix(".part")
        with partial.open("wb") as stream:
            while left and (block := self.rfile.read(min(BLOCK, left))):
                left -= len(block)
                stream.write(self.damaged(block))
        if left:
            partial.unlink()
            self.close_connection = True
            return
        partial.rename(final)
        self.respond(201, 0)

    def damaged(self, block: bytes) -> bytes:
        """Return what a faulty disk keeps of a block."""
        if self.owner.fault == "flip":
            return bytes([block[0] ^ 1]) + block[1:]
        return block[:-1] if self.owner.fault == "cut" else block

    def do_GET(self) -> None:
        """Send the file, or a range of it."""
        self.owner.requests.append("GET")
        file = self.owner.file(self.path)
        if self.owner.fault or not file.exists():
            self.close_connection = self.owner.fault == "hang up"
            if not self.close_connection:
                self.respond(FAULT_STATUS.get(self.owner.fault, 500) if self.owner.fault else 404, 0)
            return
        size, wanted = file.stat().st_size, self.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.respond(206 if wanted else 200, size - start)
        with file.open("rb") as stream:
            stream.seek(start)
            while block := stream.read(BLOCK):
                self.wfile.write(block)

    def respond(self, status: int, length: int) -> None:
        """Send the headers."""
        self.send_response_only(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()


@contextmanager
def server() -> Iterator[Cluster]:
    """Run the cluster in threads and yield it."""
    cluster = Cluster(fresh("mogilefs"))
    with ExitStack() as stack:
        for node in cluster.nodes:
            node.folder.mkdir()
            node.port = _run(stack, _node(node))
        for number in range(2):
            port = _run(stack, _tracker(cluster, number))
            cluster.trackers.append(f"127.0.0.1:{port}")
        yield cluster


def _run(stack: ExitStack, running: socketserver.TCPServer) -> int:
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(running.server_close)
    stack.callback(running.shutdown)
    return int(running.server_address[1])
