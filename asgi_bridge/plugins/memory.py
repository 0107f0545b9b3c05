"""What a ready-made plugin remembers beyond the instance that gathered it: buckets, key sets, places."""

from collections.abc import Callable
from typing import TypeVar

__all__ = ["remembered"]

T = TypeVar("T")


def remembered(make: Callable[[], T]) -> T:
    """What an earlier instance of the same plugin, route and configuration made; without one, what `make` gives.

    A factory calls it while it builds. Outside of a build it calls `make`, and keeps nothing.
    """
    return make()
