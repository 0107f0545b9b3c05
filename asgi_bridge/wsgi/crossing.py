"""The way between a worker thread and the event loop: what the thread asks for, and how its run is cut off."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from contextvars import Context
from typing import Any

from ..errors import PluginError
from .threads import Wait, lane_of_thread

__all__ = ["Crossing"]


class Crossing:
    """The way between the event loop that creates it and the thread that runs a WSGI application.

    Args:
        pool: The threads to run in.

    Attributes:
        aborted: True: nobody waits for the response any more, so the thread must not wait for anything either.
    """

    def __init__(self, pool: Executor) -> None:
        self.pool = pool
        self.aborted = False
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._waits: set[Wait] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # in the thread

    def check_open(self) -> None:
        """Raise CancelledError once the run is cut off or has ended."""
        if self.aborted:
            raise _cut_off()

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback` in the event loop, without waiting for it.

        Raises:
            RuntimeError: The loop is closed.
        """
        self._loop.call_soon_threadsafe(callback, *args)

    def wait_for(self, begin: Callable[..., object], *args: Any) -> Any:
        """Block this thread until the event loop has finished something, and return the result.

        Args:
            begin: Called in the event loop, with a new `Wait` and `args`. It arranges that the wait is finished.
            args: Further arguments of `begin`.
        """
        if threading.get_ident() == self._loop_thread:
            raise PluginError("WSGI code was called in the event loop's thread, which it would wait for")
        with lane_of_thread(self.pool) as lane:
            return lane.wait(lambda wait: self.post(begin, wait, *args))

    def ask(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine in the event loop with this thread's context, and return its result."""
        return self.wait_for(self._answer, make, contextvars.copy_context())

    # in the event loop

    def _answer(self, wait: Wait, make: Callable[[], Coroutine[Any, Any, Any]], context: Context) -> None:
        async def answer() -> None:
            try:
                wait.finish(await make())
            except BaseException as exc:
                wait.finish(error=exc)

        if self.admit(wait):
            self.keep(self._loop.create_task(answer(), context=context))

    def admit(self, wait: Wait) -> bool:
        """Return whether the thread may wait for something. If it is aborted, the wait is finished with that error."""
        if self.aborted:
            wait.finish(error=_cut_off())
            return False
        self._waits.add(wait)
        return True

    def keep(self, task: "asyncio.Task[None]") -> None:
        """Hold a task that runs for the thread, until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def tasks_done(self) -> None:
        """Wait until all tasks are done."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def abort(self, thread: "Future[None]") -> None:
        """Let the thread wait for nothing any more, and cancel all tasks.

        Args:
            thread: What runs in the thread; if it has not begun yet, it never will.
        """
        self.aborted = True
        thread.cancel()
        for wait in list(self._waits):
            wait.finish(error=_cut_off())
        for task in self._tasks:
            task.cancel()
        await self.tasks_done()


def _cut_off() -> asyncio.CancelledError:
    return asyncio.CancelledError("the request was cut off, or has ended")
