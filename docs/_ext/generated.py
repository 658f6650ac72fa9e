"""What the code already says, written into the pages: a line ``<!-- generated: settings -->`` becomes the table."""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import django
from django.conf import settings as django_settings

MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
COMMANDS = "queued_storage.management.commands"


def configure() -> None:
    """Set Django up, unless somebody has: the models cannot be imported without."""
    if not django_settings.configured:
        django_settings.configure(
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            INSTALLED_APPS=["django.contrib.contenttypes", "queued_storage", "queued_storage.remotes.database"],
            SECRET_KEY="for the documentation only",
            USE_TZ=True,
        )
        django.setup()


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _value(value: Any) -> str:
    if isinstance(value, timedelta):
        units = [("days", value.days), ("seconds", value.seconds)]
        shown = [f"{name}={number}" for name, number in units if number]
        return f"`timedelta({', '.join(shown)})`"
    return f"`{value!r}`"


def settings() -> str:
    """Return the table of the settings."""
    from queued_storage.conf import settings as ours

    return _table(
        ["Setting", "Default", "Meaning"],
        ([f"`{setting.name}`", _value(setting.default), _markup(setting.__doc__ or "")] for setting in ours),
    )


def _markup(text: str) -> str:
    return re.sub(r"\b(QUEUED_STORAGE_\w+|CACHES|STORAGES|None)\b", r"`\1`", text.replace("``", "`"))


def states() -> str:
    """Return the table of the states, from the sentences beside them."""
    from queued_storage.models import State

    return _listed(State, "State")


def kinds() -> str:
    """Return the table of the kinds of error."""
    from queued_storage.exceptions import ErrorKind

    return _listed(ErrorKind, "Kind")


def _listed(choices: Any, title: str) -> str:
    text = inspect.cleandoc(choices.__doc__)
    found = re.findall(r"^``(\w+)``: (.*?)(?=^``\w+``:|\Z)", text, re.MULTILINE | re.DOTALL)
    rows = [[f"`{name}`", *" ".join(sentence.split()).replace("``", "`").split("; ", 1)] for name, sentence in found]
    assert {name for name, _ in found} == set(choices.values), f"{choices.__name__} says nothing of some of its values"
    head = {"State": ["State", "Means", "Who moves it on"], "Kind": ["Kind", "Means", "What happens"]}[title]
    return _table(head, ((*row, "")[:3] for row in rows))


def checks() -> str:
    """Return the system checks, each under an anchor, with its message, its hint and what the code says of it."""
    from queued_storage.checking import messages

    parts = []
    for name, function in inspect.getmembers(messages, inspect.isfunction):
        if re.fullmatch(r"[ew]\d{3}", name):
            what, *more = (inspect.getdoc(function) or "").split("\n\n")
            shown = function(**{key: _sample(key, parameter) for key, parameter in _parameters(function)})
            parts.append(
                f"({name})=\n## queued_storage.{name.upper()}\n\n{_sentence(what)}\n\n"
                f"```text\n{shown.msg}\n\nHINT: {shown.hint}\n```"
            )
            parts += [_sentence(text) for text in more]
    return "\n\n".join(parts)


def _parameters(function: Any) -> list[tuple[str, inspect.Parameter]]:
    return list(inspect.signature(function).parameters.items())


def _sample(name: str, parameter: inspect.Parameter) -> Any:
    many = str(parameter.annotation).startswith(("Iterable", "Sequence"))
    return [f"<{name}>"] if many else f"<{name}>"


def _sentence(text: str) -> str:
    plain = " ".join(text.split()).removeprefix("Report ").replace("``", "`")
    return _markup(plain[0].upper() + plain[1:])


def signals() -> str:
    """Return the table of the signals, from the comments above them."""
    from queued_storage import signals as module

    source = Path(inspect.getfile(module)).read_text(encoding="utf-8")
    found = re.findall(r"((?:^#: .*\n)+)^(\w+) = Signal\(\)", source, re.MULTILINE)
    rows = []
    for comment, name in found:
        text = " ".join(line.removeprefix("#:").strip() for line in comment.splitlines()).replace("``", "`")
        rows.append([f"`{name}`", _markup(text)])
    return _table(["Signal", "When, and with which arguments"], rows)


