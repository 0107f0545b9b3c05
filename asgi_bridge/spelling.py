"""Find the known name that an unknown one may stand for."""

from collections.abc import Iterable

__all__ = ["did_you_mean"]

MAX_LENGTH = 64
"""Maximum length of a name that is compared, in characters. Comparing takes quadratic time."""


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return a question to append to an error message.

    Args:
        name: The unknown name.
        known: The known names.
        cutoff: How similar the names must be, from 0 to 1 (:func:`difflib.get_close_matches`).

    Returns:
        Such as ``"; did you mean 'uri'?"``; empty if no known name is similar.
    """
    if len(name) > MAX_LENGTH:
        return ""
    folded = {each.lower().replace("-", "_"): each for each in sorted(known)}
    import difflib  # few processes need it

    found = difflib.get_close_matches(name.lower().replace("-", "_"), folded, n=1, cutoff=cutoff)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""
