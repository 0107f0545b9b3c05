"""Waits for something that another thread or process does."""

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["SECONDS", "until"]

SECONDS = 60.0
"""Longest wait of a test. Nothing takes so long, even on a slow machine; what hangs fails."""

Found = TypeVar("Found")


def until(condition: Callable[[], Found], seconds: float = SECONDS) -> Found:
    """Wait until `condition` returns something true.

    Args:
        condition: called again and again.
        seconds: how long to wait at most.

    Returns:
        What `condition` returned last.

    Raises:
        AssertionError: the time is over.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
    return found
