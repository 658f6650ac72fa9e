"""Names without a letter of ASCII are told from their namesakes as well."""

from __future__ import annotations

import pytest

from queued_storage.remotes.spelling import Spelling


@pytest.mark.parametrize(
    ("there", "name", "answer"),
    [("ФОТО", "фото", True), ("фото", "фото", False), ("été", "ÉTÉ", True), ("ß", "ß", False)],
)
def test_other_letters(there: str, name: str, answer: bool) -> None:
    """A remote that folds all letters has but one of both."""

    def exists(path: str) -> bool:
        return path.casefold() == f"folder/{there}".casefold()

    assert Spelling().is_namesake(f"folder/{name}", exists, lambda folder: [there]) is answer


def test_they_prove_nothing_of_others() -> None:
    """A remote that keeps these letters apart may still fold those of ASCII: it is asked on."""
    spelling, names = Spelling(), ["фото", "A"]

    def exists(path: str) -> bool:
        return path.removeprefix("folder/") in (*names, "a")

    assert spelling.is_namesake("folder/фото", exists, lambda folder: names) is False
    assert spelling.is_namesake("folder/a", exists, lambda folder: names) is True
