"""Whoever reads German or French reads nothing else: the catalogs are complete, fresh, and used."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from django.utils.translation import gettext, ngettext, override

from queued_storage.models import State, StorageHealth
from queued_storage.probes import Limits, check, page
from tests import translating
from tests.conftest import serve
from tests.factories import AttemptFactory, RecordFactory
from tests.translating import LANGUAGES, PACKAGE, catalog, compiled, run, source

LIST = "/admin/queued_storage/transferrecord/"
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?(?:\.\d)?[a-z%]|</?\w+>")


@pytest.fixture
def tools() -> Iterator[None]:
    """The programs of GNU gettext."""
    yield from serve(translating.tools)


@pytest.fixture
def german(settings: Any) -> None:
    """A project in German."""
    settings.LANGUAGE_CODE = "de"


def left_in_english(text: str) -> list[str]:
    """Return the messages of ours that a German text has in English."""
    entries = catalog(source("de").with_suffix(".mo")).items()
    plain = [key for key, german in entries if isinstance(key, str) and key != german and "%" not in key]
    # Short words are in other words, and in names that are typed.
    return [key for key in plain if len(key) > 12 and key in text]


@pytest.mark.parametrize("language", LANGUAGES)
def test_complete(language: str, tools: None) -> None:
    """Every message is translated, none of them is a guess, and none is of yesterday."""
    for wanted in (("--untranslated", "--no-obsolete"), ("--only-fuzzy", "--no-obsolete"), ("--only-obsolete",)):
        assert run("msgattrib", *wanted, source(language)) == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_compiled(language: str, tools: None, tmp_path: Path) -> None:
    """What is shipped is what stands in the source; otherwise run ``python -m tests.translating``."""
    fresh = compiled(source(language), tmp_path / "fresh.mo")
    assert catalog(source(language).with_suffix(".mo")) == catalog(fresh)


def test_extracted(tools: None, tmp_path: Path) -> None:
    """The catalogs have the messages of the sources, no more and no less; otherwise run the same."""
    copy = tmp_path / "queued_storage"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    translating.extract(copy)
    current, english = tmp_path / "current.po", tmp_path / "english.po"
    for language in LANGUAGES:
        run("msgattrib", "--no-obsolete", "--clear-fuzzy", "-o", current, source(language, copy))
        run("msgen", "-o", english, current)
        wanted = set(catalog(compiled(english, tmp_path / "english.mo")))
        found = set(catalog(source(language).with_suffix(".mo")))
        assert (wanted - found, found - wanted) == (set(), set())


def spoken(call: ast.Call) -> list[ast.expr]:
    """Return what of a call people will read."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("good", "bad", "unclear"):
        return call.args[1:]
    if name in ("Error", "Warning"):
        return [*call.args[:1], *(word.value for word in call.keywords if word.arg == "hint")]
    return call.args[:1] if name in ("tell", "failure") else []


def is_bare(node: ast.expr) -> bool:
    """Tell whether an expression is words that did not go through gettext."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return any(isinstance(part, ast.Constant) and re.search(r"[a-z]{2}", str(part.value)) for part in parts)


def test_marked() -> None:
    """What checks, doctor and commands say goes through gettext."""
    places = [*PACKAGE.glob("management/commands/*.py"), *PACKAGE.glob("checking/*.py")]
    places += [PACKAGE / "doctor.py", PACKAGE / "canary.py"]
    calls = [(path, node) for path in places for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    said = [(path.name, each) for path, node in calls if isinstance(node, ast.Call) for each in spoken(node)]
    assert len(said) > 100
    assert [f"{name}: {ast.unparse(each)}" for name, each in said if is_bare(each)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_placeholders(language: str) -> None:
    """A translation takes the values and the marks of its message, so that none is lost and nothing fails."""
    for key, text in catalog(source(language).with_suffix(".mo")).items():
        english = key if isinstance(key, str) else key[0]
        assert sorted(PLACEHOLDER.findall(text)) == sorted(PLACEHOLDER.findall(english)), english


@pytest.mark.parametrize("language", LANGUAGES)
def test_django_finds_them(language: str) -> None:
    """Django reads the catalogs from the package, plurals included."""
    with override(language):
        texts = {gettext("Drained in about"), ngettext("%d file was changed.", "%d files were changed.", 2)}
        assert texts.isdisjoint({"Drained in about", "%d files were changed."})
        labels = [str(state.label) for state in State]
    assert labels != list(State.values)


@pytest.fixture
def client(db: None) -> Client:
    """Somebody who may do everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    return client


