"""What a ready-made plugin remembers beyond the instance that gathered it: buckets, key sets, places.

An instance is built anew when its chain was evicted and is used again. What it counted must not begin anew with that,
or whoever makes enough other chains empties a rate limiter.
"""

import contextlib
import contextvars
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

__all__ = ["MAX_REMEMBERED", "Memory", "remembered"]

T = TypeVar("T")

MAX_REMEMBERED = 100_000
"""Instances that are remembered. Of those that no chain has any more the oldest goes first."""


def remembered(make: Callable[[], T]) -> T:
    """What an earlier instance of the same plugin, route and configuration made here; without one, what `make` gives.

    A factory calls it while it builds. Whoever calls it several times gets each thing again in the same order. It is
    kept as long as any chain has the instance, and 1.2 times as long as the gateway keeps a configuration after that.
    Outside of a build, or where the gateway does not tell which route it is for, this just calls `make`.

    Args:
        make: makes it, when there is none yet.

    Example::

        def limit(conf: LimitConf) -> ASGIApp:
            bucket = remembered(lambda: Bucket(conf.rate))
            ...
    """
    recall = _recall.get(None)
    return make() if recall is None else recall.next(make)


class _Recall:
    """What one instance was given while it is built."""

    def __init__(self, things: list[Any]) -> None:
        self.things = things
        self.over = False
        self._given = 0

    def next(self, make: Callable[[], T]) -> T:
        if self.over:  # a task that the factory left behind
            return make()
        self._given += 1
        if self._given > len(self.things):
            self.things.append(make())
        return self.things[self._given - 1]  # type: ignore[no-any-return]


_recall: contextvars.ContextVar[_Recall | None] = contextvars.ContextVar("asgi_bridge.recall", default=None)


class Memory:
    """What the instances of one process made.

    Args:
        seconds: how long what an instance made is kept after the last chain has let go of it.
        clock: seconds since the epoch.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._used: dict[Hashable, list[Any]] = {}
        self._left: OrderedDict[Hashable, tuple[float, list[Any]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._used) + len(self._left)

    @contextlib.contextmanager
    def recalling(self, key: Hashable) -> Iterator[None]:
        """While an instance with `key` is built: :func:`remembered` knows it. A build that fails changes nothing.

        Everything is gone again unless :meth:`leave` is called at the end of the instance.
        """
        self._forget()
        left = self._left.get(key)
        recall = _Recall([] if left is None else list(left[1]))
        token = _recall.set(recall)
        try:
            yield
        finally:
            recall.over = True
            _recall.reset(token)
        self._left.pop(key, None)
        if recall.things:
            self._used[key] = recall.things

    def leave(self, key: Hashable) -> None:
        """No chain has the instance with `key` any more."""
        things = self._used.pop(key, None)
        if things is not None:
            self._left[key] = self._clock() + self._seconds, things
        self._forget()

    def _forget(self) -> None:
        now = self._clock()
        while self._left and (next(iter(self._left.values()))[0] <= now or len(self) > MAX_REMEMBERED):
            self._left.popitem(last=False)
