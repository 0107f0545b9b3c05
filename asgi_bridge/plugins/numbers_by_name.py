"""Two numbers for each name, such as a client's address: what a rate limiter has counted for it.

Workers share them, as they share the numbers of an instance (:mod:`.shared_numbers`).
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from .memory import recalled_key, remembered
from .shared_numbers import SharedTable, table_of_names

__all__ = ["MAX_NAMES", "NumbersByName", "numbers_by_name"]

MAX_NAMES = 50_000
"""Maximum number of names of one instance. The name that was unused for longest is forgotten first."""
GROUPS_OF_NAMES = 4096
"""Number of groups of the shared table that the names of one instance are in. With eight entries each, they hold about
half as many names as one process does, and those of one route push out few of another."""


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


class SharedNumbersByName(NumbersByName):
    """Two numbers for each name, in a table of all workers.

    Args:
        table: The table.
        key: What identifies the instance, the same in all processes.
    """

    def __init__(self, table: SharedTable, key: object) -> None:
        super().__init__()
        self._table = table
        self._key = key

    @contextmanager
    def of(self, name: bytes) -> Iterator[list[float]]:
        """Return the two numbers of a name, as `NumbersByName` does. No other process changes them meanwhile."""
        digest = self._table.digest_in_part(self._key, name, GROUPS_OF_NAMES)
        pair = self._table.take(digest)
        try:
            yield pair
        finally:
            self._table.put(digest, pair)


def numbers_by_name() -> NumbersByName:
    """Return the numbers of the same plugin, route and configuration, the same in all workers.

    A factory calls this while it builds. The numbers are kept as :func:`~asgi_bridge.plugins.memory.remembered` keeps
    objects; in several workers, as long as the runner has room for them.

    Example::

        def limit(conf: LimitConf) -> ASGIApp:
            counted = numbers_by_name()
            ...
    """
    table, key = table_of_names(), recalled_key()
    if table is None or key is None:
        return remembered(NumbersByName)
    return remembered(lambda: SharedNumbersByName(table, key))
