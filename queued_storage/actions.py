"""The actions of the admin: what each one does, to which states, and who may have it done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models import Case, Count, Q, QuerySet, Sum, Value, When
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from queued_storage import evicting, handful, operations, restoring, verifying
from queued_storage.models import State, TransferRecord
from queued_storage.names import escape
from queued_storage.results import Result


@dataclass(frozen=True)
class Action:
    """One action; ``name`` is that of its permission as well, ``able`` says which records it changes.

    ``command`` does the same to any number of files, where the action itself does a handful.
    """

    name: str
    label: Any
    question: Any
    run: Callable[..., Result]
    able: Q
    command: str = ""


def _in(*states: State) -> Q:
    return Q(state__in=states)


ACTIONS = {
    action.name: action
    for action in (
        Action(
            "transfer",
            _("Transfer selected files now"),
            _("Queue these files, to go now, with all retries?"),
            operations.transfer,
            _in(State.DELAYED, State.QUEUED, State.FAILED),
        ),
        Action(
            "retry",
            _("Retry selected transfers"),
            _("Queue these files afresh, with all retries?"),
            operations.retry,
            _in(*operations.RETRIABLE),
        ),
        Action(
            "hold",
            _("Hold selected transfers"),
            _("Hold these files until somebody releases them? They are served from the local storage meanwhile."),
            operations.hold,
            _in(State.QUEUED),
        ),
        Action(
            "release",
            _("Release selected transfers"),
            _("Queue these files, which are held?"),
            operations.release,
            _in(State.DELAYED),
        ),
        Action(
            "remove",
            _("Delete selected files"),
            _("Delete these files, on both sides? They are gone for readers at once, and nobody can bring them back."),
            operations.remove,
            ~Q(state=State.DELETED),
        ),
        Action(
            "verify",
            _("Verify selected files on the remote"),
            _(
                "Ask the remote whether it still holds these files? What is gone or altered there is queued again "
                "where the local copy was kept; nothing is deleted or written over."
            ),
            handful.verify,
            handful.VERIFIABLE,
            "queued_storage_verify",
        ),
        Action(
            "evict",
            _("Evict local copies of selected files"),
            _("Remove the local copies of these files, each after the remote was asked again?"),
            handful.evict,
            handful.EVICTABLE,
            "queued_storage_evict",
        ),
        Action(
            "restore",
            _("Restore local copies of selected files"),
            _("Copy these files from the remote back to the local side? They stay there until somebody evicts them."),
            handful.restore,
            handful.RESTORABLE,
            "queued_storage_restore",
        ),
    )
}

#: Why a file was changed or not, by the outcome of the operation, beside the labels of the states.
OUTCOMES = {
    verifying.VERIFIED: _("verified"),
    verifying.REQUEUED: _("gone or altered on the remote, queued again"),
    verifying.MISSING: _("gone from the remote"),
    verifying.ALTERED: _("altered on the remote"),
    verifying.UNKNOWN: _("no answer"),
    evicting.EVICTED: _("evicted"),
    evicting.ABSENT: _("without a local copy"),
    evicting.KEPT: _("kept"),
    restoring.RESTORED: _("restored"),
    restoring.PRESENT: _("with a local copy already"),
    restoring.TAKEN: _("whose local place is taken"),
    handful.SILENT: _("on a remote that does not answer"),
}


def in_words(counts: Counter[str]) -> str:
    """Return counts by state or outcome for people."""
    known = {**OUTCOMES, **{str(state.value): state.label for state in State}}
    labelled = sorted((str(known.get(outcome, outcome)), count) for outcome, count in counts.items())
    return ", ".join(f"{count} {label}" for label, count in labelled)


@dataclass(frozen=True)
class Group:
    """The selected files of one state."""

    state: State
    files: int
    bytes: int
    changes: bool


def groups(rows: QuerySet[TransferRecord], action: Action) -> list[Group]:
    """Return what is selected, by state, and whether ``action`` would change it."""
    able = Case(When(action.able, then=Value(True)), default=Value(False))
    counted = rows.order_by().annotate(able=able).values("state", "able").annotate(files=Count("pk"), bytes=Sum("size"))
    found = {(row["state"], bool(row["able"])): row for row in counted}
    return [
        Group(state, found[state, able]["files"], found[state, able]["bytes"] or 0, able)
        for state in State
        for able in (True, False)
        if (state, able) in found
    ]


def bound(action: Action) -> str:
    """Return what of its selection an action does at once, in words; empty for one that does all of it."""
    if not action.command:
        return ""
    facts = {"files": handful.FILES, "size": filesizeformat(handful.LARGEST), "seconds": round(handful.SECONDS)}
    text = _(
        "At once it is the first %(files)d files of up to %(size)s, as many as it takes %(seconds)d seconds to begin. "
        "For any number of them run: manage.py %(command)s"
    )
    return str(text) % {**facts, "command": action.command}


def outcome(result: Result, action: Action) -> str:
    """Return in one line what an action has done."""
    text = ngettext("%d file was changed.", "%d files were changed.", result.changed) % result.changed
    if action.command:
        text = in_words(result.done) or gettext("nothing")
    return f"{action.label}: {text}"


def told(result: Result, action: Action) -> Iterator[tuple[int, str]]:
    """Yield messages on what an action has done and what not, and why, with their levels."""
    if result.changed:
        yield messages.SUCCESS, outcome(result, action)
    counts = result.unchanged
    if others := +Counter({name: count for name, count in counts.items() if name != handful.LEFT}):
        yield messages.WARNING, _not_changed(others)
    for each in result.told:
        yield messages.WARNING, f"{escape(each.name)}: {each.reason}"
    if counts[handful.LEFT]:
        text = ngettext("%d file was left.", "%d files were left.", counts[handful.LEFT]) % counts[handful.LEFT]
        yield messages.WARNING, f"{text} {bound(action)}"


def _not_changed(counts: Counter[str]) -> str:
    total, by_state = counts.total(), counts.keys() <= set(State.values)
    if by_state:
        text = ngettext(
            "%(count)d was not, for its state: %(reasons)s.",
            "%(count)d were not, for their states: %(reasons)s.",
            total,
        )
    else:
        text = ngettext("%(count)d was not: %(reasons)s.", "%(count)d were not: %(reasons)s.", total)
    return text % {"count": total, "reasons": in_words(counts)}
