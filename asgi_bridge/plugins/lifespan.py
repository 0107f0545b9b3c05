"""The server's half of an ASGI lifespan: a task holds it open from start-up to shutdown (ASGI lifespan spec 2.0)."""

import asyncio
import logging
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import PluginError
from .applications import WrongApplication
from .reasons import ends_task, reason_of, shortened

__all__ = ["Lifespan", "quiet_lifespan"]

logger = logging.getLogger("asgi_bridge.plugins")

END_SECONDS = 0.1
"""Seconds that the task of an application gets to end once it is cancelled. After that nobody waits for it."""


class Lifespan:
    """Start-up and shutdown of one application.

    As in uvicorn's "auto" mode, an application that raises instead of answering the start-up has no lifespan. One that
    wants to end the process (SystemExit, KeyboardInterrupt) has failed.

    Args:
        app: The application.
        name: Name of the plugin, for the log.

    Attributes:
        state: What the application put into the lifespan state.
    """

    # Each configuration has one of these. A queue of asyncio alone would take 2 KiB.
    __slots__ = (
        "_answered", "_app", "_asked", "_inbox", "_passed_on", "_receiving", "_started", "_stopped", "_task", "name",
        "state",
    )  # fmt: skip

    def __init__(self, app: ASGIApp, name: str) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self.name = name
        self._task: asyncio.Task[None] | None = None
        self._inbox: list[Message] = []
        self._receiving: list[asyncio.Future[None]] = []
        self._started: asyncio.Future[Message | None] | None = None  # until the start-up has ended
        self._stopped: asyncio.Future[Message | None] | None = None
        self._answered = False
        self._passed_on = False
        self._asked = False

    @property
    def own(self) -> bool:
        """Whether the application answered the start-up itself, and did not pass it on to the one that it wraps."""
        return self._answered and not self._passed_on

    def passed_on(self) -> None:
        """Note that the application has passed its lifespan on."""
        self._passed_on = True

    def timeout_reason(self, seconds: float) -> str:
        """Return why the start-up took more than `seconds`."""
        reason = f"its lifespan start-up took more than {seconds:g} s"
        if self._asked:
            return reason
        # it most likely treats its lifespan as a request
        return (
            f'{reason}: it was called with scope["type"] == "lifespan" and never called receive; an application '
            'without a lifespan returns at once unless scope["type"] is "http"'
        )

    async def start(self, seconds: float) -> None:
        """Run the start-up.

        Args:
            seconds: Time that the start-up may take.

        Raises:
            PluginError: The application answered that it failed, or did not answer in time.
        """
        loop = asyncio.get_running_loop()
        started = self._started = loop.create_future()
        self._put({"type": "lifespan.startup"})
        self._task = loop.create_task(self._run(), name=f"lifespan of {self.name}")
        try:
            async with asyncio.timeout(seconds):
                message = await asyncio.shield(started)
        except TimeoutError:
            await self._end_task()
            raise PluginError(self.timeout_reason(seconds)) from None
        except BaseException:
            await self._end_task()
            raise
        self._started = None
        self._answered = message is not None
        if message is not None and message["type"] == "lifespan.startup.failed":
            await self._end_task()
            reason = shortened(str(message.get("message", "")).strip())
            raise PluginError(f"its lifespan start-up failed: {reason or 'no reason given'}")

    def begin_stop(self) -> None:
        """Tell the application to shut down, if it has not been told. :meth:`stop` waits for it."""
        if self._task is not None and not self._task.done() and self._stopped is None:
            self._stopped = asyncio.get_running_loop().create_future()
            self._put({"type": "lifespan.shutdown"})

    async def stop(self, seconds: float) -> None:
        """Run the shutdown. Then end the application's task, whatever it does.

        Args:
            seconds: Time that the shutdown may take.
        """
        self.begin_stop()
        if self._task is None or self._task.done() or self._stopped is None:
            return
        try:
            async with asyncio.timeout(seconds):
                message = await asyncio.shield(self._stopped)
            if message is not None and message["type"] == "lifespan.shutdown.failed":
                reason = shortened(str(message.get("message", "")))
                logger.error("plugin %s: its lifespan shutdown failed: %s", self.name, reason)
        except TimeoutError:
            logger.error("plugin %s: its lifespan shutdown took more than %g s and was cut off", self.name, seconds)
        finally:
            await self._end_task()

    async def _end_task(self) -> None:
        assert self._task is not None
        self._task.cancel()
        # what it raises now is not logged: the start-up or the shutdown is over
        _, running = await asyncio.wait([self._task], timeout=END_SECONDS)
        if running:
            logger.error("plugin %s: its lifespan does not end although it was cancelled", self.name)

    async def _run(self) -> None:
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, _Send(self))
        except WrongApplication as exc:
            if self._started is not None and not self._started.done():
                self._started.set_exception(exc)
        except BaseException as exc:  # a plugin must not end the runner
            if ends_task(exc, self._task):
                raise
            if self._started is None or self._started.done():
                logger.error("plugin %s: its lifespan raised", self.name, exc_info=exc)
            elif isinstance(exc, Exception):
                logger.debug("plugin %s: it has no lifespan: %r", self.name, exc)
            else:
                self._started.set_result({"type": "lifespan.startup.failed", "message": reason_of(exc)})
        finally:
            for future in (self._started, self._stopped):
                if future is not None and not future.done():
                    future.set_result(None)

    async def _receive(self) -> Message:
        self._asked = True
        while not self._inbox:
            future = asyncio.get_running_loop().create_future()
            self._receiving.append(future)
            await future
        return self._inbox.pop(0)

    def _put(self, message: Message) -> None:
        self._inbox.append(message)
        for future in self._receiving:
            if not future.done():
                future.set_result(None)
        self._receiving.clear()

    def answer(self, message: Message) -> None:
        """Take a message that the application sends.

        Raises:
            PluginError: The message does not belong here.
        """
        kind = message["type"]
        future = self._started if kind.startswith("lifespan.startup.") else self._stopped
        if kind not in _ANSWERS or future is None or future.done():
            raise PluginError(f"the message {kind!r} does not belong here")
        future.set_result(message)


class _Send:
    """The `send` of a lifespan. :func:`quiet_lifespan` recognises it where the application passed it on."""

    __slots__ = ("lifespan",)

    def __init__(self, lifespan: Lifespan) -> None:
        self.lifespan = lifespan

    async def __call__(self, message: Message) -> None:
        self.lifespan.answer(message)


_ANSWERS = {
    "lifespan.startup.complete",
    "lifespan.startup.failed",
    "lifespan.shutdown.complete",
    "lifespan.shutdown.failed",
}


async def quiet_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the lifespan as a middleware's inner application. It does nothing, since each plugin has a lifespan."""
    if isinstance(send, _Send):
        send.lifespan.passed_on()
    # what `answer_lifespan` would do, without a stack that lives as long as the plugin
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
