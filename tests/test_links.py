"""Files that are given out by this site: private ones by signed links with an end, public ones by lasting links."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.core.signals import request_finished
from django.db import close_old_connections
from django.test import Client

from queued_storage import links
from queued_storage.exceptions import TemporarilyUnavailableError
from tests.conftest import Media
from tests.fixtures import MakePair, Pair, finish, put

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db
BODY = b"the bytes of a file"
# As Django writes paths: RFC 3986 lets these stand.
SAFE = "/~:@!$&'()*+,;="


@pytest.fixture
def included(settings: Any) -> None:
    """Include the URLs of this package."""
    settings.ROOT_URLCONF = "tests.app.urls_with_files"


@pytest.fixture
def private(make_pair: MakePair, included: None) -> Pair:
    """A storage whose remote signs its URLs."""
    return make_pair(remote="tests.storages.SigningStorage", keep_local=False)


def closed(response: Any) -> Any:
    """Close an answer as its server does, but for the database: the test still needs it."""
    request_finished.disconnect(close_old_connections)
    response.close()
    request_finished.connect(close_old_connections)
    return response


def fetch(client: Client, url: str) -> tuple[Any, bytes]:
    """Return the answer, closed, and its bytes."""
    response = client.get(url)
    body = response.getvalue()
    return closed(response), body


@pytest.mark.parametrize("name", ["a.txt", "sub/dir/a b.txt", "100% ü?#&\N{SNOWMAN}.txt", "a+b=c.txt"])
def test_a_private_file_while_it_is_local(private: Pair, client: Client, name: str) -> None:
    """The link gives exactly the bytes, to whoever has it, and asks the remote nothing."""
    put(private, name, BODY)
    private.remote.forget()
    url = private.url(name)
    assert url.startswith(f"/files/default/{quote(name, safe=SAFE)}?expires=")
    response, body = fetch(client, url)
    assert (response.status_code, body) == (200, BODY)
    assert closed(client.head(url)).status_code == 200
    assert private.remote.calls == []
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Cache-Control"] in ("private, max-age=3600", "private, max-age=3599")
    assert response["Content-Security-Policy"] == "sandbox; default-src 'none'"


def test_a_link_made_before_the_move(private: Pair, client: Client) -> None:
    """It leads to the remote's own signed URL afterwards, and to nothing once the file is deleted."""
    put(private, "a.txt", BODY)
    url = private.url("a.txt")
    finish()
    assert private.url("a.txt") == "https://remote.example/a.txt?signature=of-the-remote"
    response = client.get(url)
    assert (response.status_code, response["Location"]) == (302, private.url("a.txt"))
    assert response["Cache-Control"] == "no-store"
    private.delete("a.txt")
    assert client.get(url).status_code == 404


def test_links_that_are_not_good(private: Pair, client: Client, settings: Any) -> None:
    """Without a signature, with one of another file, storage or time, or after its end there is nothing to see."""
    put(private, "a.txt", BODY)
    put(private, "b.txt", b"another")
    path, _, query = private.url("a.txt").partition("?")
    expires, signature = query.removeprefix("expires=").split("&signature=")
    assert client.get(path).status_code == 403
    assert client.get(f"{path}?expires={expires}&signature=").status_code == 403
    assert client.get(f"{path}?expires={int(expires) + 1}&signature={signature}").status_code == 403
    assert client.get(f"{path}?expires=x&signature={signature}").status_code == 403
    assert client.get(f"{path.replace('a.txt', 'b.txt')}?{query}").status_code == 403
    assert client.get(f"{path.replace('default', 'defaul')}?{query}").status_code == 404
    assert client.post(f"{path}?{query}").status_code == 405
    settings.QUEUED_STORAGE_LINK_AGE = timedelta(microseconds=1)
    assert client.get(private.url("a.txt")).status_code == 403
    settings.SECRET_KEY = "another"
    assert client.get(f"{path}?{query}").status_code == 403