def trouble() -> None:
    """Write a ledger with something of everything."""
    RecordFactory(transferred=True)
    RecordFactory(failed=True, error_kind="missing")
    RecordFactory(retries=9, age=timedelta(hours=5))
    AttemptFactory()
    now = timezone.now()
    facts = {"failures": 5, "last_record": 1, "error_kind": "passing", "updated_at": now}
    StorageHealth.objects.create(storage="default", down_since=now - timedelta(hours=2), error="no answer", **facts)


def test_the_dashboard_in_german(german: None, client: Client) -> None:
    """The dashboard speaks German, in the good and in the bad."""
    empty = client.get(f"{LIST}dashboard/").text
    assert "Noch keine Dateien." in empty
    trouble()
    text = client.get(f"{LIST}dashboard/").text
    for said in (
        "Der Fernspeicher von default ist ausgefallen.",
        "<strong>1 Datei ist fehlgeschlagen</strong>",
        "lokale Datei fehlt",
        "Der Sweep läuft nicht.",
        "Letzte 24 Stunden",
    ):
        assert said in text
    assert left_in_english(empty) + left_in_english(text) == []


def test_the_list_in_german(german: None, client: Client) -> None:
    """So do the list with its filters and actions, the question before an action, its answer and a record's page."""
    record = RecordFactory(failed=True)
    AttemptFactory(record=record)
    texts = [client.get(LIST).text, client.get(f"{LIST}{record.pk}/change/").text]
    assert "Ausgewählte Übertragungen wiederholen" in texts[0]
    assert "fehlgeschlagen" in texts[0]
    assert "Übertragungseintrag ansehen" in texts[1]
    chosen = {"action": "retry_selected", "_selected_action": [record.pk]}
    texts.append(client.post(LIST, chosen).text)
    assert "Diese Dateien von Neuem einreihen, mit allen Wiederholungen?" in texts[2]
    texts.append(client.post(LIST, {**chosen, "confirmed": "retry"}, follow=True).text)
    assert "Ausgewählte Übertragungen wiederholen: 1 Datei wurde geändert." in texts[3]
    assert [left_in_english(text) for text in texts] == [[], [], [], []]


@pytest.mark.django_db
def test_status_in_german(german: None) -> None:
    """The status command does, but for its JSON, which programs read."""
    trouble()
    out, err, data = io.StringIO(), io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit):
        call_command("queued_storage_status", "--max-failed", "0", stdout=out, stderr=err)
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert lines[0] == "Speicher Zustand Dateien Bytes"
    assert "fehlgeschlagen: 1 Dateien (1 missing)" in lines
    assert "Sweep: nie" in lines
    assert err.getvalue() == "1 Dateien sind fehlgeschlagen: mehr als --max-failed\n"
    with pytest.raises(SystemExit):
        call_command("queued_storage_status", "--max-failed", "0", "--json", stdout=data)
    assert json.loads(data.getvalue())["exceeded"] == ["1 files have failed: more than --max-failed"]


@pytest.mark.django_db
def test_health_for_programs(german: None, rf: Any) -> None:
    """Limits are told in the language of who asks; the page for programs answers in English."""
    RecordFactory(failed=True)
    limits = Limits(max_failed=0)
    assert [each.text for each in check(limits)] == ["1 Dateien sind fehlgeschlagen"]
    assert json.loads(page(limits)(rf.get("/")).content)["exceeded"] == {"max_failed": "1 files have failed"}


def test_checks_in_german(german: None, settings: Any) -> None:
    """System checks and their hints do, with what is to be typed as it is typed."""
    settings.QUEUED_STORAGE_RETRYS = 3
    found = [(check.msg, check.hint) for check in run_checks(tags=["queued_storage"]) if "RETRYS" in check.msg]
    assert found == [("Eine Einstellung QUEUED_STORAGE_RETRYS gibt es nicht.", "Meinten Sie QUEUED_STORAGE_RETRIES?")]
