"""The tasks that calls run in. Most calls wait for nothing, and need no task of their own.

A task costs as much as a small plugin: asyncio registers each one in a set of weak references. But the code of plugins
has to find a task around it: timeouts, task groups and anyio's cancel scopes ask for the current one. So a call begins
in a *spare* task, with a context of its own. If the call ends without waiting, the next call begins in the same spare.
If it waits for something, the spare becomes its task, and runs the rest.

A spare is used again only if nothing is left of the call: nobody holds a reference to the task, weak or strong, no
callback waits for its end, and nobody has cancelled or renamed it. So no late cancel, no time limit and nothing that a
library keeps by task can reach the next request.

From Python 3.12 on asyncio itself can begin a task without registering it (``eager_start``).
"""

import asyncio
import sys
from asyncio import _enter_task, _leave_task  # public, for task implementations (asyncio-extending)
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from sys import getrefcount
from typing import Any, Protocol
from weakref import getweakrefcount

from ..adapter import Call
from ..compiled import twin

__all__ = ["CallTasks"]

EAGER = sys.version_info >= (3, 12)
PLAIN_CALLS = 63
"""Number of calls of a chain that get a task at once, after one has waited: the next ones will wait too."""
READ_SIZE = 16 * 1024
"""Bytes of the buffer that asyncio reads from the connections."""
_NAME = "call"


class Owner(Protocol):
    """Whose call it is."""

    def note_task(self, call: Call, task: "asyncio.Task[None]") -> None:
        """Note that the call waits for something, and has a task until its end."""

    def ended(self, call: Call) -> None:
        """Note the end of a call that has a task, or no answer."""


Entry = tuple[Call, Owner]
Run = Coroutine[Any, Any, None]


def _begin_in_turn(
    task: "asyncio.Task[None]", future: "asyncio.Future[None]", name: str, ready: list[Entry]
) -> tuple[Entry, BaseException | None, Run | None, Context | None, Any] | None:
    """Begin calls in a task, each in a context of its own, until one of them waits, raises, or leaves something of it.

    Args:
        task: The task, which is the current one.
        future: That the task waits for.
        name: The task's name.
        ready: The calls, the first one last. Those that have begun are taken out.

    Returns:
        The call after which the task cannot be used again; the exception that it has raised; and, if it waits, what it
        runs, its context, and what it has yielded to its task. None: the task is as it was.
    """
    references, weak = getrefcount(task), getweakrefcount(task)
    while ready:
        entry = ready.pop()
        call, owner = entry
        run: Run | None = call.run(owner.ended)
        context: Context | None = copy_context()
        try:
            waits_for = context.run(run.send, None)  # type: ignore[union-attr]
        except StopIteration:
            context = run = None  # what is left of the call in them is freed now
            if (
                getrefcount(task) != references
                or getweakrefcount(task) != weak
                or future.done()  # cancelling the task cancels what it waits for
                or task._callbacks is not None  # noqa: SLF001  # no other way to ask
                or task.get_name() is not name
            ):
                return entry, None, None, None, None
        except BaseException as exc:  # a log handler may raise anywhere
            return entry, exc, None, None, None
        else:
            return entry, None, run, context, waits_for
    return None


async def nothing() -> None:
    """Do nothing."""


async def raising(exc: BaseException) -> None:
    """Raise `exc`."""
    try:
        raise exc
    finally:
        del exc  # its traceback holds this frame


class Rest:
    """What is left of a coroutine after its first step. Awaiting it runs it.

    Args:
        run: The coroutine.
        context: The context that it runs in; None: the one of the task.
        waits_for: What it has yielded to its task.
    """

    __slots__ = ("_context", "_run", "_waits_for")

    def __init__(self, run: Run, context: Context | None, waits_for: Any) -> None:
        self._run = run
        self._context = context
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        run, context, waits_for = self._run, self._context, self._waits_for
        step: Callable[[Any], Any]
        del self._waits_for  # it would keep alive what the call has got
        while True:
            try:
                value = yield waits_for
            except BaseException as exc:
                step, value = run.throw, exc
            else:
                step = run.send
            try:
                waits_for = step(value) if context is None else context.run(step, value)
            except StopIteration:
                return
            finally:
                value = None


