"""The commands: whole outputs, exit codes, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command, load_command_class
from django.core.management.base import OutputWrapper
from django.db import connection
from django.utils import timezone

from queued_storage import health, ledger, selecting
from queued_storage.exceptions import ErrorKind, TransferError
from queued_storage.management.commands._progress import Progress
from queued_storage.models import State, TransferRecord
from queued_storage.tasks import Transfer
from tests.factories import RecordFactory
from tests.fixtures import (
    MakePair,
    Outbox,
    Pair,
    attempts,
    facts,
    make_due,
    moved,
    put,
    read,
    record_of,
    saved,
    transfer,
)
from tests.servers import databases
from tests.servers.roots import fresh

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db

COMMANDS = ["status", "sweep", "run", "retry", "hold", "release", "pause", "resume", "schedule"]
COMMANDS += ["verify", "evict", "restore", "adopt", "reconcile", "doctor"]
DAYS = timedelta(days=3, hours=4, minutes=30)


class Forgetful(Transfer):
    """A task that forgets to say whether it succeeded."""

    def transfer(self, name: str, local: Any, remote: Any, **kwargs: Any) -> Any:
        """Transfer, and return nothing."""
        super().transfer(name, local, remote, **kwargs)


class Terminal(StringIO):
    """A terminal, as far as a program can tell."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The data on stdout."""
        return json.loads(self.out)


def manage(command: str, *arguments: str, stderr: StringIO | None = None) -> Ran:
    """Run ``manage.py queued_storage_<command>`` in this process."""
    out, err, code = StringIO(), stderr or StringIO(), 0
    try:
        call_command(f"queued_storage_{command}", *arguments, stdout=out, stderr=err, no_color=True)
    except SystemExit as end:
        code = int(end.code or 0)
    except CommandError as error:
        code = error.returncode
        err.write(str(error))
    return Ran(code, out.getvalue(), err.getvalue())


def rows() -> list[dict[str, Any]]:
    """Return every record with all its columns."""
    return list(ledger.records().order_by("pk").values())


def states() -> dict[str, str]:
    """Return the state of every record by its name."""
    return dict(ledger.records().values_list("name", "state"))


@pytest.fixture
def refusing(pair: Pair) -> Pair:
    """A storage whose remote refuses some files, has trouble with others, and takes the rest."""

    def fault(name: str) -> None:
        if name.startswith("refused"):
            raise TransferError("no\x1b[31m\nthanks", ErrorKind.REFUSED)
        if name.startswith("denied"):
            raise TransferError("403", ErrorKind.DENIED)

    pair.remote.faults["save"] = fault
    return pair


