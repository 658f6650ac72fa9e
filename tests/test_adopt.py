"""``queued_storage_adopt``: what was there before comes into the ledger, exactly once, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sys
import uuid
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import connection
from django.utils import timezone

from queued_storage import adopting, ledger, removal
from queued_storage.models import State
from queued_storage.names import generation_name
from queued_storage.walking import walk
from tests.conftest import Media
from tests.fixtures import MakePair, Pair, committing, facts, finish, moved, put, read, record_of, saved
from tests.servers import databases
from tests.servers.processes import Process, wait_until
from tests.servers.roots import fresh
from tests.servers.s3 import S3Server
from tests.test_commands import Ran, manage, rows, states

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db
LOCAL = ("--from", "local", "--storage", "default", "--older-than", "0")
REMOTE = ("--from", "remote", "--storage", "default", "--older-than", "0")


def report(
    adopted: int = 0,
    size: int = 0,
    known: int = 0,
    young: int = 0,
    both: int = 0,
    refused: int = 0,
    unknown: int = 0,
    word: str = "adopted",
) -> str:
    """Return what ``adopt`` prints."""
    counts = {word: adopted, "bytes": size, "known": known, "young": young, "both": both}
    counts |= {"refused": refused, "unknown": unknown}
    width = max(map(len, counts)) + 1
    return "".join(f"{name + ':':<{width}} {count}\n" for name, count in counts.items())


def lay(folder: str | Path, **files: bytes) -> None:
    """Put files into a folder, past every storage."""
    for name, content in files.items():
        path = Path(folder, name.replace("__", "/") + ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# From the local side


def test_adopt_what_lies_locally(pair: Pair) -> None:
    """Files become queued records with their sizes, are measured when they are transferred, and arrive."""
    lay(pair.local.location, a=b"aa", b__c=b"ccc")
    before = rows()
    assert manage("adopt", *LOCAL, "--dry-run") == Ran(0, report(2, 5, word="would adopt"), "")
    assert manage("adopt", *LOCAL, "--dry-run", "--json").json["would_adopt"] == 2
    assert rows() == before
    assert manage("adopt", *LOCAL) == Ran(0, report(2, 5), "")
    due = timedelta(0)
    assert facts(record_of(pair, "b/c.txt")) == saved("b/c.txt", b"ccc", digest="", due=due)
    assert record_of(pair, "b/c.txt").created_at - timezone.now() < timedelta(minutes=1)
    assert manage("adopt", *LOCAL, "--json").json == {
        "adopted": 0,
        "bytes": 0,
        "known": 2,
        "young": 0,
        "both": 0,
        "refused": 0,
        "unknown": 0,
    }
    assert manage("run").code == 0
    assert facts(record_of(pair, "b/c.txt"), b"ccc") == moved("b/c.txt", b"ccc")
    assert read(pair, "a.txt") == b"aa"


def test_adopt_held(pair: Pair) -> None:
    """Held files wait for their release."""
    lay(pair.local.location, a=b"aa")
    assert manage("adopt", *LOCAL, "--held").code == 0
    assert facts(record_of(pair, "a.txt")) == saved("a.txt", b"aa", digest="", state="delayed", due=None)


def test_what_belongs_to_a_record_is_left(make_pair: MakePair) -> None:
    """No place of a record is adopted: of a former generation, under another name, nor of a deleted file."""
    pair = make_pair(overwrite=True)
    for content in (b"one", b"two", b"three"):
        put(pair, "a.txt", content)
    put(pair, "deleted.txt")
    pair.delete("deleted.txt")
    moved_away = put(pair, "b.txt")
    Path(pair.local.path("b.txt")).rename(pair.local.path("elsewhere.txt"))
    ledger.records().filter(pk=moved_away.pk).update(local_name="elsewhere.txt")
    # Of a save that is under way: its bytes lie there, its record is not committed.
    lay(pair.local.location, new=b"new")
    Path(pair.local.path(generation_name("a.txt", 9))).write_bytes(b"soon")
    before = rows()
    ran = manage("adopt", *LOCAL)
    assert ran == Ran(0, report(1, 3, known=6), "")
    assert [row for row in rows() if row["name"] != "new.txt"] == before


def test_young_files_wait(pair: Pair) -> None:
    """What was touched in the last ten minutes may belong to a save that is not complete."""
    lay(pair.local.location, old=b"old", young=b"young")
    assert manage("adopt", "--from", "local", "--storage", "default") == Ran(0, report(young=2), "")
    # Only a link or a move into its place shows in ctime, and nobody can set that back.
    os.utime(pair.local.path("old.txt"), (0, 0))
    assert manage("adopt", "--from", "local", "--storage", "default") == Ran(0, report(young=2), "")
    assert manage("adopt", *LOCAL).out == report(2, 8)


def test_hostile_places(pair: Pair) -> None:
    """Links, pipes, staging and names that are refused stay outside, and the latter are named."""
    location = Path(pair.local.location)
    lay(location, good=b"x")
    lay(location / ".queued_storage" / "staging", half=b"x")
    (location / "link.txt").symlink_to("good.txt")
    (location / "loop").symlink_to(location)
    os.mkfifo(location / "pipe")
    (location / "new\nline").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(location) + b"/\xff.txt")).write_bytes(b"x")
    (location / "a\\b").write_bytes(b"x")
    ran = manage("adopt", *LOCAL)
    assert (ran.code, ran.out) == (1, report(1, 1, refused=3))
    assert sorted(ran.err.splitlines()) == [
        "default: \\udcff.txt: refused: Refused the file name '\\\\udcff.txt': it contains U+DCFF.",
        "default: a\\\\b: refused: it has another spelling, which is another file",
        "default: new\\nline: refused: Refused the file name 'new\\\\nline': it contains U+000A.",
    ]
    assert states() == {"good.txt": "queued"}


def test_a_part_of_the_files(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--prefix`` and ``--limit`` choose; batches of any size give the same."""
    monkeypatch.setattr(adopting, "BATCH", 2)
    lay(pair.local.location, **{f"{folder}__{number}": b"x" for folder in "ab" for number in range(5)}, abc=b"x")
    assert manage("adopt", *LOCAL, "--prefix", "a/", "--limit", "3").out.startswith("adopted: 3\n")
    assert manage("adopt", *LOCAL, "--prefix", "a/").out == report(2, 2, known=3)
    assert manage("adopt", *LOCAL, "--prefix", "ab").out == report(1, 1)
    assert manage("adopt", *LOCAL, "--prefix", "no/such").out == report()
    assert manage("adopt", *LOCAL, "--rate", "100000", "--no-progress").out == report(5, 5, known=6)


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b/2", "a/b/", "x", "abc.txt"])
def test_every_walk_finds_the_same(pair: Pair, prefix: str) -> None:
    """A folder, and any storage that can list directories, are walked alike."""
    for side in (pair.local, pair.remote):
        lay(side.location, a__b__1=b"1", a__b__2=b"22", a__3=b"333", abc=b"4444")
    names = {"a/b/1.txt": 1, "a/b/2.txt": 2, "a/3.txt": 3, "abc.txt": 4}
    wanted = {name: size for name, size in names.items() if name.startswith(prefix)}
    assert {entry.name: entry.size for entry in walk(pair.local, prefix)} == wanted
    assert sorted(entry.name for entry in walk(pair.remote, prefix)) == sorted(wanted)


