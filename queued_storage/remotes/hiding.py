"""Secrets that a storage must hold but never shows."""

from __future__ import annotations

import re
from typing import Any

SECRET_NAME = re.compile(r"(?i)secret|password|token|credential|signature|connection_string|(^|_)(sas|key)($|_)")


class Hidden(str):
    """A string whose ``repr`` says nothing, for passwords in attributes that logs and debug pages print."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def hidden(value: Any) -> Any:
    """Return ``value`` with every non-empty string in it, also in lists and mappings, made ``Hidden``."""
    if isinstance(value, str):
        return Hidden(value) if value else value
    if isinstance(value, dict):
        return {key: hidden(each) for key, each in value.items()}
    return type(value)(hidden(each) for each in value) if isinstance(value, (list, tuple)) else value


def hide_options(storage: Any, options: dict[str, Any], *names: str) -> None:
    """Hide the attributes ``names`` of a django-storages instance, and its remembered options that look secret.

    ``deconstruct()`` then has no secret to put into a migration either.
    """
    for name in names:
        setattr(storage, name, hidden(getattr(storage, name)))
    shown = dict(options)
    for key in options:
        if key in names or SECRET_NAME.search(key):
            shown[key] = hidden(options[key])
    storage._constructor_args = ((), shown)
