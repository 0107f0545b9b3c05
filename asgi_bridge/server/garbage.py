"""How often Python searches for garbage that refers to itself.

Python's defaults are for a program that allocates little. It searches after 700 new objects, which is one turn of the
event loop with some twenty calls, and each search looks at all objects of these calls. What is there once the plugins
are loaded stays until the end, and need not be looked at either.

So this process searches less often. In return it looks at its memory: what plugins leave behind may be few objects, and
large ones.
"""

import gc
import resource
import sys

__all__ = ["GARBAGE", "Garbage"]

NEW_OBJECTS = 10_000
"""Python searches after this many new objects, those that are gone already not counted."""
GROWTH_BYTES = 32 * 1024 * 1024
"""After the process has grown by this many bytes, it searches at once in what is young: what calls leave is."""
OLD_GROWTH_BYTES = 4 * GROWTH_BYTES
"""After the process has grown by this many bytes, and by a half, it searches in all objects: the plugins of a route
that is edited are old when they are left. With the plugins of 20,000 routes that holds up the calls for 0.3 s."""
_DEFAULTS = ((700, 10, 10), (2000, 10, 10), (2000, 10, 0))
"""``gc.get_threshold()`` of Python 3.11 to 3.14, where nobody has set it."""
_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of one unit of ``ru_maxrss``."""


class Garbage:
    """The search for garbage in this process. Who has set it otherwise keeps what was set."""

    def __init__(self) -> None:
        self._before: tuple[int, int, int] | None = None
        self._peak = 0
        self._peak_of_all = 0

    def search_less(self) -> None:
        """Search less often from now on, and never in what is there already. Does nothing if ``gc`` was set before."""
        threshold = gc.get_threshold()
        if not gc.isenabled() or gc.get_freeze_count() or threshold not in _DEFAULTS:
            return
        self._before = threshold
        self._peak = self._peak_of_all = _peak()
        gc.freeze()
        gc.set_threshold(NEW_OBJECTS, *threshold[1:])

    def look(self) -> None:
        """Search now if the process has grown much since the last time."""
        if self._before is None:
            return
        peak = _peak()
        if peak - self._peak_of_all > max(OLD_GROWTH_BYTES, self._peak_of_all // 2):
            gc.collect()
            self._peak = self._peak_of_all = _peak()
        elif peak - self._peak > GROWTH_BYTES:
            gc.collect(1)
            self._peak = _peak()

    def search_as_before(self) -> None:
        """Undo :meth:`search_less`."""
        if self._before is not None:
            gc.set_threshold(*self._before)
            gc.unfreeze()
            self._before = None


GARBAGE = Garbage()
"""That of this process."""


def _peak() -> int:
    """Return the most memory that the process ever had, in bytes. To ask for this costs a microsecond everywhere."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
