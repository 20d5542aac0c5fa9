"""The nearest known name to a misspelled one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SIMILAR_ENOUGH = 0.6
LISTED_AT_MOST = 30


def nearest(name: str, known: Iterable[str], *, similar_enough: float = SIMILAR_ENOUGH) -> str | None:
    """Return the known name that `name` was most likely meant to be, or None when none is near.

    `similar_enough` is difflib's ratio (0 to 1) that a name must reach.
    """
    by_folded = {_folded(candidate): candidate for candidate in known}
    found = difflib.get_close_matches(_folded(name)[:100], by_folded, n=1, cutoff=similar_enough)
    return by_folded[found[0]] if found else None


def remedy_for(name: str, known: Iterable[str]) -> str:
    """Return "did you mean `x`?", or the list of what is known when nothing is near."""
    names = list(known)
    near = nearest(name, names)
    if near is not None:
        return f"did you mean `{near}`?"
    return f"known here: {listed(names)}"


def listed(names: Iterable[str]) -> str:
    """Write names for a sentence, each in backticks, cut where the list grows too long to help."""
    quoted = [f"`{name}`" for name in names]
    return ", ".join(quoted[:LISTED_AT_MOST]) + (", …" if len(quoted) > LISTED_AT_MOST else "")


def _folded(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")
