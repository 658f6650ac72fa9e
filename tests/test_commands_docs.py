"""The pages for operators name every command, flag, exit code, metric, signal and log key, as the code has them.

``QUEUED_STORAGE_UPDATE_DOCS=1`` writes the tables of ``docs/commands.md`` anew.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand
from django.dispatch import Signal

from queued_storage import metrics, signals
from queued_storage.management.commands._flags import SHARED
from queued_storage.probes import Limits
from tests.factories import AttemptFactory, RecordFactory
from tests.test_commands import COMMANDS

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "commands.md"
WATCHING = PROJECT / "docs" / "watching.md"
# Where the package is, which in tox is an installed wheel and not the clone.
PACKAGE = Path(metrics.__file__).parent
FOLDER = PACKAGE / "management" / "commands"
NAMES = sorted(path.stem for path in FOLDER.glob("queued_storage_*.py"))


def own_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return what a command takes beside what every command of Django takes."""
    common = {action.dest for action in BaseCommand().create_parser("manage.py", "x")._actions}
    return [action for action in parser._actions if action.dest not in common]


def spelled(action: argparse.Action) -> str:
    """Return how an argument is written."""
    if not action.option_strings:
        return f"{action.metavar or action.dest} ..."
    value = "" if action.nargs == 0 else f" {action.metavar or '|'.join(map(str, action.choices or [action.dest]))}"
    return f"{action.option_strings[0]}{value}".replace("|", "\\|")


def reference(name: str) -> str:
    """Return the part of the page that the code says: help, arguments, exit codes."""
    command: Any = load_command_class("queued_storage", name)
    rows = [f"| `{spelled(each)}` | {each.help} |" for each in own_actions(command.create_parser("manage.py", name))]
    ends = "; ".join(f"{code}: {text}" for code, text in command.all_exit_codes().items())
    return "\n".join([command.help, "", "| argument | meaning |", "|---|---|", *rows, "", f"Exit codes: {ends}.", ""])


def block(name: str) -> re.Pattern[str]:
    """Return the pattern of the part of the page that belongs to a command."""
    return re.compile(rf"(?<=<!-- begin {name} -->\n).*?(?=<!-- end {name} -->)", re.DOTALL)


def test_every_command_is_tested_and_documented() -> None:
    """No command is without tests and a section, and no section is without its command."""
    assert sorted(f"queued_storage_{command}" for command in COMMANDS) == NAMES
    assert sorted(re.findall(r"^## (queued_storage_\w+)$", PAGE.read_text(), re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_flag_is_documented(name: str) -> None:
    """The page says of each command what its ``--help`` says."""
    text = PAGE.read_text()
    found = block(name).search(text)
    assert found is not None, f"no part for {name}"
    if os.environ.get("QUEUED_STORAGE_UPDATE_DOCS"):
        PAGE.write_text(block(name).sub(lambda match: reference(name), text))
        return
    assert found[0] == reference(name)


def options_of(name: str) -> set[str]:
    """Return the flags of a command."""
    command: Any = load_command_class("queued_storage", name)
    actions = own_actions(command.create_parser("manage.py", name))
    return {option for action in actions for option in action.option_strings}


def matrix() -> str:
    """Return the table of the shared flags that each command has."""
    flags = ["--storage", "--state", "--prefix", "--older-than", "--limit", "--dry-run", "--no-progress"]
    lines = [f"| | {' | '.join(f'`{flag}`' for flag in flags)} |", "|---|" + "---|" * len(flags)]
    for name in NAMES:
        command: Any = load_command_class("queued_storage", name)
        has = {
            option for each in own_actions(command.create_parser("manage.py", name)) for option in each.option_strings
        }
        short = name.removeprefix("queued_storage_")
        lines.append(f"| {short} | {' | '.join('yes' if flag in has else '' for flag in flags)} |")
    return "\n".join([*lines, ""])


def test_the_table_of_flags() -> None:
    """The page says which command has which of the shared flags."""
    text = PAGE.read_text()
    if os.environ.get("QUEUED_STORAGE_UPDATE_DOCS"):
        PAGE.write_text(block("flags").sub(lambda match: matrix(), text))
        return
    found = block("flags").search(text)
    assert found is not None
    assert found[0] == matrix()


@pytest.mark.parametrize("name", NAMES)
def test_what_takes_long_tells_how_far_it_is(name: str) -> None:
    """A command that goes through files counts them, and can be told not to; one that can change them has a dry run."""
    has = options_of(name)
    if "--limit" in has:
        assert {"--storage", "--prefix", "--older-than", "--dry-run", "--no-progress"} <= has
    assert "--dry-run" in has or name in ("queued_storage_status", "queued_storage_doctor")


@pytest.mark.parametrize("name", NAMES)
def test_shared_flags_are_the_same_everywhere(name: str) -> None:
    """A flag that several commands take means the same and is read the same way."""
    command: Any = load_command_class("queued_storage", name)
    for action in own_actions(command.create_parser("manage.py", name)):
        shared = SHARED.get(action.option_strings[0] if action.option_strings else "")
        if shared is not None:
            assert (action.help, action.type) == (shared["help"], shared.get("type"))


def examples() -> list[str]:
    """Return every command line that the pages show."""
    text = PAGE.read_text() + WATCHING.read_text()
    lines = re.findall(r"^(?:.* )?(?:python )?manage\.py (queued_storage_[^#|`\n]*)", text, re.MULTILINE)
    return sorted({line.strip() for line in lines})


@pytest.mark.django_db
@pytest.mark.parametrize("line", examples())
def test_every_example_can_be_typed(line: str) -> None:
    """What the page shows is understood by the parser."""
    name, *arguments = shlex.split(line)
    arguments = ["default" if word == "media" else word for word in arguments]
    command: Any = load_command_class("queued_storage", name)
    command.create_parser("manage.py", name).parse_args(arguments)


@pytest.mark.django_db
def test_watching_is_documented() -> None:
    """The page names every signal, metric, limit and log key, and no metric that is not there."""
    page = WATCHING.read_text()
    for name in (name for name, value in vars(signals).items() if isinstance(value, Signal)):
        assert f"| `{name}` |" in page
    AttemptFactory()
    RecordFactory(failed=True)
    # The age of the sweep has no sample yet, but its name.
    names = {f"queued_storage_{metric.name}" for metric in metrics.collect()}
    assert set(re.findall(r"^\| `(queued_storage_\w+)`", page, re.MULTILINE)) == names
    for limit in Limits.__dataclass_fields__:
        assert f"`{limit}`" in page
    assert [key for key in log_keys() if f"`{key}`" not in page] == []


def log_keys() -> list[str]:
    """Return the keys under which log records about files carry their facts."""
    inner = {"cache_key", "entry", "receiver", "type", "leftovers"}
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for facts in re.findall(r"extra=(?:log_facts\(\w+(?:\.\w+)?(.*?)\)|\{(.*?)\})\)", text):
            found.update(_names(" ".join(facts)))
    return sorted(found - inner)


def _names(text: str) -> set[str]:
    return {first or second for first, second in re.findall(r"(\w+)=|\"(\w+)\":", text)}
