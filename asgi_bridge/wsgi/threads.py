"""Where WSGI code runs: bounded pools of threads, and the lanes that keep one request in one thread.

Under a WSGI server the middleware and the application inside it run in one thread. Here the event loop lies between
them. But a thread that waits for the event loop is lent to WSGI code further inside. So that code finds the
thread-local data of the code around it. And requests that hold a thread each do not wait for one another's threads.

asgiref's ``sync_to_async`` alone would run the thread-sensitive code of all requests in one thread. Within a
``ThreadSensitiveContext`` it would start a thread for each request, without a bound. With an executor of ours that
context fits: it lends the waiting thread to the thread-sensitive code of ASGI applications further inside too.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from ..errors import ConfigurationError

__all__ = ["Lane", "Wait", "lane_of_thread", "thread_pool", "waiting_lane"]

T = TypeVar("T")

_named: dict[str, tuple[int, ThreadPoolExecutor]] = {}
"""Pools by name, each with its maximum number of threads."""
_naming = threading.Lock()
_thread = threading.local()


def thread_pool(threads: int, name: str | None) -> ThreadPoolExecutor:
    """Return a pool of threads, which start when they are needed.

    Args:
        threads: Maximum number of threads.
        name: The same name gives the same pool; None: a pool for this caller alone.

    Raises:
        ConfigurationError: `threads` is no positive number, or the pool of this name has another number.
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ConfigurationError(f"threads is a number of threads, not {threads!r}")
    if name is None:
        return ThreadPoolExecutor(threads, "wsgi")
    with _naming:
        size, pool = _named.setdefault(name, (threads, ThreadPoolExecutor(threads, f"wsgi-{name}")))
    if size != threads:
        raise ConfigurationError(f"the thread pool {name!r} has {size} threads already, not {threads}")
    return pool


class Wait:
    """Something that a thread waits for, and that the event loop finishes once.

    Args:
        lane: The thread.

    Attributes:
        done: True: it is finished.
    """

    __slots__ = ("_error", "_lane", "_value", "done")

    def __init__(self, lane: "Lane") -> None:
        self.done = False
        self._lane = lane
        self._value: Any = None
        self._error: BaseException | None = None

    def finish(self, value: Any = None, error: BaseException | None = None) -> None:
        """Let the thread go on, with a value or an exception. Only the first call counts."""
        if not self.done:
            self._value = value
            self._error = error
            self.done = True
            self._lane.wake()

    def result(self) -> Any:
        """Return the value, or raise the exception, that it was finished with."""
        error, self._error = self._error, None  # an exception holds its frames, and they hold this
        value, self._value = self._value, None  # it may be a body, which nobody else keeps
        if error is not None:
            try:
                raise error
            finally:
                del error
        return value


class Lane(Executor):
    """One thread as an executor: it runs functions while it waits. At other times a thread of the pool runs them.

    Args:
        pool: The pool that the thread belongs to.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0

    def offer(self, function: Callable[[], T]) -> Future[T] | None:
        """Run `function` in this thread if it waits. Otherwise return None, and do not run it."""
        with self._lock:
            if not self._waiting:
                return None
            future: Future[T] = Future()
            self._queue.put(partial(_fulfil, future, function))
            return future

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a function in this thread if it waits, otherwise in the pool."""
        return self.offer(partial(fn, *args, **kwargs)) or self._pool.submit(fn, *args, **kwargs)

    def wait(self, begin: Callable[[Wait], object]) -> Any:
        """Block this thread until a new `Wait` is finished, and return its result.

        Args:
            begin: Called with the `Wait` first. It arranges that the wait is finished.
        """
        wait = Wait(self)
        with self._lock:
            self._waiting += 1  # before `begin` can lead to work for this thread
        try:
            begin(wait)
            while not wait.done:
                work = self._queue.get()
                if work is not None:
                    work()
                    work = None  # its result may be a body, and the next work may take long to come
        finally:
            with self._lock:
                self._waiting -= 1
                last = not self._waiting
            if last:
                self._hand_over()
        return wait.result()

    def wake(self) -> None:
        """Let the thread look whether what it waits for is done."""
        self._queue.put(None)

    def _hand_over(self) -> None:
        """Pass work that came too late to the pool. No more work can come until the thread waits again."""
        while not self._queue.empty():
            work = self._queue.get()
            if work is not None:
                self._pool.submit(work)


def _fulfil(future: Future[T], function: Callable[[], T]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            result = function()
        except BaseException as exc:
            future.set_exception(exc)
        else:
            future.set_result(result)


@contextmanager
def lane_of_thread(pool: Executor) -> Iterator[Lane]:
    """Return the lane of this thread. The outermost block makes it, and blocks within share it.

    Args:
        pool: The pool that the thread belongs to.
    """
    lane: Lane | None = getattr(_thread, "lane", None)
    if lane is not None:
        yield lane
        return
    _thread.lane = lane = Lane(pool)
    try:
        yield lane
    finally:
        del _thread.lane  # it holds the pool, whose idle threads end once nobody holds it


waiting_lane: ContextVar[Lane] = ContextVar("asgi_bridge.wsgi.waiting_lane")
"""The lane of the WSGI code around the code that runs, whose thread waits."""
