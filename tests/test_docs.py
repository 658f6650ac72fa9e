"""The documentation is true: its code runs, its settings pass the checks, and nothing is left out.

A Python block of a page is run, after those before it on the page, in a project whose default storage is queued. The
comment above a block says otherwise: ``<!-- settings -->`` is checked as a project's settings, and must raise the
messages named after a colon and no others; ``<!-- compiled: why -->`` cannot run here; ``file`` and ``append`` belong
to the tutorial.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from queued_storage import exceptions, metrics, models, signals
from queued_storage.backends import QueuedStorage
from queued_storage.conf import settings as ours
from tests.conftest import Media

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"
sys.path.append(str(DOCS / "_ext"))

import generated  # noqa: E402 the extension of Sphinx that writes the reference

FENCE = re.compile(
    r"(?:^ *<!-- (?P<how>[^\n]*?) -->\n)?^(?P<indent> *)```python\n(?P<code>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
INDENTED = re.compile(r"^\n((?:    .*\n|\n)+)", re.MULTILINE)
GLOSSARY = re.compile(r"^(.+)\n: ", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block of Python, and how it is tried."""

    page: str
    number: int
    how: str
    code: str

    @property
    def kind(self) -> str:
        """The first word of the comment; ``run`` without one."""
        return self.how.split(":")[0] or "run"

    @property
    def expected(self) -> set[str]:
        """The ids of checks that its settings may raise."""
        return {f"queued_storage.{word}" for word in self.how.partition(":")[2].split()}

    @property
    def tolerated(self) -> set[str]:
        """The ids that it may raise besides: who may read the files is no matter of a remote's page."""
        return {"queued_storage.E011"} if "remotes/" in self.page else set()


def pages() -> list[Path]:
    """Return every page, and the readme."""
    found = [path for path in DOCS.rglob("*.md") if not {"demo", "_build"} & {*path.relative_to(DOCS).parts}]
    return [PROJECT / "README.md", *sorted(found)]


def blocks() -> list[Block]:
    """Return every Python block: the fenced ones, and settings that are set off by indentation alone."""
    found = []
    for page in pages():
        text, name = page.read_text(encoding="utf-8"), str(page.relative_to(PROJECT))
        number = 0
        for number, match in enumerate(FENCE.finditer(text), 1):
            code = "".join(line.removeprefix(match["indent"]) for line in match["code"].splitlines(keepends=True))
            how = match["how"] or ("settings" if name == "README.md" or "remotes/" in name else "")
            found.append(Block(name, number, how, code))
        for match in INDENTED.finditer(FENCE.sub("\n", text)):
            code = inspect.cleandoc("\n" + match[1]) + "\n"
            if re.match(r"(STORAGES|INSTALLED_APPS|[A-Z_]+) \+?= ", code):
                number += 1
                found.append(Block(name, number, "settings", code))
    return found


BLOCKS = blocks()
KINDS = {kind: [block for block in BLOCKS if block.kind == kind] for kind in ("run", "settings", "compiled")}


def test_every_block_is_tried() -> None:
    """Every block says how it is tried by a word that means something, and what is only compiled says why."""
    known = {"run", "settings", "compiled", "file", "append"}
    assert [block for block in BLOCKS if block.kind not in known] == []
    assert [block for block in KINDS["compiled"] if not block.how.partition(": ")[2]] == []
    assert min(len(found) for found in KINDS.values()) > 0


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}-{block.number}")
def test_it_is_python(block: Block) -> None:
    """Every Python block compiles."""
    compile(block.code, block.page, "exec")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("page", sorted({block.page for block in KINDS["run"]}))
def test_it_runs(page: str, media: Media, capsys: Any) -> None:
    """The blocks of a page run one after the other, and what they assert is true."""
    media.local.mkdir(exist_ok=True)
    namespace: dict[str, Any] = {"__name__": "docs"}
    with _registered_nothing():
        for block in KINDS["run"]:
            if block.page == page:
                exec(compile(block.code, f"{page} block {block.number}", "exec"), namespace)


class _registered_nothing:
    """Take back the receivers and adapters that a page has registered."""

    def __enter__(self) -> None:
        from queued_storage.remotes import registry

        self.found = [signals.file_transferred, signals.transfer_failed, signals.transfer_stalled]
        self.receivers = [list(signal.receivers) for signal in self.found]
        self.registry, self.adapters = registry, dict(registry._adapters)

    def __exit__(self, *error: object) -> None:
        for signal, receivers in zip(self.found, self.receivers, strict=True):
            signal.receivers = receivers
            signal.sender_receivers_cache.clear()
        self.registry._adapters.clear()
        self.registry._adapters.update(self.adapters)


PRELUDE = """
import json
from pathlib import Path
from queued_storage.conf import BEAT_SCHEDULE as _SWEEP

BASE_DIR = Path({folder!r})
SECRET_KEY = "x"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "db.sqlite3",
        "OPTIONS": {{"transaction_mode": "IMMEDIATE", "timeout": 20}},
    }}
}}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
MEDIA_ROOT, MEDIA_URL = BASE_DIR / "media", "/media/"
CELERY_BROKER_URL = "redis://localhost"
CELERY_BEAT_SCHEDULE = _SWEEP
"""
AFTERWARDS = """
INSTALLED_APPS = list(dict.fromkeys([*(app for app in INSTALLED_APPS if app is not ...), "queued_storage"]))
"""
CHECK = """
import json, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "docs_settings"
import django
from celery import Celery
app = Celery("docs")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()
django.setup()
from django.core import checks
found = checks.run_checks()
print(json.dumps([[message.id, str(message)] for message in found]))
"""


