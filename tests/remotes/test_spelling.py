"""Whether what lies under a name is called so, asked of as few as possible."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from queued_storage.remotes.spelling import Spelling


class Folder:
    """Names in a folder, of a remote that keeps upper and lower case apart or does not; counts what it is asked."""

    def __init__(self, *names: str, folds: bool) -> None:
        self.names, self.folds = names, folds
        self.asked: list[str] = []

    def is_namesake(self, spelling: Spelling, name: str) -> bool:
        """Ask about a name in the folder."""
        return spelling.is_namesake(f"folder/{name}", self._exists, self._names)

    def _exists(self, path: str) -> bool:
        self.asked.append(path)
        base = path.removeprefix("folder/")
        return base in self.names or (self.folds and _folded(base) in map(_folded, self.names))

    def _names(self, folder: str) -> Any:
        self.asked.append(folder)
        return self.names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@pytest.mark.parametrize(
    ("names", "name", "answer"),
    [
        (["A.txt"], "a.txt", True),
        (["a.txt"], "a.txt", False),
        (["a.txt", "b.txt"], "B.TXT", True),
        # As macOS gives names, and as they are asked for.
        (["u\u0308a.txt"], "\u00fca.txt", False),
        (["U\u0308A.txt"], "\u00fca.txt", True),
        (["1.2"], "1.2", False),
    ],
)
def test_a_remote_that_folds(names: list[str], name: str, answer: bool) -> None:
    """A file is a namesake if it is there under another spelling alone."""
    assert Folder(*names, folds=True).is_namesake(Spelling(), name) is answer


def test_a_remote_that_does_not() -> None:
    """Where names are kept apart one question is enough, for good."""
    folder, spelling = Folder("a.txt", "b.txt", folds=False), Spelling()
    assert [folder.is_namesake(spelling, name) for name in ("a.txt", "b.txt")] == [False, False]
    assert folder.asked == ["folder/A.TXT", "folder/a.txt"]


def test_both_spellings_are_there() -> None:
    """A file of the other spelling is no reason to take this one for it."""
    folder = Folder("a.txt", "A.TXT", folds=False)
    assert folder.is_namesake(Spelling(), "a.txt") is False


def test_a_file_that_goes_meanwhile() -> None:
    """A file that is removed between two questions teaches nothing about the remote."""
    folder, spelling = Folder(folds=True), Spelling()
    assert folder.is_namesake(spelling, "a.txt") is False
    folder.names = ("A.txt",)
    assert folder.is_namesake(spelling, "a.txt") is True


def test_a_name_without_letters() -> None:
    """A name that has no other case needs no question."""
    folder = Folder("1.2", folds=True)
    assert (folder.is_namesake(Spelling(), "1.2"), folder.asked) == (False, [])
