"""The ledger in the admin: what is shown, and what nobody, or only some, can do."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from queued_storage import admin, ledger
from queued_storage.models import Outcome, TransferRecord
from tests.factories import AttemptFactory, RecordFactory
from tests.fixtures import MakePair, Outbox
from tests.staff import LIST, LogIn, act, told

pytest_plugins = ["tests.fixtures", "tests.staff"]
pytestmark = pytest.mark.django_db

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(1)>.svg'


@pytest.fixture
def operator(log_in: LogIn) -> Client:
    """A user who may look, and retry."""
    return log_in("view_transferrecord", "retry_transferrecord")


def page(client: Client, path: str = "") -> str:
    """Return the HTML of a page of the records."""
    response = client.get(LIST + path)
    assert response.status_code == 200
    return response.content.decode()


def cells(html: str) -> list[list[str]]:
    """Return the texts of the result list, row by row."""
    table = html.partition('<table id="result_list">')[2].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table.partition("<tbody>")[2], re.DOTALL)
    found = [re.findall(r'<t[dh] class="field-[^>]*>(.*?)</t[dh]>', row, re.DOTALL) for row in rows]
    return [[unescape(re.sub(r"<[^>]*>", "", cell)).replace("\xa0", " ") for cell in row] for row in found]


def names(html: str) -> list[str]:
    """Return the names in the result list."""
    return [row[0] for row in cells(html)]


def retry(client: Client, *records: TransferRecord, path: str = "", **more: str) -> Any:
    """Post the action that retries these records, confirmed."""
    return act(client, "retry", *records, path=path, **more)


def rows() -> list[dict[str, Any]]:
    """Return every record with all its columns."""
    return list(ledger.records().order_by("pk").values())


# What is shown


def test_the_list_shows_the_latest_first(viewer: Client) -> None:
    """Each row tells name, storage, state, size, retries, kind of error, age and when it is due."""
    RecordFactory(name="old.txt", failed=True, age=timedelta(days=3, hours=5), retries=6)
    RecordFactory(name="late.txt", storage="papers", size=None, due=timedelta(minutes=-5))
    RecordFactory(name="new.txt", size=123456789, due=timedelta(hours=2, minutes=30))
    assert cells(page(viewer)) == [
        ["new.txt", "default", "queued", "117.7 MB", "0", "-", "0 minutes", "in 2 hours"],
        ["late.txt", "papers", "queued", "-", "0", "-", "0 minutes", "now"],
        ["old.txt", "default", "failed", "19 bytes", "6", "refused by the remote", "3 days", "-"],
    ]


def test_the_list_costs_the_same_for_many_rows(viewer: Client) -> None:
    """No query is made for a row, and none reads what the list does not show."""
    RecordFactory.create_batch(3)
    with CaptureQueriesContext(
        connection,
    ) as few:
        page(viewer)
    RecordFactory.create_batch(60)
    with CaptureQueriesContext(connection) as many:
        assert len(names(page(viewer))) == 50
    assert len(few) == len(many)
    statements = [query["sql"] for query in many if "transferrecord" in query["sql"] and "digest" in query["sql"]]
    assert statements == []
    assert sum("COUNT" in query["sql"] for query in many) == 1


def test_a_search_finds_names_that_begin_so(make_pair: MakePair, viewer: Client) -> None:
    """The beginning of a name is looked for in every storage, in any spelling; cases are told apart."""
    make_pair("papers")
    for storage in ("default", "papers", "gone"):
        RecordFactory(name="a/b.txt", storage=storage)
    for name in ("a/b.txt2", "A/b.txt", "a_b.txt", "a/\U0010ffffb", "a"):
        RecordFactory(name=name)
    found = cells(page(viewer, "?q=./a//b.txt"))
    assert [(row[0], row[1]) for row in found] == [
        *(("a/b.txt2", "default"), ("a/b.txt", "gone"), ("a/b.txt", "papers"), ("a/b.txt", "default")),
    ]
    assert [row[1] for row in cells(page(viewer, "?q=a/b.txt&storage=gone"))] == ["gone"]
    assert len(names(page(viewer, "?q=a//"))) == 5
    assert len(names(page(viewer, "?q=a"))) == 7
    assert names(page(viewer, "?q=A")) == ["A/b.txt"]
    assert names(page(viewer, "?q=a_")) == ["a_b.txt"]


@pytest.mark.parametrize("term", ["b.txt", "a/b.txt/", "%25", "../a/b.txt", "a%0Ab.txt", "%F0%9F%92%A9", "x" * 2000])
def test_a_search_finds_nothing_else(viewer: Client, term: str) -> None:
    """Neither a part of a name nor a name that cannot be is an error, or a match."""
    RecordFactory(name="a/b.txt")
    assert names(page(viewer, f"?q={term}")) == []


def test_filters(make_pair: MakePair, viewer: Client) -> None:
    """State and storage narrow the list; storages to choose from are those of the settings and the chosen one."""
    make_pair("papers")
    RecordFactory(name="a")
    RecordFactory(name="b", failed=True)
    RecordFactory(name="c", storage="papers")
    RecordFactory(name="d", storage="gone")
    assert names(page(viewer, "?state__exact=failed")) == ["b"]
    html = page(viewer, "?storage=papers")
    assert names(html) == ["c"]
    assert set(re.findall(r'href="\?storage=([^"]*)"', html)) == {"default", "papers"}
    assert names(page(viewer, "?storage=gone&state__exact=queued")) == ["d"]


def test_hostile_names_are_harmless(viewer: Client) -> None:
    """Markup, control characters and bidirectional marks show as text in list and detail."""
    record = RecordFactory(name=HOSTILE, local_name="\x1b[31m\u202egnp.exe", remote_name="r\u2028", worker=HOSTILE)
    RecordFactory(name="x" * 40 + "\x9b" + "y" * 200)
    ledger.records().filter(pk=record.pk).update(error=f"{HOSTILE}\nline two", error_kind="passing", storage=HOSTILE)
    AttemptFactory(record=record, error=HOSTILE, worker=HOSTILE, outcome=Outcome.RETRY)
    html = page(viewer)
    assert names(html) == ["x" * 30 + "…" + "y" * 30, HOSTILE]
    detail = page(viewer, f"{record.pk}/change/")
    for text in (html, detail):
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", text)
    assert "<bdi>\\x1b[31m\\u202egnp.exe</bdi>" in detail
    assert "<br><bdi>line two</bdi>" in detail


def test_the_page_of_a_record_tells_its_story(viewer: Client) -> None:
    """Everything about a record stands there, its attempts with the latest first, and there is nothing to fill in."""
    record = RecordFactory(name="d/a.txt", failed=True, error="EntityTooLarge", retries=2, worker="")
    for outcome, kind in ((Outcome.RETRY, "throttled"), (Outcome.LOST, "lost"), (Outcome.FAILED, "refused")):
        AttemptFactory(record=record, outcome=outcome, error_kind=kind, error=f"because {kind}", bytes=2048)
    AttemptFactory(error="of another record")
    html = page(viewer, f"{record.pk}/change/")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)).replace("&nbsp;", " ").replace("\xa0", " ")
    assert re.findall(r"(failed|worker lost|to be retried) 0:00:01 2.0 KB host:1 ([a-z ]+) because (\w+)", text) == [
        ("failed", "refused by the remote", "refused"),
        ("worker lost", "worker lost", "lost"),
        ("to be retried", "throttled by the remote", "throttled"),
    ]
    assert "of another record" not in text
    for fact in ("Name: d/a.txt", "State: failed", "Error: EntityTooLarge", f"Digests: {record.digest}", "Retries: 2"):
        assert fact in text
    main = html.partition('id="content-main"')[2].partition('id="footer"')[0]
    assert not re.search(r'<textarea|<select|type="(submit|text|checkbox)"', main)
    assert "None yet." in page(viewer, f"{RecordFactory().pk}/change/")


# What can be done


@pytest.mark.django_db(transaction=True)
def test_retry_queues_afresh_and_says_what_was_not(operator: Client, outbox: Outbox) -> None:
    """Failed and waiting records are queued with all their retries; of the others the message says why not."""
    failed, waiting = RecordFactory(failed=True, retries=6), RecordFactory(retries=3, due=timedelta(hours=6))
    others = [RecordFactory(transferred=True), RecordFactory(transferred=True), RecordFactory(deleted=True)]
    before = rows()[2:]
    assert told(retry(operator, failed, waiting, *others)) == [
        ("success", "Retry selected transfers: 2 files were changed."),
        ("warning", "3 were not, for their states: 1 deleted, 2 transferred."),
    ]
    assert sorted(outbox.ids()) == [failed.pk, waiting.pk]
    assert [(row["state"], row["retries"]) for row in rows()[:2]] == [("queued", 0), ("queued", 0)]
    assert rows()[2:] == before
    assert told(retry(operator, failed)) == [("success", "Retry selected transfers: 1 file was changed.")]
    assert told(retry(operator, others[0])) == [("warning", "1 was not, for its state: 1 transferred.")]


def test_retry_of_everything_that_matches(operator: Client) -> None:
    """ "Select all" reaches the rows of the other pages too, and none that the filter hides."""
    failed = RecordFactory.create_batch(60, failed=True)
    held = RecordFactory(delayed=True)
    response = retry(operator, failed[0], path="?state__exact=failed", select_across="1")
    assert told(response) == [("success", "Retry selected transfers: 60 files were changed.")]
    assert ledger.records().filter(state="queued").count() == 60
    assert ledger.get(held.pk).state == "delayed"  # type: ignore[union-attr]


def test_an_action_is_confirmed_with_its_numbers(operator: Client) -> None:
    """Before anything changes, the page says how many files of which state are changed, and how many are not."""
    records = [*RecordFactory.create_batch(2, failed=True), RecordFactory(transferred=True)]
    before = rows()
    chosen = {"action": "retry_selected", "_selected_action": [record.pk for record in records], "index": "0"}
    response = operator.post(f"{LIST}?state__exact=failed", {**chosen, "select_across": "1"})
    html = response.content.decode()
    cells = [re.sub(r"<[^>]*>|\s+", " ", row).split() for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)]
    assert cells[-1] == ["failed", "2", "38", "bytes", "will", "be", "changed"]
    assert rows() == before
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', html)
    data: dict[str, list[str]] = {}
    for name, value in hidden:
        data.setdefault(name, []).append(value)
    assert told(operator.post(f"{LIST}?state__exact=failed", data, follow=True)) == [
        ("success", "Retry selected transfers: 2 files were changed.")
    ]


STATES = {
    "transfer": ({"delayed": "queued", "failed": "queued"}, "Transfer selected files now"),
    "hold": ({"queued": "delayed"}, "Hold selected transfers"),
    "release": ({"delayed": "queued"}, "Release selected transfers"),
    "remove": (
        dict.fromkeys(("delayed", "queued", "transferring", "transferred", "failed"), "deleted"),
        "Delete selected files",
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_each_action_changes_its_states_alone(log_in: LogIn, make_pair: MakePair, name: str) -> None:
    """It changes what it says, with its own permission, and leaves one line in the admin's log."""
    make_pair()
    changes, label = STATES[name]
    records = {
        state: RecordFactory(name=f"{state}.txt", **({state: True} if state != "queued" else {}))
        for state in ("delayed", "queued", "transferring", "transferred", "failed", "deleted")
    }
    refused = log_in("view_transferrecord", *(f"{other}_transferrecord" for other in STATES if other != name))
    before = rows()
    act(refused, name, *records.values())
    assert rows() == before
    client = log_in("view_transferrecord", f"{name}_transferrecord")
    response = act(client, name, *records.values())
    now = {state: ledger.get(record.pk).state for state, record in records.items()}  # type: ignore[union-attr]
    assert now == {state: changes.get(state, state) for state in records}
    changed = len(changes) + (name == "transfer")
    assert told(response)[0] == ("success", f"{label}: {changed} file{'s were' if changed > 1 else ' was'} changed.")
    (entry,) = LogEntry.objects.all()
    assert (entry.object_repr, entry.change_message) == ("transfer records", told(response)[0][1])