@pytest.mark.parametrize("block", KINDS["settings"], ids=lambda block: f"{block.page}-{block.number}")
def test_the_settings_are_right(block: Block, tmp_path: Path) -> None:
    """A project with these settings has nothing to complain about, but for what the page itself says."""
    (tmp_path / "docs_settings.py").write_text(PRELUDE.format(folder=str(tmp_path)) + block.code + AFTERWARDS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "AWS_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHECK],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = {ident: text for ident, text in json.loads(done.stdout) if not _only_not_installed(text)}
    assert {*found} - block.tolerated == block.expected, "\n".join(found.values())


def _only_not_installed(text: str) -> bool:
    # The clients of the remotes are not all installed where the tests run.
    return "pip install" in text


def whole_text() -> str:
    """Return the documentation as it is read, with what is generated."""
    generated.configure()
    return "\n".join(generated.expand(page.read_text(encoding="utf-8")) for page in pages())


@pytest.fixture(scope="module")
def text() -> str:
    """The documentation as it is read."""
    return whole_text()


def tools() -> Iterator[str]:
    """Yield the source of the tests' own tools, which read variables of such names."""
    for path in (PROJECT / "tests").rglob("*.py"):
        if not path.name.startswith("test_docs"):
            yield path.read_text(encoding="utf-8")


def source_of_package() -> str:
    """Return all code of the package."""
    folder = Path(inspect.getfile(models)).parent
    return "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))


def ids_of_checks() -> list[str]:
    """Return the ids that the code speaks of."""
    return sorted({*re.findall(r"queued_storage\.[EW]\d{3}", source_of_package())})


def test_every_check_is_documented(text: str) -> None:
    """Every id of a system check stands in the reference, with its message."""
    assert len(ids_of_checks()) > 20
    assert [ident for ident in ids_of_checks() if f"## {ident}\n" not in text] == []


def test_every_setting_is_documented(text: str) -> None:
    """Every setting stands in the table, and the pages name none that does not exist."""
    names = {setting.name for setting in ours}
    assert [name for name in sorted(names) if f"| `{name}` |" not in text] == []
    # Those of the tests are no settings.
    named = set(re.findall(r"\bQUEUED_STORAGE_(?!TESTS_)[A-Z_]+[A-Z]\b", text))
    assert named - names - set(re.findall(r"\bQUEUED_STORAGE_[A-Z_]+", "".join(tools()))) == set()


def test_every_command_is_documented(text: str) -> None:
    """The help of every command stands in the reference, and the pages name none that does not exist."""
    names = generated.command_names()
    assert [name for name in names if f"## `{name}`\n" not in text] == []
    # Metrics, tables and indexes have such names as well.
    known = set(re.findall(r"\bqueued_storage_[a-z_]+\b", source_of_package())) | {*metric_names()}
    assert set(re.findall(r"\bqueued_storage_[a-z_]+\b", text)) - {*names} - known == set()


def metric_names() -> list[str]:
    """Return the names of all metrics."""
    source = Path(inspect.getfile(metrics)).read_text(encoding="utf-8")
    return [f"queued_storage_{name}" for name in re.findall(r"Metric\(\s*\"(\w+)\"", source)]


def test_every_metric_is_documented(text: str) -> None:
    """Every metric stands in the table."""
    assert len(metric_names()) > 5
    assert [name for name in metric_names() if f"| `{name}` |" not in text] == []


def test_every_signal_is_documented(text: str) -> None:
    """Every signal stands in the table."""
    names = [name for name, value in vars(signals).items() if type(value) is signals.Signal]
    assert len(names) > 3
    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_every_state_and_kind_is_documented(text: str) -> None:
    """Every state and every kind of error stands in its table; the outcomes are named."""
    values = [*models.State.values, *exceptions.ErrorKind.values]
    assert [value for value in values if f"| `{value}` |" not in text] == []
    assert [value for value in models.Outcome.values if f"`{value}`" not in text] == []


def test_every_option_is_documented(text: str) -> None:
    """Every parameter of a queued storage stands in the table with a sentence."""
    names = list(inspect.signature(QueuedStorage.__init__).parameters)[1:]
    assert len(names) > 10
    assert [name for name in names if not re.search(rf"^\| `{name}`.* \| .{{20,}} \|$", text, re.MULTILINE)] == []


def test_every_class_and_exception_is_documented(text: str) -> None:
    """Every named class and every exception for callers stands in its table."""
    tree = ast.parse(Path(inspect.getfile(exceptions)).read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("Error")]
    from queued_storage import backends

    names += [name for name in vars(backends) if name.startswith("Queued") and name.endswith("Storage")]
    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_the_glossary_has_the_words(text: str) -> None:
    """The words of the glossary are those of the code, in order."""
    terms = GLOSSARY.findall((DOCS / "glossary.md").read_text(encoding="utf-8"))
    verbs = {"queue", "claim", "complete", "retry", "fail", "hold", "release", "rescue", "evict", "remove", "prune"}
    assert verbs - {*terms} == set()
    assert terms == sorted(terms)


def test_pictures() -> None:
    """Each picture is small, and on a page; ``tests/test_dashboard_browser.py`` says how they are made anew."""
    pages = "".join(page.read_text() for page in (PROJECT / "docs").rglob("*.md"))
    pictures = list((PROJECT / "docs" / "images").glob("*.png"))
    assert [picture.name for picture in pictures if picture.stat().st_size > 150_000] == []
    assert [picture.name for picture in pictures if f"/{picture.name})" not in pages] == []
    assert len(pictures) >= 2