_compiled = twin("server._call_tasks")
begin_in_turn = _begin_in_turn if _compiled is None else _compiled.begin_in_turn


class CallTasks:
    """Begins the calls of one event loop.

    The calls that arrive in one turn of the loop begin together, behind all reads of that turn. To run the same code
    many times in a row is a fifth quicker than to do each call from end to end.

    Args:
        loop: The event loop.

    Attributes:
        ready: The calls that begin in the next turn.
        read_buffer: What asyncio reads from the connections of this loop. Each read is handled at once.
    """

    __slots__ = ("_spare", "loop", "read_buffer", "ready")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.read_buffer = memoryview(bytearray(READ_SIZE))
        self.ready: list[Entry] = []
        self._spare = None if EAGER else _Spare(loop)  # None: there is none

    def start(self, call: Call, owner: Owner) -> None:
        """Begin a call in the next turn of the loop."""
        if not self.ready:
            self.loop.call_soon(self._begin_all)
        self.ready.append((call, owner))

    def close(self) -> None:
        """End the spare task, and drop the calls that have not begun."""
        self.ready.clear()
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.let_go()

    def _begin_all(self) -> None:
        ready, self.ready = self.ready, []
        ready.reverse()
        try:
            while ready:
                spare = self._spare
                if spare is not None and spare.parked:
                    self._begin_in(spare, ready)
                    continue
                call, owner = ready.pop()
                if EAGER:
                    task = asyncio.Task(call.run(owner.ended), loop=self.loop, name=call.plugins, eager_start=True)  # type: ignore[call-arg]
                else:
                    task = asyncio.Task(call.run(owner.ended), loop=self.loop, name=call.plugins)
                if not task.done():
                    owner.note_task(call, task)
        finally:
            if ready:  # an exception is about to end the loop: the other calls begin if the loop runs again
                ready.reverse()
                self.ready = ready + self.ready
                self.loop.call_soon(self._begin_all)

    def _begin_in(self, spare: "_Spare", ready: list[Entry]) -> None:
        """Begin calls in `spare`, until it cannot be used again.

        Args:
            spare: A spare that is parked.
            ready: The calls, the first one last. Those that have begun are taken out.
        """
        task, future = spare.task, spare.future
        _enter_task(self.loop, task)
        try:
            last = begin_in_turn(task, future, _NAME, ready)
            if last is not None:
                (call, owner), exc, run, context, waits_for = last
                call.chain.waits = PLAIN_CALLS
                if run is not None:
                    task.set_name(call.plugins)
                    spare.go_on(Rest(run, context, waits_for))
                    owner.note_task(call, task)
                else:
                    spare.let_go()
                if isinstance(exc, KeyboardInterrupt | SystemExit):
                    raise exc
                if exc is not None:
                    self.loop.call_exception_handler({"message": "a call has raised", "exception": exc, "task": task})
        finally:
            _leave_task(self.loop, task)
            if future.done():  # let go, or cancelled
                self._spare = _Spare(self.loop)


class _Spare:
    """A task that has nothing to do yet.

    Args:
        loop: The event loop.

    Attributes:
        task: The task.
        future: That it waits for.
        parked: True: it waits, and can be used. It does not before the next turn of the loop.
    """

    __slots__ = ("_rest", "future", "parked", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.parked = False
        self.future: asyncio.Future[None] = loop.create_future()
        self._rest: Rest | None = None
        self.task = asyncio.Task(self._run(), loop=loop, name=_NAME)

    def let_go(self) -> None:
        """End the task."""
        if not self.future.done():
            self.future.set_result(None)

    def go_on(self, rest: "Rest") -> None:
        """Let the task run the rest of a call."""
        self._rest = rest
        self.let_go()

    async def _run(self) -> None:
        self.parked = True
        try:
            await self.future
        except asyncio.CancelledError as exc:
            if self._rest is None:
                raise
            # It was cancelled in the call's first step. asyncio would then cancel what the call waits for. It does so
            # if the task is cancelled while it runs; the number of cancels stays as it was.
            self.task.cancel(*exc.args)
            self.task.uncancel()
        rest, self._rest = self._rest, None
        if rest is not None:
            await rest
