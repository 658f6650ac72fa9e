"""Name the pip command when a remote's client library is not installed."""

from __future__ import annotations

from queued_storage.exceptions import StorageConfigurationError


def missing_extra(what: str, extra: str) -> StorageConfigurationError:
    """Return the error that says how to install the client library that ``what`` needs."""
    return StorageConfigurationError(
        f"{what} needs a library that is not installed. Run: pip install 'django-queued-storage[{extra}]'"
    )
