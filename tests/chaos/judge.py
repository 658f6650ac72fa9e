"""A process that reads every promised file once, through the public API alone, when all is at rest."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import django

django.setup()

from django.core.files.storage import storages  # noqa: E402

from tests.chaos.manifest import Reader  # noqa: E402


def verdict_on(name: str, sha256: str) -> str:
    """Return ``ok``, ``wrong``, or the error that the read ended in."""
    try:
        with storages["default"].open(name) as file:
            return "ok" if hashlib.sha256(file.read()).hexdigest() == sha256 else "wrong"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    promises = {file: promise for file, promise in Reader(folder).read().items() if promise.kept}
    verdicts = {file: verdict_on(promise.name, promise.sha256) for file, promise in promises.items()}
    (folder / "judge.json").write_text(json.dumps(verdicts))
