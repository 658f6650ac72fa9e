"""The page of a record: what lies on both sides, asked without waiting for ever, and who uses the file."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from queued_storage import asking, copies, ledger, uses
from queued_storage.models import TransferRecord
from tests.app.models import Document, Photo
from tests.factories import RecordFactory
from tests.fixtures import MakePair, Pair, put, transfer
from tests.staff import LIST, LogIn
from tests.storages import Gate

pytest_plugins = ["tests.fixtures", "tests.staff"]
pytestmark = pytest.mark.django_db


def section(client: Client, record: TransferRecord, name: str, look: bool = True) -> str:
    """Return a part of the page of a record."""
    response = client.get(f"{LIST}{record.pk}/change/{'?look=1' if look else ''}")
    assert response.status_code == 200
    return str(response.content.decode().partition(f'="queued-storage-{name}">')[2].partition("</section>")[0])


def text(html: str) -> str:
    """Return the words of some HTML."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def sides(client: Client, record: TransferRecord) -> list[list[str]]:
    """Return the table of both copies."""
    table = section(client, record, "copies").partition("<tbody>")[2]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [[text(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)] for row in rows]


# Both copies


def test_nobody_is_asked_before_somebody_wants_it(pair: Pair, viewer: Client) -> None:
    """The page itself asks neither side; it offers to."""
    record = transfer(pair, "a.txt")
    pair.remote.forget()
    html = section(viewer, record, "copies", look=False)
    assert pair.remote.calls == []
    assert 'href="?look=1#queued-storage-copies"' in html
    assert "for 5 seconds at most" in text(html)


def test_both_sides_are_shown(pair: Pair, viewer: Client) -> None:
    """Each side says what lies there, of what size, and where to open it."""
    record = transfer(pair, "a.txt")
    assert sides(viewer, record) == [
        ["Local", "there, as saved", "7 bytes", "-", "Open: Local"],
        ["Remote", "there, as saved", "7 bytes", "-", "Open: Remote"],
    ]
    urls = re.findall(r'href="([^?"]*)" target="_blank" rel="noopener noreferrer"', section(viewer, record, "copies"))
    assert urls == ["/media/a.txt", "https://remote.example/a.txt"]


def test_what_is_wrong_is_said(pair: Pair, viewer: Client) -> None:
    """Gone on one side and altered on the other, with the reason of each."""
    record = transfer(pair, "a.txt")
    pair.local.delete("a.txt")
    pair.remote.delete("a.txt")
    pair.remote.save("a.txt", ContentFile(b"altered"[:3]))
    reason = "the remote copy has 3 bytes in place of 7"
    assert sides(viewer, record) == [
        ["Local", "absent nothing lies at a.txt", "-", "-", "-"],
        ["Remote", f"other bytes than were saved {reason}", "3 bytes", "-", "Open: Remote"],
    ]


def test_an_error_is_shown_without_its_secret(make_pair: MakePair, viewer: Client) -> None:
    """A remote that fails is "no answer", with its words and none of its passwords."""
    pair = make_pair(remote="tests.storages.OptionalStorage", remote_options={"secret_key": "correct-horse"})
    record = transfer(pair, "a.txt")

    def fail(name: str) -> None:
        raise ConnectionError("ftp://me:correct-horse@host: <b>refused</b>, key correct-horse")

    pair.remote.faults["*"] = fail
    html = section(viewer, record, "copies")
    assert "correct-horse" not in html
    assert "&lt;b&gt;refused" in html
    assert sides(viewer, record)[1][1].startswith("no answer ConnectionError: ftp://")


def test_a_storage_that_is_gone(viewer: Client) -> None:
    """A record whose storage is configured no more has a page like any other."""
    record = RecordFactory(storage="gone", transferred=True)
    found = sides(viewer, record)
    assert [row[1].partition(":")[0] for row in found] == ["no answer UnknownStorageError"] * 2


@pytest.fixture
def hanging(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """A storage whose remote gives no answer until the test ends."""
    monkeypatch.setattr(copies.look_at_both, "__defaults__", (1.0,))
    gate = Gate(60)
    record = transfer(pair, "a.txt")
    assert record.pk
    pair.remote.faults["*"] = gate
    yield pair
    gate.opened.set()
    _wait_for_questions()


def _questions() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "queued-storage-question"]


def _wait_for_questions() -> None:
    for thread in _questions():
        thread.join(10)


def test_a_remote_that_hangs_does_not_hang_the_page(hanging: Pair, viewer: Client) -> None:
    """After its time the page is there, and has what the other side said."""
    record = ledger.records().get()
    started = time.monotonic()
    found = sides(viewer, record)
    assert time.monotonic() - started < 20
    assert [row[:2] for row in found] == [
        ["Local", "there, as saved"],
        ["Remote", "no answer no answer within 1 seconds"],
    ]


