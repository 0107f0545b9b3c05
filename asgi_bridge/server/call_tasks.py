"""The tasks that calls run in. A task is used for many calls, one after the other.

A task costs as much as a small plugin: asyncio registers each one in a set of weak references, and takes it out again.
But the code of plugins has to find a task around it: timeouts, task groups and anyio's cancel scopes ask for the
current one. So a call runs in a *spare*, a task that stands by. Its first step is made when the event loop begins the
calls of a turn, and each further step when what the call waits for is done. In all steps the spare's task is the
current one, and the context is the call's own. The task itself takes the call over if it is cancelled, or if the call
awaits what only a task can wait for.

After the call the spare takes the next one, but only if nothing is left of the call: nobody holds a reference to the
task, weak or strong, no callback waits for its end, and nobody has cancelled or renamed it. So no late cancel, no time
limit and nothing that a library keeps by task can reach the next request.

From Python 3.12 on asyncio itself can begin a task without registering it (``eager_start``).
"""

import asyncio
import contextlib
import sys
from asyncio import _enter_task, _leave_task  # public, for task implementations (asyncio-extending)
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from sys import getrefcount
from typing import TYPE_CHECKING, Any, Protocol
from weakref import getweakrefcount

from ..adapter import Call
from ..compiled import twin

if TYPE_CHECKING:
    from ..plugins import Chain

__all__ = ["CallTasks"]

EAGER = sys.version_info >= (3, 12)
PLAIN_CALLS = 63
"""Number of calls of a chain that get tasks of their own, after one that has left something on its task: the next ones
will too."""
MAX_SPARES = 256
"""Largest number of spares that stand by for the next calls."""
SPARE_TURNS = 64
"""Number of turns of the event loop in a row that do not need a spare, after which it ends. One stays."""
READ_SIZE = 16 * 1024
"""Bytes of the buffer that asyncio reads from the connections."""
NAME = "call"
_FUTURES = (asyncio.Future, asyncio.Task)


class Owner(Protocol):
    """Whose call it is."""

    def note_task(self, call: Call, task: "asyncio.Task[None]") -> None:
        """Note that the call waits for something, and has a task until its end."""

    def ended(self, call: Call) -> None:
        """Note the end of a call that has a task, or no answer."""


Entry = tuple[Call, Owner]
Run = Coroutine[Any, Any, None]


def _begin_in_spares(tasks: "CallTasks", ready: list[Entry]) -> None:
    """Begin calls, as long as there are spares.

    Args:
        tasks: It has the spares.
        ready: The calls, the first one last. Those that have begun are taken out.
    """
    while ready and tasks.spares:
        spare = tasks.spares.pop()
        if spare.future.done():  # somebody has cancelled it
            continue
        _enter_task(tasks.loop, spare.task)
        try:
            _begin_in_turn(spare, ready)
        finally:
            _leave_task(tasks.loop, spare.task)
            if spare.call is not None or spare.future.done():
                if not tasks.spares:
                    tasks.make_spare()
            elif tasks.closed:
                spare.let_go()
            else:
                tasks.spares.append(spare)


def _begin_in_turn(spare: "Spare", ready: list[Entry]) -> None:
    """Begin calls in a spare, each in a context of its own, until one of them waits, raises, or leaves something of it.

    Args:
        spare: Its task is the current one.
        ready: As above.
    """
    spare.references, spare.weak = getrefcount(spare.task), getweakrefcount(spare.task)
    while ready:
        call, owner = ready.pop()
        run: Run | None = call.run(owner.ended)
        context: Context | None = copy_context()
        try:
            waits_for = context.run(run.send, None)  # type: ignore[union-attr]
        except StopIteration:
            context = run = None  # what is left of the call in them is freed now
            if not spare.is_as_it_was():
                spare.let_go_after(call)
                return
        except BaseException as exc:  # a log handler may raise anywhere
            spare.let_go_after(call, exc)
            return
        else:
            assert run is not None and context is not None
            spare.take(call, owner, context)
            spare.wait(run, waits_for)
            owner.note_task(call, spare.task)
            return


async def nothing() -> None:
    """Do nothing."""


async def raising(exc: BaseException) -> None:
    """Raise `exc`."""
    try:
        raise exc
    finally:
        del exc  # its traceback holds this frame


