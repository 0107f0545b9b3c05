"""Two numbers for each name, such as a client's address: what a rate limiter has counted for it."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from .memory import remembered

__all__ = ["MAX_NAMES", "NumbersByName", "numbers_by_name"]

MAX_NAMES = 50_000
"""Maximum number of names of one instance. The name that was unused for longest is forgotten first."""


class NumbersByName:
    """Two numbers for each name, both 0 at first. A name with two zeros takes no memory.

    Args:
        limit: Maximum number of names.
    """

    def __init__(self, limit: int = MAX_NAMES) -> None:
        self._limit = limit
        self._pairs: OrderedDict[bytes, list[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pairs)

    @contextmanager
    def of(self, name: bytes) -> Iterator[list[float]]:
        """Return the two numbers of a name, to change them in a ``with`` block without ``await``.

        Example::

            with numbers.of(b"127.0.0.1") as pair:
                pair[0] += 1
        """
        pair = self._pairs.pop(name, None) or [0.0, 0.0]
        try:
            yield pair
        finally:
            if any(pair):
                self._pairs[name] = pair
                if len(self._pairs) > self._limit:
                    self._pairs.popitem(last=False)


def numbers_by_name() -> NumbersByName:
    """Return the numbers of the same plugin, route and configuration.

    A factory calls this while it builds. The numbers are kept as :func:`~asgi_bridge.plugins.memory.remembered` keeps
    objects.

    Example::

        def limit(conf: LimitConf) -> ASGIApp:
            counted = numbers_by_name()
            ...
    """
    return remembered(NumbersByName)