def options() -> str:
    """Return the parameters of a queued storage with their defaults."""
    from queued_storage.pairs import StoragePair

    texts = _option_texts()
    rows = []
    for name, parameter in list(inspect.signature(StoragePair.__init__).parameters.items())[1:]:
        default = getattr(StoragePair, f"default_{name}", None)
        default = getattr(StoragePair, name, None) if default is None else default
        shown = "required" if name in ("local", "remote") else _value({} if name.endswith("options") else default)
        keyword = " (by name only)" if parameter.kind is parameter.KEYWORD_ONLY else ""
        rows.append([f"`{name}`{keyword}", shown, texts[name]])
    return _table(["Option", "Default", "Meaning"], rows)


def _option_texts() -> dict[str, str]:
    text = (Path(__file__).parent / "options.txt").read_text(encoding="utf-8")
    found = re.findall(r"^(\w+): (.*?)(?=^\w+: |\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: " ".join(sentence.split()) for name, sentence in found}


def classes() -> str:
    """Return the table of the named classes with their two sides."""
    from queued_storage import backends
    from queued_storage.pairs import StoragePair

    rows = []
    for name, cls in vars(backends).items():
        if inspect.isclass(cls) and issubclass(cls, StoragePair) and cls is not StoragePair:
            sides = [f"`{cls.default_local}`", f"`{cls.default_remote}`" if cls.default_remote else "yours"]
            rows.append([f"`{name}`", sides[0] if cls.default_local else "yours", sides[1]])
    return _table(["Class", "Local", "Remote"], rows)


def commands() -> str:
    """Return the ``--help`` of every command."""
    parts = []
    for name in command_names():
        module = __import__(f"{COMMANDS}.{name}", fromlist=["Command"])
        # As wide as a page, whatever the terminal.
        os.environ["COLUMNS"] = "100"
        parser = module.Command().create_parser("manage.py", name)
        text = _without_djangos_own(parser).rstrip()
        parts.append(f"({name})=\n## `{name}`\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


def command_names() -> list[str]:
    """Return the names of all commands."""
    import queued_storage.management.commands as package

    return sorted(path.stem for path in Path(package.__path__[0]).glob("queued_storage_*.py"))


def _without_djangos_own(parser: Any) -> str:
    own = {"--version", "--verbosity", "--settings", "--pythonpath", "--traceback", "--no-color", "--force-color"}
    for action in parser._actions:
        if own & set(action.option_strings) or "--skip-checks" in action.option_strings:
            action.help = argparse.SUPPRESS
    return str(parser.format_help())


def more_pages() -> str:
    """Return the table of contents of the pages that the index does not list."""
    folder = Path(__file__).resolve().parents[1]
    listed = (folder / "index.md").read_text(encoding="utf-8")
    names = sorted(path.stem for path in folder.glob("*.md") if f"\n{path.stem}\n" not in listed)
    names.remove("index")
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"]) if names else ""


def exceptions() -> str:
    """Return the exceptions with the sentence each of them is about."""
    from queued_storage import exceptions as module

    tree = ast.parse(Path(inspect.getfile(module)).read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("Error")]
    rows = []
    for name in names:
        cls = getattr(module, name)
        bases = ", ".join(f"`{base.__name__}`" for base in cls.__bases__)
        rows.append([f"`{name}`", bases, " ".join((inspect.getdoc(cls) or "").split())])
    return _table(["Exception", "Is a", "Meaning"], rows)


GENERATORS: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (settings, states, kinds, checks, signals, options, classes, commands, exceptions, more_pages)
}


def expand(text: str) -> str:
    """Return a page with every marker replaced."""
    return MARKER.sub(lambda match: GENERATORS[match[1]](), text)


def _read(app: Any, docname: str, source: list[str]) -> None:
    source[0] = expand(source[0])


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    configure()
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "version": "1"}
