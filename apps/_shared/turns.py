"""Work in threads, in turn: one piece of one owner's, then one of the next owner's, so that nobody waits for a flood.

An owner is what a route has for itself. It has so many places, and whoever comes when these are taken is told so at
once: a route that is flooded costs itself its places, and another route one piece of work at most.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["Full", "Turns"]

T = TypeVar("T")
_Piece = tuple[Future[Any], Callable[[], Any]]


class Full(Exception):
    """All places of the owner are taken."""


class Turns:
    """A few threads.

    Args:
        name: of the threads.
        threads: how many.
        places: pieces of work that one owner may have, running and waiting.
    """

    def __init__(self, name: str, threads: int, places: int) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._idle = threads
        self._places = places
        self._lock = threading.Lock()
        self._taken: dict[object, int] = {}
        self._waiting: OrderedDict[object, deque[_Piece]] = OrderedDict()

    def submit(self, owner: object, work: Callable[[], T]) -> Future[T]:
        """Has `work` done when it is the owner's turn.

        Raises:
            Full: too much of the owner's is running or waiting.
        """
        future: Future[T] = Future()
        with self._lock:
            taken = self._taken.get(owner, 0)
            if taken >= self._places:
                raise Full
            self._taken[owner] = taken + 1
            self._waiting.setdefault(owner, deque()).append((future, work))
            wake = self._idle > 0
            self._idle -= wake
        if wake:
            self._pool.submit(self._work)
        return future

    def _work(self) -> None:
        """One thread, until nothing is left to do."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._idle += 1
                    return
                owner, pieces = self._waiting.popitem(last=False)
                future, work = pieces.popleft()
                if pieces:
                    self._waiting[owner] = pieces  # behind all others
            self._do(owner, future, work)
            del owner, future, work, pieces  # they would live until the next turn

    def _do(self, owner: object, future: Future[Any], work: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            self._leave(owner)
            return
        try:
            result = work()
        except BaseException as exc:
            self._leave(owner)  # before anybody can know that it is done
            future.set_exception(exc)
        else:
            self._leave(owner)
            future.set_result(result)

    def _leave(self, owner: object) -> None:
        with self._lock:
            left = self._taken[owner] - 1
            if left:
                self._taken[owner] = left
            else:
                del self._taken[owner]
