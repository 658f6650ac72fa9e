"""Storages for tests: remotes in a folder that count what goes over the network and misbehave on request."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage

Fault = Callable[[str], None]


class SpyStorage(FileSystemStorage):
    """A remote that notes each call which would go over the network, and first asks a fault whether it may.

    ``calls`` counts by method since the last ``forget()``. ``faults[method]``, or ``faults["*"]``, is called with the
    name, and may raise, wait, or meddle with the folder. Building a name or a URL is no call.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[str] = []
        self.faults: dict[str, Fault] = {}

    def forget(self) -> None:
        """Begin to count anew."""
        self.calls.clear()

    @property
    def counted(self) -> dict[str, int]:
        """How often each method was called."""
        return dict(Counter(self.calls))

    def _over_the_network(self, method: str, name: str) -> None:
        self.calls.append(method)
        fault = self.faults.get(method) or self.faults.get("*")
        if fault is not None:
            fault(name)

    def exists(self, name: Any) -> bool:
        self._over_the_network("exists", name)
        return super().exists(name)

    def size(self, name: Any) -> int:
        self._over_the_network("size", name)
        return super().size(name)

    def delete(self, name: Any) -> None:
        self._over_the_network("delete", name)
        super().delete(name)

    def listdir(self, path: Any) -> tuple[list[str], list[str]]:
        self._over_the_network("listdir", path)
        return super().listdir(path)

    def get_accessed_time(self, name: Any) -> datetime:
        self._over_the_network("get_accessed_time", name)
        return super().get_accessed_time(name)

    def get_created_time(self, name: Any) -> datetime:
        self._over_the_network("get_created_time", name)
        return super().get_created_time(name)

    def get_modified_time(self, name: Any) -> datetime:
        self._over_the_network("get_modified_time", name)
        return super().get_modified_time(name)

    def _open(self, name: str, mode: str = "rb") -> Any:
        self._over_the_network("open", name)
        return super()._open(name, mode)

    def _save(self, name: str, content: Any) -> str:
        self._over_the_network("save", name)
        return str(super()._save(name, content))


class BrokenStorage(SpyStorage):
    """A remote that fails on every call."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.faults["*"] = _unreachable


def _unreachable(name: str) -> None:
    raise ConnectionError("the remote cannot be reached")


class RenamingStorage(SpyStorage):
    """A remote that stores every file under another name than it was asked for."""

    def _save(self, name: str, content: Any) -> str:
        return super()._save(self.get_available_name(f"renamed/{name}"), content)


class OverwritingStorage(SpyStorage):
    """A remote that puts a new object over an old one, as object stores do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_overwrite=True, **kwargs)


class MeddlingStorage(SpyStorage):
    """A remote that stores other bytes than it was given: ``meddle`` says which; not by default."""

    meddle: Callable[[bytes], bytes] = staticmethod(lambda data: data)

    def _save(self, name: str, content: Any) -> str:
        return super()._save(name, ContentFile(self.meddle(b"".join(content.chunks()))))


class OptionalStorage(SpyStorage):
    """A remote whose options hold secrets, as those of real services do."""

    def __init__(
        self, access_key: str = "", secret_key: str = "", nested: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.access_key, self.secret_key, self.nested = access_key, secret_key, nested


class Gate:
    """A fault that holds its caller until it is opened, and tells when somebody has come."""

    def __init__(self, bound: float = 20.0) -> None:
        self.bound = bound
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, name: str) -> None:
        self.reached.set()
        if not self.opened.wait(self.bound):
            raise TimeoutError("nobody opened the gate")

    def wait(self) -> None:
        """Wait until somebody stands before the gate."""
        assert self.reached.wait(self.bound), "nobody came to the gate"

    def open(self) -> None:
        """Let everybody pass from now on."""
        self.opened.set()


class PrivateStorage(FileSystemStorage):
    """A local storage on which files can be hidden, as those on another host's disk are."""

    def hide(self, name: str) -> None:
        """Move a file where nobody looks."""
        Path(self.path(name)).rename(f"{self.path(name)}.hidden")


class SigningStorage(SpyStorage):
    """A remote whose URLs let only those in who were given them."""

    querystring_auth = True

    def url(self, name: Any) -> str:
        return f"{super().url(name)}?signature=of-the-remote"