def test_of_which_storage() -> None:
    """Nobody is to adopt into the wrong storage by leaving something out."""
    assert manage("adopt", "--from", "local") == Ran(2, "", "Say of which storage: --storage.")


def test_adopt_is_interrupted(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends in 130, keeps the batches that are complete, and a second run goes on."""
    monkeypatch.setattr(adopting, "BATCH", 2)
    lay(pair.local.location, **{str(number): b"x" for number in range(6)})
    insert, calls = ledger.insert_many, []

    def interrupt(new: Any, moment: Any) -> Any:
        calls.append(new)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return insert(new, moment)

    monkeypatch.setattr(ledger, "insert_many", interrupt)
    assert manage("adopt", *LOCAL) == Ran(130, report(2, 2), "")
    assert manage("adopt", *LOCAL) == Ran(0, report(4, 4, known=2), "")


# From the remote


def test_adopt_what_lies_remotely(pair: Pair) -> None:
    """Objects become transferred records; they are read, verified and removed like any other."""
    lay(pair.remote.location, a=b"aa", b__c=b"ccc")
    assert manage("adopt", *REMOTE, "--dry-run").out == report(2, 5, word="would adopt")
    assert manage("adopt", *REMOTE) == Ran(0, report(2, 5), "")
    wanted = moved("b/c.txt", b"ccc", digest="", retries=0, local_copy=False)
    assert facts(record_of(pair, "b/c.txt")) == wanted
    assert manage("adopt", *REMOTE) == Ran(0, report(known=2), "")
    assert read(pair, "b/c.txt") == b"ccc"
    assert manage("verify").code == 0
    assert manage("restore").code == 0
    assert read(pair.local, "a.txt") == b"aa"
    assert manage("evict", "--all").code == 0
    pair.delete("a.txt")
    finish()
    assert not pair.remote.exists("a.txt")


def test_adopt_deep(pair: Pair) -> None:
    """Read, objects are known by the digest of their bytes."""
    lay(pair.remote.location, a=b"aa")
    assert manage("adopt", *REMOTE, "--deep").out == report(1, 2)
    assert facts(record_of(pair, "a.txt"), b"aa") == moved("a.txt", b"aa", retries=0, local_copy=False)


def test_a_digest_that_the_remote_vouches_for(make_pair: MakePair) -> None:
    """It is kept, and every later comparison uses it."""
    from queued_storage.testing import store

    options = {"location": None, "base_url": "x:", "name": "adopt", "digests": ["md5"]}
    pair = make_pair(remote="queued_storage.testing.FaultyRemoteStorage", remote_options=options)
    bucket = store("adopt")
    bucket.clear()
    bucket.objects["a.txt"] = b"aa"
    assert manage("adopt", *REMOTE).out == report(1, 2)
    assert record_of(pair, "a.txt").digest == "md5:4124bc0a9335c27f086f24ba207a4912"
    assert manage("restore").code == 0
    bucket.objects["a.txt"] = b"bb"
    assert manage("verify").out.startswith("verified: 0\nrequeued: 1\n")
    assert manage("run").code == 0
    assert read(pair, "a.txt") == b"aa"
    record = record_of(pair, "a.txt")
    Path(pair.local.path("a.txt")).write_bytes(b"cc")
    # Other bytes of the same size are neither served nor removed as if they were the file's.
    assert removal._copy(record, pair).local_is_ours() is False
    bucket.clear()


def test_what_lies_on_both_sides(pair: Pair) -> None:
    """It is adopted from the local side: the transfer finds that the bytes are there, or that they are others."""
    for side in (pair.local, pair.remote):
        lay(side.location, same=b"same")
    lay(pair.local.location, other=b"mine")
    lay(pair.remote.location, other=b"theirs")
    ran = manage("adopt", *REMOTE)
    reason = "it lies on both sides: adopt it --from local, which compares them"
    assert (ran.code, ran.out) == (1, report(both=2))
    assert sorted(ran.err.splitlines()) == [f"default: {name}.txt: both: {reason}" for name in ("other", "same")]
    assert manage("adopt", *LOCAL).out == report(2, 8)
    pair.remote.forget()
    assert manage("run").code == 0
    assert pair.remote.counted["save"] == 1
    assert record_of(pair, "same.txt").remote_name == "same.txt"
    assert read(pair, "other.txt") == b"mine"
    assert Path(pair.remote.path("other.txt")).read_bytes() == b"theirs"


def test_an_object_without_an_answer(pair: Pair) -> None:
    """What cannot be asked is left for another run, and the others are adopted."""
    lay(pair.remote.location, a=b"a", b=b"b")

    def denied(name: str) -> None:
        if name == "a.txt":
            raise PermissionError("403")

    pair.remote.faults["size"] = denied
    assert manage("adopt", *REMOTE) == Ran(
        1, report(1, 1, unknown=1), "default: a.txt: unknown: PermissionError: 403\n"
    )


def test_adopt_a_bucket(media: Media, settings: Any, s3_server: S3Server) -> None:
    """A bucket is listed a thousand objects at a time; nobody is asked for each."""
    pytest.importorskip("storages.backends.s3", reason="needs the extra s3")
    options = s3_server.options(s3_server.create_bucket(f"b{uuid.uuid4().hex}"), location="media/files")
    configured = deepcopy(settings.STORAGES)
    configured["default"]["OPTIONS"] |= {"remote": "queued_storage.remotes.s3.S3Storage", "remote_options": options}
    settings.STORAGES = configured
    pair = storages["default"]
    client = pair.remote.connection.meta.client
    for key in ("media/files/a.txt", "media/files/b/c.txt", "media/other.txt", "media/files/folder/"):
        client.put_object(Bucket=pair.remote.bucket_name, Key=key, Body=b"12345")
    requests: list[str] = []
    client.meta.events.register("before-call.s3", lambda model, **kwargs: requests.append(model.name))
    assert manage("adopt", "--from", "remote", "--storage", "default") == Ran(0, report(young=2), "")
    assert manage("adopt", *REMOTE, "--prefix", "b/").out == report(1, 5)
    assert manage("adopt", *REMOTE).out == report(1, 5, known=1)
    assert requests == ["ListObjectsV2"] * 3
    assert sorted(states()) == ["a.txt", "b/c.txt"]
    assert manage("verify", "--deep").code == 0


# Killed


@committing
def test_killed_in_the_middle(pair: Pair) -> None:
    """A run that is killed leaves whole batches, and the next one makes the result exact: each file once."""
    folders, each = 20, 150
    for folder in range(folders):
        lay(pair.local.location, **{f"{folder}__{number}": b"" for number in range(each)})
    # A file saved by the application is known and stays as it is.
    own = put(pair, "own.txt", b"own")
    command = [sys.executable, "-m", "django", "queued_storage_adopt", *LOCAL, "--rate", "1500"]
    environment = {
        "TEST_DATABASE": databases.url_of(connection.settings_dict),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "TEST_SETTINGS": json.dumps({"STORAGES": django_settings.STORAGES}),
    }
    root = Path(__file__).parents[1]
    process = Process(command, name="adopt", log=fresh("adopt") / "log", env=environment, cwd=root)
    try:
        wait_until(lambda: ledger.records().count() > adopting.BATCH, bound=60, what="a batch")
        process.send(signal.SIGKILL)
        process.popen.wait(timeout=10)
    finally:
        process.kill()
    count = ledger.records().count() - 1
    assert 0 < count < folders * each, "the kill came too late to test anything"
    assert count % adopting.BATCH in (0, adopting.BATCH - 1)
    ran = manage("adopt", *LOCAL)
    assert ran == Ran(0, report(folders * each - count, 0, known=count + 1), "")
    names = set(ledger.records().values_list("name", flat=True))
    assert names == {f"{folder}/{number}.txt" for folder in range(folders) for number in range(each)} | {"own.txt"}
    assert ledger.records().count() == len(names)
    assert ledger.records().exclude(pk=own.pk).exclude(state=State.QUEUED, size=0, digest="").count() == 0
    assert facts(own, b"own") == saved("own.txt", b"own")


@committing
def test_adopt_beside_a_save(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is saved between the look and the insert costs no other name of the batch."""
    lay(pair.local.location, a=b"a", b=b"b")
    among = adopting.Known.among

    def then_saved(self: Any, entries: Any) -> Any:
        found = among(self, entries)
        Path(pair.local.path("a.txt")).unlink()
        pair.save("a.txt", ContentFile(b"saved"))
        return found

    monkeypatch.setattr(adopting.Known, "among", then_saved)
    assert manage("adopt", *LOCAL).out == report(1, 1, known=1)
    assert facts(record_of(pair, "a.txt"), b"saved") == saved("a.txt", b"saved")