@pytest.mark.parametrize("permissions", [["view_transferrecord"], ["view_transferrecord", "change_transferrecord"]])
def test_retry_needs_its_own_permission(log_in: LogIn, permissions: list[str]) -> None:
    """Who may only look is offered no action, and a forged one changes nothing."""
    record = RecordFactory(failed=True)
    client, before = log_in(*permissions), rows()
    assert 'name="action"' not in page(client)
    retry(client, record)
    retry(client, record, select_across="1")
    assert rows() == before


def test_nothing_changes_without_a_post_and_its_token(log_in: LogIn) -> None:
    """A GET with the action's parameters, and a POST from another site, change nothing."""
    record = RecordFactory(failed=True)
    client = log_in("view_transferrecord", "retry_transferrecord", enforce_csrf_checks=True)
    before = rows()
    client.get(f"{LIST}?action=retry_selected&_selected_action={record.pk}&index=0")
    assert retry(client, record).status_code == 403
    assert rows() == before


@pytest.mark.parametrize("superuser", [False, True])
def test_nobody_writes_records_by_hand(log_in: LogIn, superuser: bool) -> None:
    """Nobody adds, edits or deletes, whatever permissions they have."""
    verbs = [f"{verb}_transferrecord" for verb in ("view", "add", "change", "delete", "retry")]
    client = log_in(*verbs)
    User.objects.update(is_superuser=superuser)
    record = RecordFactory(failed=True)
    before = rows()
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}add/", {"name": "x"}).status_code == 403
    assert client.post(f"{LIST}{record.pk}/change/", {"state": "transferred"}).status_code == 403
    assert client.post(f"{LIST}{record.pk}/delete/", {"post": "yes"}).status_code == 403
    client.post(LIST, {"action": "delete_selected", "_selected_action": record.pk, "post": "yes", "index": "0"})
    assert rows() == before
    assert "delete_selected" not in page(client)
    assert f"{LIST}add/" not in page(client)


