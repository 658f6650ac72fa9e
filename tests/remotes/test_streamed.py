"""What goes up to and comes down from the remotes that speak their protocols themselves."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest
from django.core.files.base import ContentFile, File
from django.core.files.uploadedfile import SimpleUploadedFile

from queued_storage.exceptions import MismatchError
from queued_storage.remotes.streamed import BLOCK, CheckedBody, Upload, content_type_of, skip
from tests.remotes.material import digests_of, text, upload


def file(content_type: Any) -> File[Any]:
    """Return a file that claims a content type."""
    content = ContentFile(b"x")
    content.content_type = content_type  # type: ignore[attr-defined]
    return content


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("image/png", "image/png"),
        ("application/vnd.api+json", "application/vnd.api+json"),
        ('text/html; charset="utf-8"', 'text/html; charset="utf-8"'),
        ("", "text/plain"),
        (None, "text/plain"),
        ("nonsense", "text/plain"),
        ("text/html\r\nX-Evil: 1", "text/plain"),
        ("text/html; x\n", "text/plain"),
        ("text/hümml", "text/plain"),
        ("a/" + "b" * 300, "text/plain"),
    ],
)
def test_a_content_type_that_may_stand_in_a_header_is_kept(given: Any, sent: str) -> None:
    """What the visitor's browser claimed is sent on if it is one line of ASCII, otherwise the name decides."""
    assert content_type_of("a.txt", file(given)) == sent


def test_an_unknown_name_has_the_type_of_plain_bytes() -> None:
    """Where neither content nor name say anything the file is a row of bytes."""
    assert content_type_of("a", file("")) == "application/octet-stream"


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (ContentFile(b""), b""),
        (ContentFile("zwölf Bücher"), "zwölf Bücher".encode()),
        (ContentFile(""), b""),
        (SimpleUploadedFile("a.bin", b"uploaded"), b"uploaded"),
        (File(io.BytesIO(b"plain")), b"plain"),
    ],
)
def test_every_file_of_django_is_read_from_its_start(content: File[Any], body: bytes) -> None:
    """Text becomes UTF-8, and what a validator has read already is read again."""
    content.read()
    sent = Upload("x", content)
    assert b"".join(sent.blocks()) == body
    assert sent.size == len(body)
    assert sent.md5 == hashlib.md5(body, usedforsecurity=False).hexdigest()


def test_a_second_pass_has_a_digest_of_its_own() -> None:
    """An upload that is sent again is hashed again."""
    sent = Upload("x", upload(BLOCK * 2))
    next(iter(sent.blocks()))
    assert b"".join(sent.blocks()) == b"".join(upload(BLOCK * 2).chunks())
    assert sent.md5 == digests_of(BLOCK * 2)["md5"]


def test_an_empty_body_is_looked_at_before_headers_leave() -> None:
    """Headers alone store an empty file, so one that is not empty is found out without sending them."""
    sent = Upload("x", upload(0, end_at=5))
    with pytest.raises(MismatchError):
        sent.blocks()


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("announced", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK])
@pytest.mark.parametrize("real", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK])
def test_a_body_of_another_length_is_never_complete(announced: int, real: int, bare: bool) -> None:
    """A server that counts gets fewer bytes than announced, never all of them, unless the length is right."""
    sent = 0

    def send() -> None:
        nonlocal sent
        content: File[Any] = upload(announced, end_at=real)
        if bare:
            # As Django has it: without digests, of which an empty set, too, makes the size a promise.
            content = File(content.file, "bare")
            content.size = announced
        for block in Upload("x", content).blocks():
            sent += len(block)

    if announced == real:
        send()
        assert sent == announced
    else:
        with pytest.raises(MismatchError):
            send()
        assert sent < announced or sent == announced == 0


def test_other_bytes_than_announced_are_never_complete() -> None:
    """The last block is held back until the digest is right."""
    blocks = iter(Upload("x", upload(BLOCK * 2, digests={"sha256": "0" * 64})).blocks())
    assert len(next(blocks)) == BLOCK
    with pytest.raises(MismatchError):
        next(blocks)


@pytest.mark.parametrize("right", [True, False])
def test_a_body_is_compared_with_its_digest_at_the_end(right: bool) -> None:
    """The last bytes of other ones are not handed out."""
    digest = hashlib.md5(b"12345" if right else b"54321", usedforsecurity=False).hexdigest()
    body = CheckedBody(io.BytesIO(b"12345"), 5, digest)
    assert body.read(3) == b"123"
    if right:
        assert body.read(3) == b"45"
    else:
        with pytest.raises(MismatchError):
            body.read(3)


def test_skipping_past_the_end_is_an_error() -> None:
    """A body that is shorter than the place to begin at is not the one that was opened."""
    assert skip(io.BytesIO(b"12345"), 3).read(9) == b"45"
    with pytest.raises(ConnectionError):
        skip(io.BytesIO(b"12345"), 9)


def test_text_content_has_its_size_in_bytes() -> None:
    """Django counts characters, the remote bytes."""
    assert ContentFile("ü").size == 1
    assert Upload("x", ContentFile("ü")).size == 2
    assert Upload("x", text(b"12")).size == 2
