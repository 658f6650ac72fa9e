"""Texts and moments of the ledger as HTML for the admin."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from queued_storage.redaction import CONTROL


def text(value: str, limit: int | None = None) -> SafeString:
    """Return a text for HTML: markup escaped, control characters spelled out, its direction kept to itself."""
    plain = CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), value)
    if limit is not None and len(plain) > limit:
        plain = f"{plain[: limit // 2]}…{plain[-limit // 2 :]}"
    return format_html_join(mark_safe("<br>"), "<bdi>{}</bdi>", ([line] for line in plain.split("\n")))


def moment(words: Any, value: datetime) -> SafeString:
    """Return ``words`` for a moment, which shows itself in full to whoever points at it."""
    local = timezone.localtime(value) if timezone.is_aware(value) else value
    title = f"{local:%Y-%m-%d %H:%M:%S %Z}"
    return format_html('<time datetime="{}" title="{}">{}</time>', value.isoformat(), title, words)
