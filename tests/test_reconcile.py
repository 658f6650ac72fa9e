"""``queued_storage_reconcile``: a mess with every combination of three sides, its plan and what apply makes of it."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from queued_storage import ledger, reconciling
from queued_storage.examining import Found
from queued_storage.pairs import StoragePair
from queued_storage.reconciling import Action, Row, Scope, decide
from tests.factories import BODY, RecordFactory
from tests.fixtures import MakePair, Pair, put, read, record_of, transfer
from tests.servers.roots import fresh
from tests.test_commands import Ran, manage, rows, states
from tests.test_verify import evicted

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db

OTHER = b"THE BYTES OF A FILE"
LEDGER = ["none", "delayed", "queued", "transferring", "failed", "transferred", "evicted", "deleted"]
SIDES = ["same", "absent", "different"]
NOW = ("--older-than", "0")

# Every combination of ledger, local side and remote, with what it calls for.
PLAN = {
    # Without a record: what lies on one side alone, or on both.
    ("none", "same", "absent"): "adopt",
    ("none", "same", "same"): "adopt",
    ("none", "same", "different"): "conflict",
    ("none", "absent", "same"): "adopt-remote",
    # Held and failed: as long as the right bytes are local, nothing; where the remote has them, go and see.
    ("delayed", "same", "absent"): "none",
    ("delayed", "same", "same"): "none",
    ("delayed", "same", "different"): "none",
    ("delayed", "absent", "same"): "queue",
    ("delayed", "different", "same"): "queue",
    ("delayed", "absent", "absent"): "lost",
    ("delayed", "absent", "different"): "lost",
    ("delayed", "different", "absent"): "lost",
    ("delayed", "different", "different"): "lost",
    ("failed", "same", "absent"): "none",
    ("failed", "same", "same"): "none",
    ("failed", "same", "different"): "none",
    ("failed", "absent", "same"): "queue",
    ("failed", "different", "same"): "queue",
    ("failed", "absent", "absent"): "lost",
    ("failed", "absent", "different"): "lost",
    ("failed", "different", "absent"): "lost",
    ("failed", "different", "different"): "lost",
    # Owed: the transfer will find the right bytes on the remote itself.
    ("queued", "same", "absent"): "none",
    ("queued", "same", "same"): "none",
    ("queued", "same", "different"): "none",
    ("queued", "absent", "same"): "none",
    ("queued", "different", "same"): "none",
    ("queued", "absent", "absent"): "lost",
    ("queued", "absent", "different"): "lost",
    ("queued", "different", "absent"): "lost",
    ("queued", "different", "different"): "lost",
    ("transferring", "same", "absent"): "none",
    ("transferring", "same", "same"): "none",
    ("transferring", "same", "different"): "none",
    ("transferring", "absent", "same"): "none",
    ("transferring", "different", "same"): "none",
    ("transferring", "absent", "absent"): "lost",
    ("transferring", "absent", "different"): "lost",
    ("transferring", "different", "absent"): "lost",
    ("transferring", "different", "different"): "lost",
    # On the remote, with a local copy.
    ("transferred", "same", "same"): "none",
    ("transferred", "absent", "same"): "forget-local",
    ("transferred", "different", "same"): "conflict",
    ("transferred", "same", "absent"): "send-again",
    ("transferred", "same", "different"): "send-again",
    ("transferred", "absent", "absent"): "lost",
    ("transferred", "absent", "different"): "lost",
    ("transferred", "different", "absent"): "lost",
    ("transferred", "different", "different"): "lost",
    # On the remote alone.
    ("evicted", "absent", "same"): "none",
    ("evicted", "same", "same"): "note-local",
    ("evicted", "different", "same"): "conflict",
    ("evicted", "same", "absent"): "send-again",
    ("evicted", "same", "different"): "send-again",
    ("evicted", "absent", "absent"): "lost",
    ("evicted", "absent", "different"): "lost",
    ("evicted", "different", "absent"): "lost",
    ("evicted", "different", "different"): "lost",
    # Deleted: the sweep removes what is ours.
    **{("deleted", local, remote): "none" for local in SIDES for remote in SIDES},
}


def test_the_plan_has_every_combination() -> None:
    """None is forgotten, and each is decided as the table says."""
    possible = {
        each
        for each in itertools.product(LEDGER, SIDES, SIDES)
        if each[0] != "none"
        or each[1:] in {("same", "absent"), ("same", "same"), ("same", "different"), ("absent", "same")}
    }
    assert set(PLAN) == possible
    assert {each: str(decide(each[0], Found(each[1]), Found(each[2]))) for each in PLAN} == PLAN


@pytest.mark.parametrize("state", LEDGER)
@pytest.mark.parametrize(
    "sides", [("unknown", "same"), ("same", "unknown"), ("unknown", "absent"), ("absent", "unknown")]
)
def test_no_answer_is_no_reason_to_act(state: str, sides: tuple[str, str]) -> None:
    """Where a side gives no answer nothing but a note or a look of a transfer can follow."""
    harmless = {Action.NONE, Action.UNKNOWN}
    if sides == ("unknown", "same"):
        # The right bytes are on the remote: a transfer that looks finds them.
        harmless.add(Action.QUEUE)
    assert decide(state, Found(sides[0]), Found(sides[1])) in harmless


def name_of(case: tuple[str, str, str]) -> str:
    """Return the name of the file of a case."""
    return f"{'-'.join(case)}.txt"


@pytest.fixture
def mess(pair: Pair) -> Pair:
    """A file of every combination."""
    for case in PLAN:
        state, local, remote = case
        name = name_of(case)
        for side, found in ((pair.local, local), (pair.remote, remote)):
            if found != "absent":
                Path(side.location, name).write_bytes(BODY if found == "same" else OTHER)
        if state != "none":
            RecordFactory(name=name, **({state: True} if state != "queued" else {}))
    return pair


def files(pair: Pair) -> dict[str, bytes]:
    """Return every file of both sides."""
    folders = {"local": Path(pair.local.location), "remote": Path(pair.remote.location)}
    return {
        f"{side}/{path.relative_to(folder)}": path.read_bytes()
        for side, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and ".queued_storage" not in path.parts
    }


def line(case: tuple[str, str, str], ended: str = "") -> str:
    """Return a line of the plan."""
    state, local, remote = case
    return f"default: {name_of(case)}: ledger {state}, local {local}, remote {remote}: {PLAN[case]}{ended}"


DIFFERENCES = {case: action for case, action in PLAN.items() if action != "none"}


def test_the_plan(mess: Pair) -> None:
    """Every difference is a line, nothing else is, and nothing is changed."""
    ledger_before, files_before = rows(), files(mess)
    ran = manage("reconcile", "--deep", *NOW)
    assert ran.code == 1
    assert sorted(ran.out.splitlines()) == sorted(line(case) for case in DIFFERENCES)
    assert ran.err == (
        "40 differences (2 adopt, 1 adopt-remote, 3 conflict, 1 forget-local, 24 lost, 1 note-local, 4 queue, "
        "4 send-again), 0 put right.\n"
    )
    assert (rows(), files(mess)) == (ledger_before, files_before)
    found = manage("reconcile", "--deep", "--json", *NOW).json
    assert {(row["ledger"], row["local"], row["remote"]): row["action"] for row in found["plan"]} == DIFFERENCES
    assert found["left"] == len(DIFFERENCES)
    assert all(row["applied"] is False for row in found["plan"])


SAFE = {"adopt", "adopt-remote", "queue", "send-again", "note-local", "forget-local"}
# What apply makes of a record: its state, and whether it has a local copy.
APPLIED = {
    "adopt": ("queued", True),
    "adopt-remote": ("transferred", False),
    "queue": ("queued", True),
    "send-again": ("queued", True),
    "note-local": ("transferred", True),
    "forget-local": ("transferred", False),
}


def test_apply(mess: Pair) -> None:
    """The safe part is done and nothing else; no byte is written, changed or removed; a second run finds the rest."""
    before = {row["name"]: row for row in rows()}
    files_before = files(mess)
    ran = manage("reconcile", "--deep", "--apply", *NOW)
    assert ran.code == 1
    wanted = [line(case, ": done" if action in SAFE else "") for case, action in DIFFERENCES.items()]
    assert sorted(ran.out.splitlines()) == sorted(wanted)
    assert files(mess) == files_before
    after = {row["name"]: row for row in rows()}
    for case, action in PLAN.items():
        name = name_of(case)
        if action in SAFE:
            assert (after[name]["state"], after[name]["local_copy"]) == APPLIED[action], name
        else:
            assert after.get(name) == before.get(name), name
    again = manage("reconcile", "--deep", *NOW)
    assert sorted(again.out.splitlines()) == sorted(
        line(case) for case, action in DIFFERENCES.items() if action not in SAFE
    )


def test_what_was_applied_ends_well(mess: Pair) -> None:
    """A reader gets the right bytes of every file that had them somewhere, and both sides have kept all of theirs."""
    manage("reconcile", "--deep", "--apply", *NOW)
    before = files(mess)
    ledger.records().filter(state="transferring").delete()
    manage("run", "--limit", "1000")
    for case, action in PLAN.items():
        if action in SAFE:
            assert read(mess, name_of(case)) == BODY, name_of(case)
            assert states()[name_of(case)] == "transferred", name_of(case)
    after = files(mess)
    assert {place: after.get(place) for place in before} == before


def test_all_is_well(pair: Pair) -> None:
    """Where the three sides agree there is no plan."""
    transfer(pair, "a.txt")
    put(pair, "b.txt")
    assert manage("reconcile", *NOW) == Ran(0, "", "0 differences, 0 put right.\n")
    assert manage("reconcile", "--json", *NOW).json == {"plan": [], "counts": {}, "left": 0}


def test_apply_ends_in_zero(pair: Pair) -> None:
    """Where all could be put right the command says so."""
    Path(pair.local.path("a.txt")).write_bytes(b"a")
    assert manage("reconcile", "--apply", *NOW) == Ran(
        0,
        "default: a.txt: ledger none, local same, remote absent: adopt: done\n",
        "1 differences (1 adopt), 1 put right.\n",
    )
    assert manage("reconcile", *NOW).code == 0


def test_young_files_are_left_out(pair: Pair) -> None:
    """What was touched lately may belong to a save that is under way."""
    Path(pair.local.path("a.txt")).write_bytes(b"a")
    assert manage("reconcile", "--apply") == Ran(0, "", "0 differences, 0 put right.\n")


def test_orphans(make_pair: MakePair) -> None:
    """Bytes of no record, under a name that is in use or refused, are named on either side and left alone."""
    pair = make_pair()
    record = transfer(pair, "a.txt")
    ledger.records().filter(pk=record.pk).update(remote_name="b.txt")
    Path(pair.remote.path("a.txt")).rename(pair.remote.path("b.txt"))
    Path(pair.remote.path("a.txt")).write_bytes(b"another")
    Path(pair.local.location, "new\nline").write_bytes(b"x")
    lines = [
        "default: new\\nline: ledger none, local same, remote absent: orphan",
        "default: a.txt: ledger none, local absent, remote same: orphan",
    ]
    assert manage("reconcile", "--apply", *NOW) == Ran(
        1, "".join(f"{text}\n" for text in lines), "2 differences (2 orphan), 0 put right.\n"
    )
    (first, second) = manage("reconcile", "--json", *NOW).json["plan"]
    assert second == {
        "storage": "default",
        "name": "a.txt",
        "ledger": "none",
        "local": "absent",
        "remote": "same",
        "action": "orphan",
        "reason": "a record of this name lies elsewhere",
        "applied": False,
        "safe": False,
    }
    assert first["reason"].startswith("Refused the file name")


def test_sizes_are_enough_without_deep(mess: Pair) -> None:
    """Without --deep bytes of the same size on a remote that vouches for nothing are believed."""
    mess.remote.forget()
    found = manage("reconcile", *NOW).out.splitlines()
    assert line(("transferred", "same", "different")) not in found
    assert line(("transferred", "same", "absent")) in found
    assert "open" not in mess.remote.counted


def test_a_closer_look_before_it_is_applied(pair: Pair) -> None:
    """Local bytes that only look right are not sent, and what has changed since the plan is left."""
    for name in ("changed.txt", "back.txt"):
        transfer(pair, name)
    Path(pair.remote.path("changed.txt")).unlink()
    Path(pair.local.path("changed.txt")).write_bytes(b"CONTENT")
    Path(pair.local.path("back.txt")).unlink()
    before = rows()
    looked = reconciling.look

    def then_back(storage: StoragePair, record: Any, deep: bool = False) -> Row:
        row = looked(storage, record, deep)
        if record.name == "back.txt":
            Path(pair.local.path("back.txt")).write_bytes(b"content")
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconciling, "look", then_back)
        ran = manage("reconcile", "--apply", "--storage", "default", "--rate", "1000", "--no-progress", *NOW)
    assert ran.out.splitlines() == [
        "default: changed.txt: ledger transferred, local same, remote absent: send-again: not done",
        "default: back.txt: ledger transferred, local absent, remote same: forget-local: not done",
    ]
    assert ran.code == 1
    assert rows() == before


def test_foreign_bytes_are_not_taken_for_a_local_copy(pair: Pair) -> None:
    """Bytes of the right size at the place of an evicted copy are read before the ledger believes them."""
    for name in ("there.txt", "gone.txt"):
        evicted(pair, name)
        Path(pair.local.path(name)).write_bytes(b"CONTENT")
    Path(pair.remote.path("gone.txt")).unlink()
    before = rows()
    assert manage("reconcile", "--apply", *NOW) == Ran(
        1,
        "default: there.txt: ledger evicted, local same, remote same: note-local: not done\n"
        "default: gone.txt: ledger evicted, local same, remote absent: send-again: not done\n",
        "2 differences (1 note-local, 1 send-again), 0 put right.\n",
    )
    assert rows() == before


def test_a_remote_without_answers(pair: Pair) -> None:
    """No answer is a line of its own, and nothing is done."""
    transfer(pair, "a.txt")
    Path(pair.local.path("new.txt")).write_bytes(b"new")

    def down(name: str) -> None:
        if name:
            raise ConnectionError("no route")

    pair.remote.faults["*"] = down
    before = rows()
    found = manage("reconcile", "--apply", "--json", *NOW).json
    assert [(row["name"], row["action"], row["reason"]) for row in found["plan"]] == [
        ("a.txt", "unknown", "ConnectionError: no route"),
        ("new.txt", "unknown", "ConnectionError: no route"),
    ]
    assert rows() == before


def test_reconcile_is_interrupted(pair: Pair) -> None:
    """Ctrl-C ends in 130 with the plan so far; what was applied stays."""
    for name in ("a.txt", "b.txt", "c.txt"):
        transfer(pair, name)
        Path(pair.remote.path(name)).unlink()

    def interrupt(name: str) -> None:
        if name == "b.txt":
            raise KeyboardInterrupt

    pair.remote.faults["exists"] = interrupt
    ran = manage("reconcile", "--apply", *NOW)
    assert (ran.code, ran.err) == (130, "1 differences (1 send-again), 1 put right.\n")
    assert record_of(pair, "a.txt").state == "queued"
    assert record_of(pair, "c.txt").state == "transferred"


def test_several_storages(make_pair: MakePair) -> None:
    """Each storage is compared for itself."""
    make_pair("other", local_options={"location": str(fresh("l"))}, remote_options={"location": str(fresh("r"))})
    pair = make_pair()
    Path(pair.local.path("a.txt")).write_bytes(b"a")
    assert manage("reconcile", "--storage", "other", *NOW).out == ""
    assert manage("reconcile", *NOW).out.startswith("default: a.txt: ledger none")
    assert list(reconciling.reconcile(pair, Scope(prefix="b", older_than=timedelta(0)))) == []
