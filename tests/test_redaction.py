"""Errors keep their meaning and lose their secrets."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from queued_storage.redaction import HIDDEN, LIMIT, describe, redact, secrets, without_secrets

OPTIONS: dict[str, Any] = {
    "bucket_name": "public-bucket",
    "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCY",
    "nested": {"password": "correct horse", "list": [{"api_key": "k-123456"}]},
    "tokens": ["first-token", "second-token"],
    "sas_token": b"bytes-token",
    "location": "ftp://user:ftp-password@host:21/folder",
}
VALUES = [
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCY",
    "correct horse",
    "k-123456",
    "first-token",
    "second-token",
    "bytes-token",
    "ftp-password",
]


def test_the_secrets_of_options() -> None:
    """Every text under a secret-looking name is a secret, however deep, and so is the password of a URL."""
    assert sorted(secrets(OPTIONS)) == sorted(VALUES)


@pytest.mark.parametrize("value", VALUES)
def test_values_of_options(value: str) -> None:
    """A secret option is hidden wherever it stands in a text."""
    assert redact(f"cannot log in with '{value}' at public-bucket", OPTIONS) == (
        f"cannot log in with '{HIDDEN}' at public-bucket"
    )


def test_a_quoted_value() -> None:
    """A secret is hidden in the spelling that it has in a URL, too."""
    assert "wJalr" not in redact("https://host/?k=wJalrXUtnFEMI%2FK7MDENG%2BbPxRfiCY", OPTIONS)


def test_values_of_settings(settings: Any) -> None:
    """Secrets of the project's settings are hidden: keys, passwords of databases, caches, brokers and storages."""
    settings.SECRET_KEY = "django-insecure-key"
    settings.SECRET_KEY_FALLBACKS = ["an-older-key"]
    settings.CELERY_BROKER_URL = "redis://:broker-password@host:6379/0"
    settings.STORAGES = settings.STORAGES | {"x": {"BACKEND": "a.B", "OPTIONS": {"secret_key": "storage-secret"}}}
    text = "django-insecure-key an-older-key broker-password storage-secret"
    assert redact(text) == " ".join([HIDDEN] * 4)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("postgresql://user:hunter2@db/name", "hunter2"),
        ("redis://:hunter2@db:6379/0", "hunter2"),
        ("amqp://user:p@hunter2@host//", "hunter2"),
        ("https://ghp_hunter2@host/path", "hunter2"),
        ("Authorization: Bearer hunter2", "hunter2"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=AKIA/x, SignedHeaders=host, Signature=hunter2", "hunter2"),
        ("{'Authorization': 'Basic aHVudGVyMg==', 'Host': 'example'}", "aHVudGVyMg"),
        ("https://b/k?X-Amz-Signature=hunter2&x=1", "hunter2"),
        ("https://b/k?X-Amz-Security-Token=hunter2&x=1", "hunter2"),
        ("https://b/k?AWSAccessKeyId=AKIAX&Signature=hunter2%3D&Expires=1", "hunter2"),
        ("https://a/b?sv=2020&sig=hunter2&se=1", "hunter2"),
        ("AccountName=a;AccountKey=hunter2==;EndpointSuffix=core", "hunter2"),
        ('{"SecretAccessKey": "hunter2", "x": 1}', "hunter2"),
        ("aws_secret_access_key = hunter2", "hunter2"),
        ("password='hunter2')", "hunter2"),
        ("<SignatureProvided>hunter2</SignatureProvided>", "hunter2"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2\nhunter2\n-----END PRIVATE KEY-----", "hunter2"),
        ("-----BEGIN RSA PRIVATE KEY-----\nhunter2 and no end", "hunter2"),
    ],
)
def test_patterns(text: str, secret: str) -> None:
    """What looks like credentials is hidden, known or not."""
    redacted = redact(text)
    assert secret not in redacted
    assert HIDDEN in redacted


@pytest.mark.parametrize(
    "text",
    [
        "ConnectionError: the remote cannot be reached",
        "An error occurred (NoSuchBucket) when calling the PutObject operation: The bucket does not exist",
        "https://host:8000/path/me@example.org.txt",
        "HTTPSConnectionPool(host='host', port=443): Max retries exceeded with url: /bucket/key",
        "[Errno 28] No space left on device: '/srv/media/a.txt'",
        "line one\nline two\tindented",
        "grüße 日本語 🎉",
    ],
)
def test_ordinary_errors_stay(text: str) -> None:
    """An error without secrets is not touched."""
    assert redact(text) == text


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\r", "\x85", "\u2028", "\u202e", "\ud800"])
def test_control_characters(character: str) -> None:
    """What could rewrite a terminal, turn a line around or be refused by a database is replaced."""
    assert redact(f"a{character}b") == "a\N{REPLACEMENT CHARACTER}b"


def test_the_length() -> None:
    """A text of ten megabytes becomes 2,000 characters, quickly."""
    started = time.perf_counter()
    assert redact("x" * 10_000_000, OPTIONS) == "x" * LIMIT
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("text", ["a" * 50_000, "secret" * 8_000, "://" * 16_000, "token=" * 8_000, "x:" * 25_000])
def test_no_text_is_slow(text: str) -> None:
    """No text makes the patterns run away."""
    started = time.perf_counter()
    redact(text, OPTIONS)
    assert time.perf_counter() - started < 1


def test_a_secret_at_the_cut() -> None:
    """A secret through which the text is cut leaves no half of itself behind."""
    token = "T" * 300 + "tail-of-a-token"
    options = {"token": token}
    for shift in range(0, len(token), 7):
        assert "TTTT" not in redact("." * shift + token * 60, options)


@given(st.text(), st.text(alphabet="abcDEF123+/=", min_size=4, max_size=40))
def test_a_known_secret_never_shows(text: str, secret: str) -> None:
    """Whatever surrounds it, a configured secret does not show; nothing raises, nothing grows beyond the limit."""
    redacted = redact(text + secret + text, {"password": secret})
    assert secret not in redacted.replace(HIDDEN, "")
    assert len(redacted) <= LIMIT


def test_short_values_stay() -> None:
    """A secret of three characters is not hidden by its value: it would blank out ordinary words."""
    assert redact("the cat sat", {"password": "cat"}) == "the cat sat"


def test_options_without_secrets() -> None:
    """Options for a message keep what is public; secret names, and values with a secret in them, are left out."""
    connection = "AccountName=a;AccountKey=abc==;EndpointSuffix=core"
    options = OPTIONS | {"connection_string": connection, "path": Path("/srv/media"), "gzip": True, "age": None}
    assert without_secrets(options) == {
        "bucket_name": "public-bucket",
        "nested": {"list": [{}]},
        "path": "/srv/media",
        "gzip": True,
        "age": None,
    }
    assert not any(value.encode() in pickle.dumps(without_secrets(options)) for value in [*VALUES, "abc=="])


def test_an_error_is_described() -> None:
    """An error is its class and its redacted text."""
    assert describe(ValueError("password=hunter2")) == f"ValueError: password={HIDDEN}"


def test_an_error_without_a_text() -> None:
    """An error whose text cannot be made is still described."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(MuteError()) == "MuteError, whose text cannot be made"
