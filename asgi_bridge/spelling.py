"""What somebody may have meant by a name that is not known."""

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean"]

MAX_LENGTH = 64
"""Characters of a name that is compared: comparing takes quadratic time, and a route may give any name."""


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A question to add to an error message: ``"; did you mean 'uri'?"``, or nothing where no known name is near.

    Args:
        name: what was given.
        known: the names that there are.
        cutoff: how near it has to be, from 0 to 1 (:func:`difflib.get_close_matches`).
    """
    if len(name) > MAX_LENGTH:
        return ""
    folded = {each.lower().replace("-", "_"): each for each in sorted(known)}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), folded, n=1, cutoff=cutoff)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""
