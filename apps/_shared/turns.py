"""Threads that serve several owners in turn, so that no owner waits until the long queue of another one is done.

An owner is any object that belongs to one route. The threads do one job of an owner, then one of the next owner. The
number of jobs that an owner may have at once is limited, and a further job is refused immediately. So a flooded route
uses up its own places, and another route waits for one of its jobs at most.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["Full", "Turns"]

T = TypeVar("T")
_Job = tuple[Future[Any], Callable[[], Any]]


class Full(Exception):
    """The owner has its maximum number of jobs already."""


class Turns:
    """A pool of threads.

    Args:
        name: Prefix of the threads' names.
        threads: Number of threads.
        places: Maximum number of jobs of one owner, running and waiting.
    """

    def __init__(self, name: str, threads: int, places: int) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._idle = threads
        self._places = places
        self._lock = threading.Lock()
        self._taken: dict[object, int] = {}
        self._waiting: OrderedDict[object, deque[_Job]] = OrderedDict()

    def submit(self, owner: object, work: Callable[[], T]) -> Future[T]:
        """Call `work` in a thread when it is the owner's turn.

        Raises:
            Full: The owner has its maximum number of jobs already.
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
        """Work through the queues in one thread until they are empty."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._idle += 1
                    return
                owner, jobs = self._waiting.popitem(last=False)
                future, work = jobs.popleft()
                if jobs:
                    self._waiting[owner] = jobs  # behind all others
            self._do(owner, future, work)
            del owner, future, work, jobs  # an idle thread would keep them alive

    def _do(self, owner: object, future: Future[Any], work: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            self._free_place(owner)
            return
        try:
            result = work()
        except BaseException as exc:
            self._free_place(owner)  # before the future is done: its waiter may submit the next job at once
            future.set_exception(exc)
        else:
            self._free_place(owner)
            future.set_result(result)

    def _free_place(self, owner: object) -> None:
        with self._lock:
            left = self._taken[owner] - 1
            if left:
                self._taken[owner] = left
            else:
                del self._taken[owner]
