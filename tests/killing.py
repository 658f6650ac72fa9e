"""A remote whose uploads of some files kill the process that makes them, as a fault in a native library does."""

from __future__ import annotations

import os
import signal
from typing import Any

from django.core.files.storage import FileSystemStorage


class KillingStorage(FileSystemStorage):
    """A file system remote; whoever uploads a file with "poison" in its name dies of it."""

    def _save(self, name: str, content: Any) -> str:
        if "poison" in name:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._save(name, content)
