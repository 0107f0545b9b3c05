"""Tokens that the file does not know, so that it need not be asked for them again and again.

Another process may claim such a token at any time. So what is known is forgotten once anything was written to the file.
"""

import time
from collections.abc import Callable

from .token_file import Version

__all__ = ["MAX_UNKNOWN", "UnknownTokens"]

MAX_UNKNOWN = 4096
"""Maximum number of such tokens."""
SETTLED_SECONDS = 0.1
"""Seconds since the last write, after which a further one certainly shows in the time of change: the kernel's clock for
files goes on every 10 ms or less."""
COARSELY_SETTLED_SECONDS = 3.0
"""The same where a file system knows the time of change by one or two seconds only."""


class UnknownTokens:
    """Tokens for which the file has no configuration. One thread adds to them, and any thread may look.

    Args:
        version: Returns what changes when any process writes to the file; None: nothing says so.
    """

    def __init__(self, version: Callable[[], Version | None]) -> None:
        self._current = version
        self._found: tuple[Version | None, set[int]] = None, set()  # replaced as a whole, for the other threads

    def __contains__(self, token: int) -> bool:
        """Return whether the file certainly does not know `token` now."""
        version, tokens = self._found
        return token in tokens and self._current() == version

    def __len__(self) -> int:
        return len(self._found[1])

    def add(self, token: int, version: Version | None) -> None:
        """Note a token that the file does not know.

        Args:
            token: The token.
            version: Of the file, from before it was asked.
        """
        if version is None or not _is_settled(version):
            return
        before, tokens = self._found
        if version != before or len(tokens) >= MAX_UNKNOWN:
            self._found = version, {token}
        else:
            tokens.add(token)


def _is_settled(version: Version) -> bool:
    """Return whether a write from now on would give the file another version."""
    _, _, changed = version
    seconds = SETTLED_SECONDS if changed % 1_000_000_000 else COARSELY_SETTLED_SECONDS
    return time.time() - changed / 1e9 > seconds