@pytest.mark.parametrize(
    "name", ["../a.txt", "a/../b.txt", "C:/a.txt", "a\\..\\b.txt", "nothing.txt", ".queued_storage/x"]
)
def test_names_of_no_file(private: Pair, client: Client, name: str) -> None:
    """A name that is refused, or has no file, is not found, whatever is signed."""
    expires = "99999999999"
    signature = links._signature("default", name, expires)
    url = f"/files/default/{quote(name)}?expires={expires}&signature={signature}"
    assert client.get(url).status_code == 404


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ("page.html", 'attachment; filename="page.html"'),
        ("image.svg", 'attachment; filename="image.svg"'),
        ("nothing-known", 'attachment; filename="nothing-known"'),
        ("sub/photo.png", 'inline; filename="photo.png"'),
        ("note.txt", 'inline; filename="note.txt"'),
        ('q"uote.png', 'inline; filename="q\\"uote.png"'),
    ],
)
def test_what_browsers_may_show(private: Pair, client: Client, name: str, disposition: str) -> None:
    """Whatever could run in the name of this site is a download."""
    put(private, name, BODY)
    assert fetch(client, private.url(name))[0]["Content-Disposition"] == disposition


@pytest.mark.parametrize(
    ("setting", "header", "value"),
    [
        ("X-Accel-Redirect:/protected/", "X-Accel-Redirect", "/protected/sub/a%20b.png"),
        ("X-Sendfile", "X-Sendfile", "{local}/sub/a%20b.png"),
    ],
)
def test_the_web_server_sends_it(
    private: Pair, client: Client, settings: Any, media: Media, setting: str, header: str, value: str
) -> None:
    """With a header set up for that, the answer names the file and has no bytes."""
    settings.QUEUED_STORAGE_SENDFILE = setting
    put(private, "sub/a b.png", BODY)
    response = client.get(private.url("sub/a b.png"))
    assert (response.status_code, response.content) == (200, b"")
    assert response[header] == value.format(local=media.local)
    assert response["Content-Type"] == "image/png"
    assert response["Content-Disposition"] == 'inline; filename="a b.png"'


def test_a_file_that_cannot_be_read_now(private: Pair, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, but not from here: come back soon, and let no cache remember."""
    put(private, "a.txt", BODY)
    url = private.url("a.txt")

    def fail(name: str, mode: str = "rb") -> None:
        raise TemporarilyUnavailableError("on another host")

    monkeypatch.setattr(private, "open", fail)
    response = client.get(url)
    assert (response.status_code, response["Retry-After"], response["Cache-Control"]) == (503, "5", "no-store")


def test_a_lasting_link(make_pair: MakePair, included: None, client: Client) -> None:
    """``links=True`` gives a public file one address for good: its bytes first, then where it went."""
    pair = make_pair(links=True, keep_local=False)
    put(pair, "a.txt", BODY)
    assert pair.url("a.txt") == "/files/default/a.txt"
    response, body = fetch(client, "/files/default/a.txt")
    assert (response.status_code, body, response["Cache-Control"]) == (200, BODY, "no-cache")
    finish()
    assert pair.url("a.txt") == "/files/default/a.txt"
    assert client.get("/files/default/a.txt")["Location"] == "https://remote.example/a.txt"


def test_without_links(make_pair: MakePair, included: None, settings: Any) -> None:
    """A storage can do without them, and so does a project that has not included them, and one of public files."""
    put(make_pair(remote="tests.storages.SigningStorage", links=False), "a.txt")
    assert make_pair(remote="tests.storages.SigningStorage", links=False).url("a.txt") == "/media/a.txt"
    assert make_pair().url("a.txt") == "/media/a.txt"
    settings.ROOT_URLCONF = "tests.app.urls"
    assert make_pair(remote="tests.storages.SigningStorage").url("a.txt") == "/media/a.txt"


def test_a_remote_that_is_broken(make_pair: MakePair, included: None) -> None:
    """As long as nobody can tell whether its files are private, they are."""
    pair = make_pair(remote="tests.raising.Storage")
    put(pair, "a.txt")
    assert pair.url("a.txt").startswith("/files/default/a.txt?expires=")
