"""Where a faulty storage keeps its bytes: in memory, or in a folder that other processes see, too."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import IO

UPLOADS = ".uploads"


class Memory(dict[str, bytes]):
    """Objects in memory."""

    def begin(self) -> IO[bytes]:
        """Return a file that nobody sees before it is published."""
        return io.BytesIO()

    def publish(self, upload: IO[bytes], name: str, overwrite: bool) -> None:
        """Make ``upload`` visible as ``name``, whole and at once; raises ``FileExistsError`` if that is taken."""
        upload.seek(0)
        data = upload.read()
        if overwrite:
            self[name] = data
        elif self.setdefault(name, data) is not data:
            raise FileExistsError(name)

    def discard(self, upload: IO[bytes]) -> None:
        """Forget an upload."""
        upload.close()

    def unfinished(self) -> int:
        """Return how many uploads somebody left behind."""
        return 0


class Folder(MutableMapping[str, bytes]):
    """Objects as files below ``location``; an upload that a killed process left behind lies in ``.uploads``."""

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = Path(location)

    def __getitem__(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise KeyError(name) from None

    def __setitem__(self, name: str, data: bytes) -> None:
        upload = self.begin()
        upload.write(data)
        self.publish(upload, name, overwrite=True)

    def __delitem__(self, name: str) -> None:
        try:
            self._path(name).unlink()
        except (FileNotFoundError, NotADirectoryError):
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        for folder, directories, files in os.walk(self.location):
            if UPLOADS in directories:
                directories.remove(UPLOADS)
            for file in files:
                yield (Path(folder) / file).relative_to(self.location).as_posix()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return self._path(str(name)).is_file()

    def begin(self) -> IO[bytes]:
        """Return a file that nobody sees before it is published."""
        folder = self.location / UPLOADS
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / secrets.token_hex(8), "x+b", buffering=0)

    def publish(self, upload: IO[bytes], name: str, overwrite: bool) -> None:
        """Make ``upload`` visible as ``name``, whole and at once; raises ``FileExistsError`` if that is taken."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if overwrite:
            os.replace(upload.name, path)
        else:
            os.link(upload.name, path)
        self.discard(upload)

    def discard(self, upload: IO[bytes]) -> None:
        """Forget an upload."""
        upload.close()
        Path(upload.name).unlink(missing_ok=True)

    def unfinished(self) -> int:
        """Return how many uploads somebody left behind."""
        folder = self.location / UPLOADS
        return len(list(folder.iterdir())) if folder.is_dir() else 0

    def _path(self, name: str) -> Path:
        return self.location / name


Objects = Memory | Folder
