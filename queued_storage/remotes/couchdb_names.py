"""The ids of the documents under which CouchDB keeps files."""

from __future__ import annotations

from urllib.parse import quote


def identifier(name: str) -> str:
    """Return the document's id. One that starts with an underscore would be CouchDB's own, so that is escaped."""
    if name.startswith("_"):
        return "%5F" + name[1:]
    return "%25" + name[1:] if name.startswith(("%5F", "%25")) else name


def quoted(name: str) -> str:
    """Return the id as it stands in an address."""
    return quote(identifier(name), safe="")


def _name(found: str) -> str:
    for escaped, plain in [("%5F", "_"), ("%25", "%")]:
        if found.startswith(escaped):
            return plain + found[3:]
    return found


def sort_in(found: str, prefix: str, folders: dict[str, None], files: list[str]) -> None:
    """Add the id ``found``, which starts with ``prefix``, to the folders or to the files directly below it."""
    if found.startswith("_design/"):
        return
    first, slash, _ = (found[len(prefix) :] if prefix else _name(found)).partition("/")
    if slash:
        folders[first] = None
    else:
        files.append(first)
