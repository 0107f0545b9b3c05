"""Where WSGI code runs: bounded pools of threads, and the lanes that keep one request in one thread.

Under a WSGI server the middleware and the application inside it run in one thread. Here the event loop lies between
them, but the thread that waits for it is lent: WSGI code further inside runs there. Thread-local data is found again,
and many requests that have each taken a thread cannot wait for one more of them in vain.

asgiref's ``sync_to_async`` alone would run thread-sensitive code of all requests in one thread, or within a
``ThreadSensitiveContext`` in a new one for each request, without a bound. Given an executor that context fits: it hands
the waiting thread to the thread-sensitive code of ASGI applications further inside too.
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
_naming = threading.Lock()
_thread = threading.local()


def thread_pool(threads: int, name: str | None) -> ThreadPoolExecutor:
    """A pool of at most `threads`, started when they are needed; the same one for the same `name`.

    Raises:
        ConfigurationError: `threads` is no positive number, or not that of the pool of this name.
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
    """What a thread waits for: finished once, in the event loop."""

    __slots__ = ("_error", "_lane", "_value", "done")

    def __init__(self, lane: "Lane") -> None:
        self.done = False
        self._lane = lane
        self._value: Any = None
        self._error: BaseException | None = None

    def finish(self, value: Any = None, error: BaseException | None = None) -> None:
        """Lets the thread go on, with a value or an exception. Only the first call counts."""
        if not self.done:
            self._value = value
            self._error = error
            self.done = True
            self._lane.wake()

    def result(self) -> Any:
        """What it was finished with."""
        error, self._error = self._error, None  # an exception holds its frames, and they this
        value, self._value = self._value, None  # a body, maybe, which nobody else keeps
        if error is not None:
            try:
                raise error
            finally:
                del error
        return value


class Lane(Executor):
    """One thread, which runs what it is given whenever it waits; at other times a thread of the pool does."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0

    def offer(self, function: Callable[[], T]) -> Future[T] | None:
        """Runs `function` in this thread, if it waits."""
        with self._lock:
            if not self._waiting:
                return None
            future: Future[T] = Future()
            self._queue.put(partial(_fulfil, future, function))
            return future

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        return self.offer(partial(fn, *args, **kwargs)) or self._pool.submit(fn, *args, **kwargs)

    def wait(self, begin: Callable[[Wait], object]) -> Any:
        """Blocks this thread until a Wait is finished, and gives its result.

        Args:
            begin: is called with the Wait first, and sees to it that it will be finished.
        """
        wait = Wait(self)
        with self._lock:
            self._waiting += 1  # before anything can come of it
        try:
            begin(wait)
            while not wait.done:
                given = self._queue.get()
                if given is not None:
                    given()
                    given = None  # its result may be a body, and the next one may take long to come
        finally:
            with self._lock:
                self._waiting -= 1
                last = not self._waiting
            if last:
                self._hand_over()
        return wait.result()

    def wake(self) -> None:
        """Something that this thread waits for has finished."""
        self._queue.put(None)

    def _hand_over(self) -> None:
        """What came too late goes to the pool. Nothing can come any more until the thread waits again."""
        while not self._queue.empty():
            given = self._queue.get()
            if given is not None:
                self._pool.submit(given)


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
    """The lane of this thread, for as long as the outermost of its users needs it.

    Args:
        pool: that the thread belongs to.
    """
    lane: Lane | None = getattr(_thread, "lane", None)
    if lane is not None:
        yield lane
        return
    _thread.lane = lane = Lane(pool)
    try:
        yield lane
    finally:
        del _thread.lane  # it holds the pool, which ends its idle threads when nobody holds it


waiting_lane: ContextVar[Lane] = ContextVar("asgi_bridge.wsgi.waiting_lane")
"""Of the WSGI code around this one, whose thread waits."""
