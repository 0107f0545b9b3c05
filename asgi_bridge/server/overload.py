"""``--limit-concurrency``: calls that are refused, and what is logged of them."""

import logging
from collections import Counter
from collections.abc import Callable

from ..plugins import Chain

__all__ = ["Overload"]

logger = logging.getLogger("asgi_bridge.server")

MAX_REFUSED = 1000
"""Maximum number of configurations whose refused calls are counted apart. A peer can make up any number of tokens."""
QUIET_SECONDS = 1.0
"""Seconds between two log lines of the same plugins."""


class Overload:
    """Counts the calls that were refused because too many ran.

    Args:
        limit: Maximum number of calls at once; None: there is none.
        find: Returns the chain of a token.
    """

    def __init__(self, limit: int | None, find: Callable[[int], Chain | None]) -> None:
        self._limit = limit
        self._find = find
        self._refused: dict[int, int] = {}
        self._quiet_until = float("-inf")

    def admits(self, running: int, token: int) -> bool:
        """Whether one more call may run. One that may not is counted.

        Args:
            running: Number of calls that run.
            token: Of the call's configuration.
        """
        if self._limit is None or running < self._limit:
            return True
        if token not in self._refused and len(self._refused) >= MAX_REFUSED:
            token = 0
        self._refused[token] = self._refused.get(token, 0) + 1
        return False

    def sweep(self, now: float) -> None:
        """Log what was counted, once in QUIET_SECONDS.

        Args:
            now: Monotonic seconds.
        """
        if not self._refused or now < self._quiet_until:
            return
        self._quiet_until = now + QUIET_SECONDS
        refused: Counter[str] = Counter()
        for token, number in self._refused.items():
            chain = self._find(token)
            refused["?" if chain is None else chain.names] += number
        self._refused.clear()
        for names, number in refused.items():
            logger.error(
                "plugin %s: %d requests refused: more than %d calls at once (--limit-concurrency)",
                names, number, self._limit,
            )  # fmt: skip