class Rest:
    """What is left of a coroutine after a step. Awaiting it runs it.

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


class CallTasks:
    """Begins the calls of one event loop.

    The calls that arrive in one turn of the loop begin together, behind all reads of that turn. To run the same code
    many times in a row is a fifth quicker than to do each call from end to end.

    Args:
        loop: The event loop.

    Attributes:
        ready: The calls that begin in the next turn.
        read_buffer: What asyncio reads from the connections of this loop. Each read is handled at once.
        spares: The tasks that have no call.
        closed: True: there are no spares any more.
        woken: The spares whose calls go on in the next turn, and what they have waited for. Only the core has some.
    """

    __slots__ = ("_unneeded", "closed", "loop", "read_buffer", "ready", "spares", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.read_buffer = memoryview(bytearray(READ_SIZE))
        self.ready: list[Entry] = []
        self.spares: list[Spare] = []
        self.woken: list[tuple[Spare, object]] = []
        self._unneeded = 0  # turns in a row
        self.closed = EAGER  # then there are no spares
        self.make_spare()

    def start(self, call: Call, owner: Owner) -> None:
        """Begin a call in the next turn of the loop."""
        if not self.ready:
            self.loop.call_soon(self._begin_all)
        self.ready.append((call, owner))

    def close(self) -> None:
        """End the tasks that have no call, and drop the calls that have not begun."""
        self.closed = True
        self.ready.clear()
        for spare in self.spares:
            spare.let_go()
        self.spares.clear()

    def keep(self, spare: "Spare") -> None:
        """Take a spare that is free."""
        if self.closed or len(self.spares) >= MAX_SPARES:
            spare.let_go()
        else:
            self.spares.append(spare)

    def make_spare(self) -> None:
        """Start one more task that stands by."""
        if not self.closed:
            Spare(self)

    def _begin_all(self) -> None:
        ready, self.ready = self.ready, []
        ready.reverse()
        try:
            while ready:
                if self.spares:
                    begin_in_spares(self, ready)
                    continue
                call, owner = ready.pop()
                if EAGER:
                    task = asyncio.Task(call.run(owner.ended), loop=self.loop, name=call.plugins, eager_start=True)  # type: ignore[call-arg]
                else:
                    task = asyncio.Task(call.run(owner.ended), loop=self.loop, name=call.plugins)
                    self.make_spare()
                if not task.done():
                    owner.note_task(call, task)
            self._unneeded = self._unneeded + 1 if len(self.spares) > 1 else 0
            if self._unneeded == SPARE_TURNS:
                self._unneeded = 0
                self.spares.pop(0).let_go()
        finally:
            if ready:  # an exception is about to end the loop: the other calls begin if the loop runs again
                ready.reverse()
                self.ready = ready + self.ready
                self.loop.call_soon(self._begin_all)


class Spare:
    """A task that runs no call, or one that waits for something.

    It is also what the event loop calls when that is done.

    Args:
        tasks: Whose spare it is. It gets it as soon as the task has begun.

    Attributes:
        task: The task.
        future: That the task waits for.
        call, owner, context: The call that waits, whose it is, and the context that it runs in; None: there is none.
        run: What is to be run on; None: it is running, or the task itself runs it.
        waits_for: What it waits for; None: the next turn of the event loop.
        chain: The call's, if `run` is the run of its chain and not that of `Call.run`.
        tasks: Whose spare it is.
        references, weak, name: How the task was before the call: its numbers of references, and its name.
    """

    __slots__ = (
        "_rest", "call", "chain", "context", "future", "name", "owner", "references", "run", "task", "tasks",
        "waits_for", "weak",
    )  # fmt: skip

    def __init__(self, tasks: CallTasks) -> None:
        self.tasks = tasks
        self.call: Call | None = None
        self.owner: Owner | None = None
        self.context: Context | None = None
        self.run: Run | None = None
        self.waits_for: Any = None
        self.chain: Chain | None = None
        self._rest: Awaitable[None] | None = None
        self.references = self.weak = 0
        self.name = NAME
        self.future: asyncio.Future[None] = tasks.loop.create_future()
        self.task = asyncio.Task(self._stand_by(), loop=tasks.loop, name=NAME)

    def is_as_it_was(self) -> bool:
        """Return whether nothing of a call is left on the task. Nobody may hold it in a variable meanwhile."""
        return (
            getrefcount(self.task) == self.references
            and getweakrefcount(self.task) == self.weak
            and not self.future.done()  # cancelling the task cancels what it waits for
            and self.task._callbacks is None  # noqa: SLF001  # no other way to ask
            and self.task.get_name() is self.name
        )

    # a call that waits

    def take(self, call: Call, owner: Owner, context: Context) -> None:
        """Belong to a call until its end."""
        self.call, self.owner, self.context = call, owner, context
        with contextlib.suppress(AttributeError):  # a plugin has broken its call
            self.name = call.plugins
            self.task.set_name(self.name)

    def wait(self, run: Run, waits_for: Any) -> None:
        """Go on when the call does not have to wait any more.

        Args:
            run: What is to be run on.
            waits_for: What it has yielded to its task.
        """
        loop = self.tasks.loop
        if waits_for is None and not self.future.done():
            self.run = run
            loop.call_soon(self, None, context=self.context)
        elif (
            type(waits_for) in _FUTURES
            and waits_for is not self.task
            and waits_for._asyncio_future_blocking  # noqa: SLF001  # a task sees by it that it is awaited
            and waits_for.get_loop() is loop
            and not self.future.done()
        ):
            self.run, self.waits_for = run, waits_for
            waits_for._asyncio_future_blocking = False  # noqa: SLF001
            waits_for.add_done_callback(self, context=self.context)
        else:
            self.hand_over(Rest(run, None if self.chain is not None else self.context, waits_for))

    def hand_over(self, rest: Awaitable[None]) -> None:
        """Let the task itself run the rest of the call."""
        self._rest = rest
        self.let_go()

    def __call__(self, waited: Any) -> None:
        """Run the next step of the call, whose context is the current one.

        Args:
            waited: What it has waited for, which is done.
        """
        run = self.run
        if run is None or self.waits_for is not waited or self.future.done():
            return  # the task runs the call, or is about to
        self.run = self.waits_for = None
        _enter_task(self.tasks.loop, self.task)
        try:
            waits_for = run.send(None)
        except StopIteration:
            run = None  # what is left of the call in it is freed now
            self._finish()
        except BaseException as exc:
            self.hand_over(raising(exc))
        else:
            self.wait(run, waits_for)
        finally:
            _leave_task(self.tasks.loop, self.task)

    def _finish(self) -> None:
        """Note the end of the call. Its context is the current one, so nothing may begin here that lasts."""
        call, self.call = self.call, None
        self.owner = self.context = None
        assert call is not None
        if not self.is_as_it_was():
            self.let_go_after(call)
            return
        self.name = NAME
        self.task.set_name(NAME)
        self.tasks.keep(self)

    def let_go_after(self, call: Call, exc: BaseException | None = None) -> None:
        """End the task after a call.

        Args:
            call: The call.
            exc: What it has raised.

        Raises:
            KeyboardInterrupt, SystemExit: The call has raised it.
        """
        call.chain.waits = PLAIN_CALLS
        self.call = self.owner = self.context = self.chain = None
        self.let_go()
        if isinstance(exc, KeyboardInterrupt | SystemExit):
            raise exc
        if exc is not None:
            about = {"message": "a call has raised", "exception": exc, "task": self.task}
            self.tasks.loop.call_exception_handler(about)

    def let_go(self) -> None:
        """End the task, or let it run the rest of its call."""
        if not self.future.done():
            self.future.set_result(None)

    async def _stand_by(self) -> None:
        self.tasks.keep(self)
        try:
            await self.future
        except asyncio.CancelledError as exc:
            if self.call is None:
                raise
            # It was cancelled while it ran a call. asyncio would then cancel what the call waits for. It does so if
            # the task is cancelled while it runs; the number of cancels stays as it was.
            self.task.cancel(*exc.args)
            self.task.uncancel()
        rest = self._take_rest()
        if rest is not None:
            await rest

    def _take_rest(self) -> Awaitable[None] | None:
        """Take the call over, if there is one. Its task runs the rest of it."""
        call, owner, context, run, chain = self.call, self.owner, self.context, self.run, self.chain
        waits_for, rest = self.waits_for, self._rest
        self.call = self.owner = self.context = self.run = self.chain = self.waits_for = self._rest = None
        if call is None or owner is None or context is None:
            return None
        call.chain.waits = PLAIN_CALLS
        if run is not None:
            if waits_for is not None:
                waits_for.remove_done_callback(self)
                waits_for._asyncio_future_blocking = True  # noqa: SLF001
            rest = Rest(run, context if chain is None else None, waits_for)
        if chain is None:
            return rest
        run = call.run(owner.ended, rest)
        try:
            return Rest(run, context, context.run(run.send, None))
        except StopIteration:
            return None


_compiled = twin("server._call_tasks")
begin_in_spares = _begin_in_spares
if _compiled is not None:
    begin_in_spares = _compiled.begin_in_spares
    Spare.__call__ = _compiled.go_on  # type: ignore[method-assign]