# All of them


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` ends with what each exit code means."""
    with pytest.raises(SystemExit) as end:
        call_command(f"queued_storage_{command}", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert "--json" in text
    assert text.rpartition("Exit codes: ")[2].startswith("0 ")
    assert text.endswith("; 2 wrong use; 130 interrupted.")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["status", "--max-age", "5x"], "argument --max-age: write a duration such as 90s, 15m, 6h or 2d, not 5x"),
        (["status", "--max-owed", "-1"], "argument --max-owed: write a whole number of zero or more, not -1"),
        (["status", "--storage", "x\x1b"], "argument --storage: no storage has the alias x\\x1b; there are: default"),
        (["run", "--limit", "1.5"], "argument --limit: write a whole number of zero or more, not 1.5"),
        (["retry", "--kind", "bad"], "argument --kind: invalid choice: 'bad'"),
        (["retry"], "Say what to retry: names, --id, --storage, --state, --prefix, --older-than, --kind or --all."),
        (["hold"], "Say what to hold: names, --id, --storage, --prefix, --older-than or --all."),
        (["run", "--threads", "0"], "argument --threads: write a whole number of one or more, not 0"),
        (["status", "--max-bytes", "1.5G"], "argument --max-bytes: write a size such as 500M, 20G or 1T, not 1.5G"),
        (
            ["evict"],
            "Say what to evict: --storage, --prefix, --older-than, --max-size, --min-free or --all.",
        ),
        (["verify", "--rate", "fast"], "argument --rate: write a whole number of zero or more, not fast"),
        (["pause", "gone"], "argument alias: no storage has the alias gone; there are: default"),
    ],
)
def test_wrong_use(arguments: list[str], error: str) -> None:
    """What cannot be meant is refused with a sentence that says what to write."""
    ran = manage(*arguments)
    assert ran.code
    assert error in ran.err
    assert ran.out == ""


@pytest.mark.django_db(transaction=True)
def test_exit_codes_of_a_process() -> None:
    """A probe sees 0 within the limits, 1 beyond them and 2 for a slip, and reads nothing but JSON."""
    RecordFactory(failed=True)
    environment = {**os.environ, "TEST_DATABASE": databases.url_of(connection.settings_dict)}

    def status(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "django", "queued_storage_status", "--settings", "tests.settings", *arguments]
        return subprocess.run(
            command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
        )

    good, bad, slip = status("--max-failed", "1"), status("--json", "--max-failed", "0"), status("--max-age", "soon")
    assert (good.returncode, bad.returncode, slip.returncode) == (0, 1, 2), good.stderr + bad.stderr + slip.stderr
    assert json.loads(bad.stdout)["total"]["failed"] == {"refused": 1}
    assert bad.stderr == "1 files have failed: more than --max-failed\n"
    assert good.stderr == ""


def test_a_storage_that_is_configured_wrongly_stops_no_command(pair: Pair, settings: Any) -> None:
    """What can be moved is moved, although another storage cannot be built."""
    put(pair, "a.txt")
    broken = {"BACKEND": "queued_storage.backends.QueuedStorage", "OPTIONS": {"local": 5, "remote": 5}}
    settings.STORAGES = {**settings.STORAGES, "zzz": broken}
    assert manage("run", "--storage", "default").code == 0
    assert states() == {"a.txt": "transferred"}
    assert "transferred" in manage("status").out


def test_ctrl_c_anywhere(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a command without a loop of its own ends in a word and in 130, too."""

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    RecordFactory(failed=True)
    before = rows()
    monkeypatch.setattr(ledger, "requeue", interrupt)
    assert manage("retry", "--all") == Ran(130, "", "Interrupted.\n")
    assert rows() == before


@pytest.mark.parametrize("command", COMMANDS)
def test_no_system_check_stops_a_command(command: str) -> None:
    """An error of a system check must not keep cron from moving files."""
    assert load_command_class("queued_storage", f"queued_storage_{command}").requires_system_checks == []


# status


def test_status_of_nothing() -> None:
    """An empty ledger owes nothing."""
    assert manage("status", "--max-age", "0", "--max-failed", "0", "--max-owed", "0") == Ran(
        0,
        "storage  state  files  bytes\n\nowed:    0 files, 0 bytes, oldest -\nstalled: 0 files\nfailed:  0 files\n"
        "swept:   never\n",
        "",
    )


@pytest.fixture
def story() -> None:
    """A ledger with something of everything."""
    RecordFactory(age=timedelta(minutes=5))
    RecordFactory(age=DAYS, retries=6, size=1000)
    RecordFactory(transferring=True, age=timedelta(hours=1))
    RecordFactory(delayed=True, age=2 * DAYS)
    RecordFactory(transferred=True, age=3 * DAYS)
    RecordFactory(storage="papers", transferred=True)
    RecordFactory(storage="papers", failed=True, retries=9)
    RecordFactory(storage="papers", failed=True, error_kind="missing", size=None)
    RecordFactory(storage="papers", failed=True, error_kind="missing")
    RecordFactory(storage="x\x1b[31m", deleted=True)


STORY = """\
storage    state         files  bytes
default    delayed           1     19
default    queued            2   1019
default    transferring      1     19
default    transferred       1     19
papers     transferred       1     19
papers     failed            3     38
x\\x1b[31m  deleted           1     19

owed:    3 files, 1038 bytes, oldest 3 d 4 h
stalled: 1 files
failed:  3 files (2 missing, 1 refused)
swept:   never
"""


def test_status(story: None) -> None:
    """Every state of every storage is counted; held and failed files are not owed."""
    assert manage("status") == Ran(0, STORY, "")


def test_status_of_one_storage(story: None) -> None:
    """One storage is shown as if it were alone."""
    assert manage("status", "--storage", "papers", "--max-owed", "0", "--max-age", "0").out == (
        "storage  state        files  bytes\n"
        "papers   transferred      1     19\n"
        "papers   failed           3     38\n"
        "\n"
        "owed:    0 files, 0 bytes, oldest -\n"
        "stalled: 0 files\n"
        "failed:  3 files (2 missing, 1 refused)\n"
        "swept:   never\n"
    )


def test_status_as_json(story: None) -> None:
    """JSON has the same numbers, zeros included, and the age in seconds."""
    ran = manage("status", "--json", "--storage", "default")
    (default,) = ran.json["storages"]
    assert default.pop("oldest_owed") == pytest.approx(DAYS.total_seconds(), abs=60)
    none = {"files": 0, "bytes": 0}
    assert default == {
        "storage": "default",
        "states": {
            "delayed": {"files": 1, "bytes": 19},
            "queued": {"files": 2, "bytes": 1019},
            "transferring": {"files": 1, "bytes": 19},
            "transferred": {"files": 1, "bytes": 19},
            "failed": none,
            "deleted": none,
        },
        "owed": {"files": 3, "bytes": 1038},
        "stalled": 1,
        "failed": {},
        "down_since": None,
        "paused_since": None,
        "down_error": "",
    }
    assert ran.json["sweep_age"] is None
    assert ran.json["total"]["owed"] == {"files": 3, "bytes": 1038}
    assert ran.json["exceeded"] == []


@pytest.mark.parametrize(
    ("limits", "exceeded"),
    [
        (["--max-owed", "3", "--max-failed", "3", "--max-age", "4d"], []),
        (["--max-owed", "2"], ["3 files are owed: more than --max-owed"]),
        (["--max-failed", "2"], ["3 files have failed: more than --max-failed"]),
        (["--max-age", "76h"], ["the oldest owed file is 3 d 4 h old: more than --max-age"]),
        (["--max-age", "90s", "--max-owed", "0"], ["the oldest owed file", "3 files are owed"]),
        (["--max-bytes", "1K"], ["1038 bytes are owed: more than --max-bytes"]),
        (["--max-bytes", "2k", "--max-stalled", "1", "--max-down", "0"], []),
        (["--max-stalled", "0"], ["1 files have stalled: more than --max-stalled"]),
        (["--max-sweep-age", "9d"], ["the last sweep was never: more than --max-sweep-age"]),
    ],
)
def test_status_as_a_probe(story: None, limits: list[str], exceeded: list[str]) -> None:
    """A limit that is reached is kept, one that is exceeded ends in 1 and a line on stderr."""
    ran = manage("status", *limits)
    assert ran.out == STORY
    assert ran.code == (1 if exceeded else 0)
    lines = ran.err.splitlines()
    assert len(lines) == len(exceeded)
    assert all(line.startswith(start) for line, start in zip(lines, exceeded, strict=True))


def test_status_tells_which_remote_is_down() -> None:
    """A remote that is down is named with the moment when it went down."""
    moment = timezone.now()
    health.storages().create(storage="default", failures=3, last_record=1, down_since=moment, updated_at=moment)
    health.storages().create(storage="gone", failures=1, last_record=1, updated_at=moment)
    ran = manage("status")
    assert ran.out.endswith(
        f"failed:  0 files\nswept:   never\ndown:    default, since {moment:%Y-%m-%d %H:%M:%S} UTC\n"
    )
    assert manage("status", "--json").json["storages"][0]["down_since"][:19] == f"{moment:%Y-%m-%dT%H:%M:%S}"


def test_status_costs_four_queries(story: None, django_assert_num_queries: Any) -> None:
    """The cost does not grow with the number of storages."""
    with django_assert_num_queries(4):
        manage("status")


# sweep


def test_sweep_sends_what_is_due(pair: Pair, outbox: Outbox) -> None:
    """What is due gets a message, and nothing else happens."""
    due, later = put(pair, "a.txt"), put(pair, "b.txt")
    make_due(due)
    text = "rescued:  0\nreleased: 0\nsent:     1\nspilled:  0\nlate:     0\npruned:   0\n"
    assert manage("sweep") == Ran(0, text, "")
    assert outbox.ids() == [due.pk]
    assert states() == {"a.txt": "queued", "b.txt": "queued"}
    assert later.pk


def test_sweep_in_process(pair: Pair, outbox: Outbox) -> None:
    """Without a broker the sweep does the work itself: rescue, release, transfer."""
    due, held = put(pair, "a.txt"), RecordFactory(delayed=True, due=timedelta(seconds=-1), state="delayed")
    lost = RecordFactory(transferring=True, due=timedelta(seconds=-1))
    ledger.records().filter(pk=held.pk).update(due_at=timezone.now())
    make_due(due)
    ran = manage("sweep", "--in-process", "--json")
    counts = {"rescued": 1, "released": 1, "sent": 2, "spilled": 0, "late": 0, "pruned": 0}
    assert (ran.code, ran.json, ran.err) == (0, counts, "")
    assert outbox.take() == []
    assert states() == {"a.txt": "transferred", held.name: "failed", lost.name: "queued"}


# run


def report(transferred: int = 0, retry: int = 0, failed: int = 0, skipped: int = 0, tidied: int = 0) -> str:
    """Return what ``run`` prints."""
    return (
        f"transferred: {transferred}\nretry:       {retry}\nfailed:      {failed}\nlost:        0\n"
        f"skipped:     {skipped}\ntidied:      {tidied}\npruned:      0\n"
    )


def test_run_transfers_whatever_the_timers_say(pair: Pair, outbox: Outbox) -> None:
    """Everything that is queued goes, oldest first and each once; what is held stays."""
    order: list[str] = []
    pair.remote.faults["save"] = order.append
    first, second, third = (put(pair, name, name.encode()) for name in ("c.txt", "a.txt", "b.txt"))
    ledger.records().filter(pk=third.pk).update(created_at=timezone.now() - DAYS)
    ledger.hold(put(pair, "held.txt").pk)
    assert manage("run") == Ran(0, report(transferred=3), "")
    assert order == ["b.txt", "c.txt", "a.txt"]
    assert facts(first, b"c.txt") == moved("c.txt", b"c.txt")
    assert facts(second, b"a.txt") == moved("a.txt", b"a.txt")
    assert states()["held.txt"] == "delayed"
    assert manage("run") == Ran(0, report(), "")


def test_run_takes_what_the_sweep_would_have_freed(pair: Pair, settings: Any) -> None:
    """Lost workers' records and ended delays are transferred, and files held too long where a setting says so."""
    lost, delayed, held = (put(pair, name) for name in ("lost.txt", "delayed.txt", "held.txt"))
    ledger.hold(delayed.pk)
    ledger.hold(held.pk)
    ledger.records().filter(pk=delayed.pk).update(due_at=timezone.now())
    ledger.records().filter(pk=held.pk).update(created_at=timezone.now() - DAYS)
    assert ledger.claim(lost.pk, record_of(pair, "lost.txt").key or lost.key, "host:1").exists()  # type: ignore[arg-type]
    make_due(lost)
    assert manage("run", "--dry-run").out == "default: lost.txt\ndefault: delayed.txt\n"
    assert manage("run").out == report(transferred=2)
    assert states()["held.txt"] == "delayed"
    settings.QUEUED_STORAGE_RELEASE_AFTER = timedelta(days=2)
    assert manage("run", "--dry-run").out == "default: held.txt\n"
    assert manage("run").out == report(transferred=1)


def test_run_says_what_was_not_transferred_and_why(refusing: Pair) -> None:
    """A failure costs no other file, is explained on one line, and ends in 1; each file is tried once."""
    put(refusing, "refused\N{SNOWMAN}.txt")
    put(refusing, "denied.txt")
    put(refusing, "good.txt")
    assert manage("run") == Ran(
        1,
        report(transferred=1, retry=1, failed=1),
        "default: refused\\u2603.txt: failed: refused: TransferError: no\\ufffd[31m\\nthanks\n"
        "default: denied.txt: retry: denied: TransferError: 403\n",
    )
    assert sorted(attempts()) == [("failed", "refused", 0), ("retry", "denied", 0), ("transferred", "", 7)]


def test_run_ends(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of ids and ages, each file is tried once, and what is saved meanwhile is left."""
    monkeypatch.setattr(selecting, "CHUNK", 1)
    records = [put(pair, name) for name in ("c.txt", "d.txt", "b.txt", "a.txt")]
    moment = timezone.now()
    for record, age in zip(records, (1, 1, 2, 3), strict=True):
        ledger.records().filter(pk=record.pk).update(created_at=moment - age * DAYS)
    tried: list[str] = []

    def fault(name: str) -> None:
        tried.append(name)
        if len(tried) == 2:
            put(pair, "meanwhile.txt")
        raise TransferError("not today", ErrorKind.THROTTLED)

    pair.remote.faults["save"] = fault
    assert manage("run").out == report(retry=4)
    assert tried == ["a.txt", "b.txt", "c.txt", "d.txt"]
    assert not attempts(record_of(pair, "meanwhile.txt"))


def test_run_survives_a_task_that_returns_nothing(make_pair: MakePair) -> None:
    """The mistake of a task is explained, too, and keeps no other file."""
    pair = make_pair(task="tests.test_commands.Forgetful")
    put(pair, "a.txt")
    put(pair, "b.txt")
    ran = manage("run")
    assert (ran.code, ran.out) == (1, report(retry=2))
    assert ran.err.splitlines()[1] == (
        "default: b.txt: retry: passing: TransferResultError: Forgetful.transfer() must return True or False, not "
        "NoneType"
    )


def test_run_as_json(refusing: Pair) -> None:
    """JSON has the same numbers."""
    put(refusing, "refused.txt")
    ran = manage("run", "--json")
    assert ran.json == {
        "transferred": 0,
        "retry": 0,
        "failed": 1,
        "lost": 0,
        "skipped": 0,
        "tidied": 0,
        "pruned": 0,
    }


def test_run_of_some(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--storage`` and ``--limit`` choose; ``--dry-run`` lists what the next run takes, and changes nothing."""
    monkeypatch.setattr(selecting, "CHUNK", 2)
    pair, other = make_pair(), make_pair("other", remote_options={"location": str(fresh("other"))})
    for name in ("a.txt", "b\N{SNOWMAN}.txt", "c.txt", "d.txt", "e.txt"):
        put(pair, name)
    put(other, "z.txt")
    before = rows()
    assert manage("run", "--storage", "default", "--limit", "3", "--dry-run") == Ran(
        0, "default: a.txt\ndefault: b\\u2603.txt\ndefault: c.txt\n", "Would transfer 3 files, 21 bytes.\n"
    )
    assert manage("run", "--limit", "0", "--dry-run").err == "Would transfer 0 files, 0 bytes.\n"
    assert manage("run", "--dry-run", "--json").json == {"would_transfer": {"files": 6, "bytes": 42}}
    assert rows() == before
    assert manage("run", "--storage", "default", "--limit", "3") == Ran(0, report(transferred=3), "")
    assert sorted(name for name, state in states().items() if state == "queued") == ["d.txt", "e.txt", "z.txt"]
    assert manage("run", "--limit", "0").out == report()
    assert manage("run", "--storage", "other").out == report(transferred=1)
    assert manage("run", "--dry-run").out == "default: d.txt\ndefault: e.txt\n"


def test_run_leaves_what_somebody_else_took(pair: Pair) -> None:
    """A record that a worker claims meanwhile is skipped, which is no failure."""
    first, second = put(pair, "a.txt"), put(pair, "b.txt")
    # What was tried before is not claimed together with others.
    ledger.records().filter(pk=second.pk).update(retries=1)
    pair.remote.faults["save"] = lambda name: ledger.claim(second.pk, first.key, "host:1") and None
    assert manage("run") == Ran(0, report(transferred=1, skipped=1), "")
    assert states() == {"a.txt": "transferred", "b.txt": "transferring"}


def test_run_evicts_removes_and_prunes(make_pair: MakePair, settings: Any) -> None:
    """Without a worker the same command cleans up, unless it was told to look at some files only."""
    pair = make_pair(keep_local=timedelta(hours=1))
    evicted, removed = transfer(pair, "a.txt"), transfer(pair, "b.txt")
    pair.delete("b.txt")
    make_due(evicted, removed, by=timedelta(hours=2))
    before = rows()
    assert manage("run", "--storage", "default").out == report()
    assert manage("run", "--limit", "5").out == report()
    assert rows() == before
    assert manage("run").out == report(tidied=2)
    assert not pair.local.exists("a.txt")
    assert read(pair, "a.txt") == b"content"
    assert not pair.remote.exists("b.txt")
    make_due(removed, by=timedelta(days=30))
    assert manage("run").out == report(tidied=1)
    assert states() == {"a.txt": "transferred"}


def test_run_is_interrupted(pair: Pair) -> None:
    """Ctrl-C gives the file at hand back uncounted, reports what was done, and ends in 130; a second run finishes."""
    for name in ("a.txt", "b.txt", "c.txt"):
        put(pair, name)
    pair.remote.faults["save"] = lambda name: os.kill(os.getpid(), signal.SIGINT) if name == "b.txt" else None
    assert manage("run") == Ran(130, report(transferred=1), "")
    assert facts(record_of(pair, "b.txt"), b"content") == saved(
        "b.txt", b"content", due=timedelta(0), error_kind="passing", error="the worker was told to stop"
    )
    pair.remote.faults.clear()
    assert manage("run") == Ran(0, report(transferred=2), "")


def test_run_probes_a_remote_that_is_down(pair: Pair, settings: Any) -> None:
    """Files of a dead remote wait, one of them probes, and after its success all of them go."""
    settings.QUEUED_STORAGE_DOWN_AFTER = 2
    settings.QUEUED_STORAGE_PROBE_DELAY = 3600
    for number in range(6):
        put(pair, f"{number}.txt")

    def unreachable(name: str) -> None:
        raise ConnectionError("no route")

    pair.remote.faults["*"] = unreachable
    ran = manage("run", "--no-progress")
    assert ran.code == 1
    assert ran.err.endswith("default: the remote is down; 6 files wait until a probe succeeds.\n")
    assert len(pair.remote.calls) < 6
    pair.remote.faults.clear()
    pair.remote.forget()
    assert manage("run") == Ran(1, report(), "default: the remote is down; 6 files wait until a probe succeeds.\n")
    assert pair.remote.calls == []
    health.storages().update(probe_at=timezone.now())
    make_due(*ledger.records())
    assert manage("run", "--limit", "2") == Ran(0, report(transferred=2), "")
    assert manage("run") == Ran(0, report(transferred=4), "")


def test_run_attempts_a_probe_once(pair: Pair, settings: Any) -> None:
    """A probe that fails while another worker finds the remote up is not tried a second time."""
    settings.QUEUED_STORAGE_DOWN_AFTER = 2
    probe, other = put(pair, "a.txt"), put(pair, "b.txt")
    moment = timezone.now()
    down = {"down_since": moment, "probe_at": moment, "updated_at": moment}
    health.storages().create(storage="default", failures=2, last_record=other.pk, **down)

    def fault(name: str) -> None:
        if name == "a.txt":
            health.succeeded("default")
            raise ConnectionError("no route")

    pair.remote.faults["save"] = fault
    make_due(probe)
    assert manage("run").out == report(transferred=1, retry=1)
    assert attempts(probe) == [("retry", "passing", 0)]


def test_run_counts_on_a_terminal(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tqdm a person sees a count that rewrites its line and leaves none behind."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    for name in ("a.txt", "b.txt"):
        put(pair, name)
    err = manage("run", stderr=Terminal()).err
    assert err.startswith("\r1 of 2 files")
    assert "\r2 of 2 files" in err
    assert err.endswith("\r\x1b[K")
    put(pair, "c.txt")
    assert manage("run", "--no-progress", stderr=Terminal()).err == ""
    for name in ("gone.txt", "d.txt"):
        put(pair, name)
    pair.local.delete("gone.txt")
    lines = manage("run", stderr=Terminal()).err.splitlines()
    assert any(line == "\x1b[Kdefault: gone.txt: failed: missing: " + line.partition("missing: ")[2] for line in lines)


def test_run_shows_a_bar(pair: Pair) -> None:
    """With tqdm a person sees a bar, what is to be read stands on lines of its own, and nothing is left behind."""
    for name in ("a.txt", "gone.txt", "b.txt"):
        put(pair, name)
    pair.local.delete("gone.txt")
    err = manage("run", stderr=Terminal()).err
    assert "0/3" in err
    assert "default: gone.txt: failed: missing: " in err
    assert err.endswith("\r")


def test_a_log_file_is_told_every_ten_seconds() -> None:
    """Where there is no terminal a long run writes a whole line now and then, and a short one none."""
    stream = StringIO()
    progress = Progress(OutputWrapper(stream), 3, shown=True)
    progress.step()
    assert stream.getvalue() == ""
    progress.last -= 10
    progress.step()
    progress.step()
    progress.clear()
    assert stream.getvalue() == "2 of 3 files\n"


# retry


@pytest.mark.django_db(transaction=True)
def test_retry_all(pair: Pair, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed files are queued afresh with all their retries, and their messages sent."""
    monkeypatch.setattr(selecting, "CHUNK", 2)
    failed = RecordFactory.create_batch(3, failed=True, retries=9)
    waiting, done = RecordFactory(retries=4), RecordFactory(transferred=True)
    untouched = [row for row in rows() if row["id"] in (waiting.pk, done.pk)]
    assert manage("retry", "--all") == Ran(0, "queued: 3\n", "")
    assert sorted(outbox.ids()) == [record.pk for record in failed]
    assert (
        list(ledger.records().filter(pk__in=[record.pk for record in failed]).values_list("state", "retries"))
        == [("queued", 0)] * 3
    )
    assert ledger.due().count() == 3
    assert [row for row in rows() if row["id"] in (waiting.pk, done.pk)] == untouched
    assert manage("retry", "--all") == Ran(0, "queued: 0\n", "")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--all"], ["a", "b", "c", "d"]),
        (["--storage", "papers"], ["c", "d"]),
        (["--kind", "missing"], ["b", "d"]),
        (["--kind", "missing", "--storage", "papers"], ["d"]),
        (["--kind", "lost"], []),
    ],
)
def test_retry_some(arguments: list[str], names: list[str]) -> None:
    """Filters narrow each other down; a dry run lists the same files and changes nothing."""
    for name, storage, kind in (
        ("a", "default", "refused"),
        ("b", "default", "missing"),
        ("c", "papers", "refused"),
        ("d", "papers", "missing"),
    ):
        RecordFactory(name=name, storage=storage, error_kind=kind, failed=True)
    RecordFactory(name="e", error_kind="missing", storage="papers")
    before = rows()
    dry = manage("retry", *arguments, "--dry-run")
    assert [line.split(": ")[1] for line in dry.out.splitlines()] == names
    assert dry.err == f"Would queue {len(names)} files.\n"
    assert manage("retry", *arguments, "--dry-run", "--json").json == {"would_queue": len(names)}
    assert rows() == before
    assert manage("retry", *arguments) == Ran(0, f"queued: {len(names)}\n", "")
    assert sorted(name for name in states() if ledger.records().get(name=name).retries == 0) == sorted([*names, "e"])


@pytest.mark.django_db(transaction=True)
def test_retry_by_name_and_id(make_pair: MakePair, outbox: Outbox) -> None:
    """A name is looked up in every storage; a file that waits is hurried on; what cannot be is told and ends in 1."""
    make_pair("papers")
    failed = RecordFactory(name="-rf \N{SNOWMAN}", failed=True, storage="papers")
    waiting, done = (
        RecordFactory(name="w", retries=7, due=timedelta(hours=6)),
        RecordFactory(name="t", transferred=True),
    )
    assert manage("retry", "--dry-run", "--id", str(waiting.pk), "--", "-rf \N{SNOWMAN}") == Ran(
        0, "papers: -rf \\u2603: refused\ndefault: w: queued\n", "Would queue 2 files.\n"
    )
    assert manage("retry", "t", "--dry-run") == Ran(0, "", "Would queue 0 files.\n")
    ran = manage("retry", "--id", str(waiting.pk), "--", "-rf \N{SNOWMAN}")
    assert ran == Ran(0, "queued: 2\n", "")
    assert sorted(outbox.ids()) == sorted([failed.pk, waiting.pk])
    assert manage("retry", "t", "../x", "no\tsuch", "./w", "--id", str(2**64), "--json") == Ran(
        1,
        '{\n  "queued": 1,\n  "not_queued": {\n    "transferred": 1\n  }\n}\n',
        f"No such record: {2**64}.\nNo such record: ../x.\nNo such record: no\\tsuch.\nNot queued: 1 transferred.\n",
    )
    assert outbox.ids() == [waiting.pk]
    assert ledger.records().get(pk=done.pk).state == State.TRANSFERRED
    assert manage("retry", "w", "--storage", "papers").err == "No such record: w.\n"


def test_retry_hurries_on() -> None:
    """With ``--state queued`` what waits for its next retry goes now; other states are told."""
    for name in ("a", "b"):
        RecordFactory(name=name, retries=7, due=timedelta(hours=6))
    RecordFactory(name="f", failed=True)
    RecordFactory(name="t", transferred=True)
    assert manage("retry", "--state", "queued", "--limit", "1", "--dry-run").out == "default: a: queued\n"
    assert manage("retry", "--state", "queued") == Ran(0, "queued: 2\n", "")
    assert ledger.due().count() == 2
    assert states()["f"] == "failed"
    assert manage("retry", "--state", "failed", "--state", "transferred") == Ran(
        0, "queued: 1\n", "Not queued: 1 transferred.\n"
    )


@pytest.mark.django_db(transaction=True)
def test_retry_does_not_depend_on_the_message(make_pair: MakePair, tmp_path: Path, monkeypatch: Any) -> None:
    """A task that cannot be imported keeps no record from being queued: the sweep sends another message."""
    (tmp_path / "broken_tasks.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    make_pair(task="broken_tasks.Task")
    RecordFactory(failed=True)
    assert manage("retry", "--all") == Ran(0, "queued: 1\n", "")
    assert TransferRecord.objects.get().state == State.QUEUED


def test_retry_of_a_storage_that_is_gone() -> None:
    """Records whose storage is not configured are queued, and the sweep finds them when it is back."""
    RecordFactory(storage="gone", failed=True)
    assert manage("retry", "--storage", "gone") == Ran(0, "queued: 1\n", "")
    assert TransferRecord.objects.get().state == State.QUEUED