def test_hanging_questions_do_not_pile_up(hanging: Pair, viewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often somebody looks, no more threads wait than a process may have; the page is there all the same."""
    monkeypatch.setattr(asking, "_free", threading.BoundedSemaphore(3))
    record = ledger.records().get()
    for _ in range(6):
        assert sides(viewer, record)[1][1].startswith("no answer")
    assert 1 <= len(_questions()) <= 3


def test_asking() -> None:
    """Answers come in the order of the questions, an error is the question's own, and a free thread is given back."""
    assert asking.ask(5, lambda: 1, lambda: 2) == [1, 2]
    for _ in range(asking.MOST + 1):
        with pytest.raises(ZeroDivisionError):
            asking.ask(5, lambda: 1 // 0)
    assert asking.ask(5, lambda: 3) == [3]


def test_links_to_private_files_need_their_permission(
    make_pair: MakePair, log_in: LogIn, viewer: Client, settings: Any
) -> None:
    """Who may view records does not thereby read what users keep private; who may open files gets signed links."""
    settings.ROOT_URLCONF = "tests.app.urls_with_files"
    pair = make_pair(remote="tests.storages.SigningStorage")
    record = put(pair, "a.txt", b"private")
    assert [row[-1] for row in sides(viewer, record)] == ["-", "-"]
    opener = log_in("view_transferrecord", "open_transferrecord")
    assert [row[-1] for row in sides(opener, record)] == ["Open: Local", "-"]
    (url,) = re.findall(r'href="(/files/[^"]*)"', section(opener, record, "copies"))
    response = Client().get(unescape(url))
    assert response.getvalue() == b"private"
    record = transfer(pair, "b.txt", b"private")
    assert [row[-1] for row in sides(viewer, record)] == ["-", "-"]
    # The link of the local copy would lead to the remote by now.
    assert [row[-1] for row in sides(opener, record)] == ["-", "Open: Remote"]
    assert "b.txt?signature=of-the-remote" in section(opener, record, "copies")


def test_a_url_that_would_run_is_no_link(pair: Pair, viewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a storage takes for a URL, only what leads somewhere is made a link."""
    record = transfer(pair, "a.txt")
    monkeypatch.setattr(pair.remote, "url", lambda name: f"javascript:alert('{name}')")
    assert sides(viewer, record)[1][-1] == "-"


# Who uses the file


@pytest.fixture
def document(pair: Pair) -> Document:
    """An object with a file on the default storage."""
    return Document.objects.create(title="<b>Minutes</b>", file=ContentFile(b"minutes", "minutes.txt"))


def record_of(instance: Document) -> TransferRecord:
    """Return the record of an object's file."""
    return ledger.records().get(name=instance.file.name)


def test_who_uses_it(document: Document, log_in: LogIn) -> None:
    """The object is named, and linked to its page for those who may see it."""
    Document.objects.create(title="another", file=ContentFile(b"x", "other.txt"))
    record = record_of(document)
    html = section(log_in("view_transferrecord", "view_document"), record, "uses")
    assert text(html) == "Used by Document, file: <b>Minutes</b>"
    assert f'href="/admin/testapp/document/{document.pk}/change/"' in html
    assert "<b>" not in html


def test_who_may_not_see_the_object_sees_its_number(document: Document, viewer: Client) -> None:
    """Neither its name nor its page are for everybody who looks after transfers."""
    html = section(viewer, record_of(document), "uses")
    assert text(html) == f"Used by Document, file: number {document.pk}"
    assert "href" not in html


def test_an_object_without_pages_is_named(pair: Pair, log_in: LogIn) -> None:
    """A model that the admin does not know is named by the permission to view it, without a link."""
    record = put(pair, "photos/a.png")
    Photo.objects.bulk_create([Photo(image="photos/a.png", width=1, height=1)])
    html = section(log_in("view_transferrecord", "view_photo"), record, "uses")
    assert text(html) == "Used by Photo, image: photos/a.png"
    assert "href" not in html


def test_many_users_are_not_all_read(document: Document, viewer: Client) -> None:
    """Five are shown, and that there are more."""
    record = record_of(document)
    Document.objects.bulk_create(Document(file=record.name) for _ in range(9))
    html = section(viewer, record, "uses")
    assert html.count("<li>") == 5
    assert "There are more in testapp.Document.file." in text(html)


def test_tables_are_searched_when_somebody_asks(document: Document, viewer: Client) -> None:
    """Without an index a search reads the whole table: it is left until it is asked for."""
    record = record_of(document)
    with CaptureQueriesContext(connection) as queries:
        html = section(viewer, record, "uses", look=False)
    assert text(html) == "Used by Not searched: testapp.Document.file, testapp.Photo.image. Search them, too"
    assert not any("testapp_document" in query["sql"] for query in queries)
    assert len(queries) <= 15


def test_a_column_with_an_index_is_always_searched(
    document: Document, viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an index finds at once is there at once."""
    monkeypatch.setattr(Document._meta.get_field("file"), "db_index", True)
    html = section(viewer, record_of(document), "uses", look=False)
    assert f"Document, file: number {document.pk}" in text(html)
    assert "Not searched: testapp.Photo.image." in text(html)


def test_a_superseded_record_has_no_users(document: Document, viewer: Client) -> None:
    """Its name belongs to a newer file, and so do those who use that."""
    record = record_of(document)
    ledger.records().filter(pk=record.pk).update(state="deleted", deleted_at=record.created_at, key=None)
    assert text(section(viewer, record, "uses")) == "Used by Nobody: a newer file has its name."


def test_nobody_uses_it(pair: Pair, viewer: Client) -> None:
    """Said, too."""
    assert text(section(viewer, put(pair, "a.txt"), "uses")) == "Used by No object that is known here."


def test_only_fields_of_the_storage_are_searched(pair: Pair, make_pair: MakePair) -> None:
    """A file of the same name on another storage is another file."""
    make_pair("papers")
    assert [field.name for field in uses.fields_of("default")] == ["file", "image"]
    assert list(uses.fields_of("papers")) == []


def test_an_object_that_has_no_name(document: Document, log_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project's own error does not cost the page."""
    monkeypatch.setattr(Document, "__str__", lambda self: 1 // 0)
    assert text(section(log_in("view_transferrecord", "view_document"), record_of(document), "uses")) == (
        f"Used by Document, file: {document.pk}"
    )


def test_a_table_that_is_not_there(document: Document, viewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without its table costs neither the page nor the transaction."""
    monkeypatch.setattr(Photo._meta, "db_table", "nowhere")
    assert "Not searched: testapp.Photo.image." in text(section(viewer, record_of(document), "uses"))
    assert ledger.records().count() == 1
