"""What the doctor says of one part of the set-up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A verdict (``good``, ``bad`` or ``unclear``) on a part, in a sentence, and what to do about it."""

    check: str
    verdict: str
    text: str
    advice: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether somebody has to do something."""
        return self.verdict == "bad"


def good(check: str, text: str) -> Finding:
    """Return that a part works."""
    return Finding(check, "good", text)


def bad(check: str, text: str, advice: str) -> Finding:
    """Return that a part does not work."""
    return Finding(check, "bad", text, advice)


def unclear(check: str, text: str, advice: str = "") -> Finding:
    """Return that nothing can be said of a part, or nothing that must be done."""
    return Finding(check, "unclear", text, advice)
