"""What plugins remember longer than an instance lives: buckets, key sets, positions.

When a chain is evicted and used again, its instances are built anew. Their counts must survive that. Otherwise anybody
who causes enough other chains could reset a rate limiter.
"""

import contextlib
import contextvars
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

__all__ = ["MAX_REMEMBERED", "Memory", "recalled_key", "remembered"]

T = TypeVar("T")

MAX_REMEMBERED = 100_000
"""Maximum number of remembered instances. Of those that no chain has any more, the oldest is forgotten first."""


def remembered(make: Callable[[], T]) -> T:
    """Return what an earlier instance of the same plugin, route and configuration made here, or make it.

    A factory calls this while it builds. If it calls this several times, it gets each object again in the same order.
    An object is kept as long as any chain has the instance, and after that 1.2 times as long as the gateway keeps a
    configuration. Outside of a build, or if the gateway does not say which route it is for, this just calls `make`.

    Args:
        make: Makes the object, if there is none yet.

    Example::

        def limit(conf: LimitConf) -> ASGIApp:
            bucket = remembered(lambda: Bucket(conf.rate))
            ...
    """
    recall = _recall.get(None)
    return make() if recall is None else recall.next(make)


def recalled_key() -> Hashable | None:
    """Return what identifies the next object that :func:`remembered` returns here; None: nothing does."""
    recall = _recall.get(None)
    return None if recall is None or recall.over else (recall.key, recall.number)


class _Recall:
    """What one instance remembers while it is built.

    Args:
        key: The instance's key.
        things: The objects of the earlier instance.

    Attributes:
        key: The instance's key.
        number: Number of objects that the factory has asked for so far.
        things: The objects of the earlier instance, and further ones that this one makes.
        over: True: the build has ended.
    """

    def __init__(self, key: Hashable, things: list[Any]) -> None:
        self.key = key
        self.things = things
        self.over = False
        self.number = 0

    def next(self, make: Callable[[], T]) -> T:
        if self.over:  # called by a task that the factory left behind
            return make()
        self.number += 1
        if self.number > len(self.things):
            self.things.append(make())
        return self.things[self.number - 1]  # type: ignore[no-any-return]


_recall: contextvars.ContextVar[_Recall | None] = contextvars.ContextVar("asgi_bridge.recall", default=None)


class Memory:
    """What the instances of one process remember.

    Args:
        seconds: Time that it is kept after the last chain has released the instance.
        clock: Returns the seconds since the epoch.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._used: dict[Hashable, list[Any]] = {}
        self._released: OrderedDict[Hashable, tuple[float, list[Any]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._used) + len(self._released)

    @contextlib.contextmanager
    def recalling(self, key: Hashable) -> Iterator[None]:
        """Let :func:`remembered` work in a block that builds the instance with `key`. A failed build changes nothing.

        At the end of the instance :meth:`released` has to be called.
        """
        self._forget()
        earlier = self._released.get(key)
        recall = _Recall(key, [] if earlier is None else list(earlier[1]))
        token = _recall.set(recall)
        try:
            yield
        finally:
            recall.over = True
            _recall.reset(token)
        self._released.pop(key, None)
        if recall.things:
            self._used[key] = recall.things

    def released(self, key: Hashable) -> None:
        """Note that no chain has the instance with `key` any more."""
        things = self._used.pop(key, None)
        if things is not None:
            self._released[key] = self._clock() + self._seconds, things
        self._forget()

    def _forget(self) -> None:
        now = self._clock()
        while self._released and (next(iter(self._released.values()))[0] <= now or len(self) > MAX_REMEMBERED):
            self._released.popitem(last=False)
