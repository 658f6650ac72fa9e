"""Remotes for which upper and lower case are the same: whether what lies under a name is called so."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable

_OTHER_CASE = str.maketrans(
    {chr(code): chr(code).swapcase() for code in range(ord("A"), ord("z") + 1) if chr(code).isalpha()}
)


class Spelling:
    """Tells a file from its namesake, and remembers of a remote that it keeps upper and lower case apart.

    Only the last part of a path is looked at: a folder whose spelling differs is the same folder there.
    """

    def __init__(self) -> None:
        self._is_exact = False

    def is_namesake(self, path: str, exists: Callable[[str], bool], names: Callable[[str], Iterable[str]]) -> bool:
        """Tell whether what lies at ``path`` is called otherwise; ``names`` gives what lies in a folder.

        That is read only where a name exists in the other case as well; once one does not, nobody is asked again.
        """
        folder, slash, base = path.rpartition("/")
        other = base.translate(_OTHER_CASE)
        is_telling = other != base
        if not is_telling:
            # Not every remote that folds ASCII folds all letters, or those that become several.
            other = "".join(each.swapcase() if len(each.swapcase()) == 1 else each for each in base)
        if self._is_exact or other == base:
            return False
        if not exists(f"{folder}{slash}{other}"):
            # Unless the file itself has gone meanwhile.
            self._is_exact = is_telling and exists(path)
            return False
        # Some servers give names in another form of Unicode than they take them.
        found = {unicodedata.normalize("NFC", name) for name in names(folder)}
        wanted = unicodedata.normalize("NFC", base)
        return wanted not in found and wanted.casefold() in {name.casefold() for name in found}


def spelling_of(storage: object) -> Spelling:
    """Return what is known of the remote behind ``storage``."""
    known: Spelling = storage.__dict__.setdefault("_spelling", Spelling())
    return known