@pytest.mark.parametrize("permissions", [[], ["retry_transferrecord"], ["view_transferattempt"]])
def test_staff_without_permission_see_nothing(log_in: LogIn, permissions: list[str]) -> None:
    """Without the permission to view there is no list, no page, and no link to them."""
    record = RecordFactory(failed=True)
    client, before = log_in(*permissions), rows()
    assert client.get(LIST).status_code == 403
    assert client.get(f"{LIST}{record.pk}/change/").status_code == 403
    assert client.get(f"{LIST}{record.pk}/history/").status_code == 403
    assert retry(client, record).status_code == 403
    assert LIST not in client.get("/admin/").content.decode()
    assert rows() == before


def test_strangers_are_sent_to_the_login(client: Client) -> None:
    """Who has not logged in is asked to."""
    response = client.get(LIST)
    assert (response.status_code, response["Location"]) == (302, f"/admin/login/?next={LIST}")


def test_the_pages_carry_no_script_or_style_of_ours(viewer: Client) -> None:
    """What this package adds to the pages needs no exception in a content security policy."""
    record = RecordFactory(failed=True)
    AttemptFactory(record=record)
    ours = page(viewer, f"{record.pk}/change/").partition('="queued-storage-attempts"')[2].partition("</section>")[0]
    assert "<table" in ours
    for html in (ours, page(viewer).partition("<tbody>")[2].partition("</tbody>")[0]):
        assert not re.search(r"<script|<style| style=| on\w+=", html)


def test_the_list_counts_no_further_than_it_shows(viewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large table is neither counted as a whole nor paged to its end; filters find the rest."""
    monkeypatch.setattr(admin.CappedPaginator, "CAP", 60)
    RecordFactory.create_batch(70)
    RecordFactory(failed=True)
    assert "60 transfer records" in page(viewer)
    assert len(names(page(viewer, "?p=2"))) == 10
    assert "1 transfer record" in page(viewer, "?state__exact=failed")


def test_no_more_is_retried_than_was_offered(operator: Client, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that matches the filter is everything that the page has counted."""
    monkeypatch.setattr(admin.CappedPaginator, "CAP", 60)
    records = RecordFactory.create_batch(70, failed=True)
    retry(operator, *records[:1], select_across="1")
    assert ledger.records().filter(state="queued").count() == 60
