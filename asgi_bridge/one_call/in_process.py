"""A call in this process, in which each plugin is watched."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Mapping, Sequence
from time import monotonic

from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from ..adapter import Answer, Call, Host, RequestCall, ResponseCall
from ..apisix_constants import POST_RESP, PRE_REQ
from ..errors import PluginError
from ..plugins import Chain, MountedLifespans, Plugin, build_chain
from ..plugins.reasons import reason_of, text_of
from ..wire import ErrResp, HTTPReqCallReq, HTTPRespCallReq, Info
from .outcome import Outcome, Watch, copied
from .request import Request

__all__ = ["call_in_process"]

STARTUP_SECONDS = 60.0
"""Seconds that a mounted application gets to start up."""
SHUTDOWN_SECONDS = 5.0
"""Seconds that applications get to shut down."""
BACKGROUND_SECONDS = 5.0
"""Seconds that background tasks get after the answer. Then they are cancelled."""
TICK_SECONDS = 0.05
"""Seconds between two looks at the deadline."""


def call_in_process(request: Request, plugins: Mapping[str, Plugin]) -> Outcome:
    """Call plugins in this process.

    Args:
        request: The request, which names the plugins.
        plugins: All mounted plugins, by name.

    Raises:
        ConfigurationError: A plugin is not mounted, refuses its configuration, or cannot start.
    """
    return asyncio.run(_run(request, plugins))


async def _run(request: Request, plugins: Mapping[str, Plugin]) -> Outcome:
    mounted = MountedLifespans()
    outcome = Outcome()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(mounted.stop, SHUTDOWN_SECONDS)
        for name, _ in request.plugins:
            if name in plugins:
                with contextlib.suppress(PluginError):  # building the chain says it, with the plugin's name
                    await mounted.start(plugins[name], STARTUP_SECONDS)
        place = PRE_REQ if request.phase == "request" else POST_RESP
        chain = await build_chain(plugins, f"route#asgi-bridge-call#{place}#1".encode(), request.conf, mounted)
        stack.push_async_callback(chain.close, SHUTDOWN_SECONDS)
        outcome.watches = [Watch(layer) for layer in chain.layers]
        await _call(request, chain, outcome)
    return outcome


async def _call(request: Request, chain: Chain, outcome: Outcome) -> None:
    faults: list[BaseException] = []
    host = Host(Starlette(), on_fault=faults.append)
    connection = _Gateway(request, outcome)
    message = request.message(1, 1)
    call: Call
    if isinstance(message, HTTPReqCallReq):
        call = _WatchedRequest(message, chain, connection, host, outcome)
    else:
        call = _WatchedResponse(message, chain, connection, host, outcome)
    started = time.perf_counter()
    task = call.task = asyncio.create_task(call.run())
    try:
        while not (task.done() or connection.answered.done()):
            await asyncio.wait([task, connection.answered], timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if call.deadline <= monotonic():
                call.expire()
        outcome.milliseconds = (time.perf_counter() - started) * 1000
        if isinstance(call, RequestCall) and call.waits:
            outcome.parked = True
            call.abandon()  # no response call comes
        await asyncio.wait([task], timeout=BACKGROUND_SECONDS)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    if outcome.answer is None:
        outcome.error = _reason(faults[0]) if faults else "there is no answer"


def _reason(exc: BaseException) -> str:
    return text_of(exc) if isinstance(exc, PluginError) else reason_of(exc)


class _Gateway:
    """The gateway's end of the call's connection (:class:`..adapter.Connection`)."""

    def __init__(self, request: Request, outcome: Outcome) -> None:
        self._request = request
        self._outcome = outcome
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ask(self, infos: Sequence[Info]) -> "asyncio.Future[list[bytes | None]]":
        future: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        if self.answered.done():
            future.set_exception(PluginError("the call has been answered: the gateway cannot be asked any more"))
        else:
            self._outcome.asked += infos
            future.set_result([self._request.answer(info) for info in infos])
        return future

    def answer(self, message: Answer, outcome: str) -> None:
        if not isinstance(message, ErrResp):
            self._outcome.answer = message
        if not self.answered.done():
            self.answered.set_result(None)


class _WatchedRequest(RequestCall):
    """A request call that notes what its innermost plugin passes on."""

    def __init__(
        self, message: HTTPReqCallReq, chain: Chain, connection: _Gateway, host: Host, outcome: Outcome
    ) -> None:
        super().__init__(message, chain, connection, host)
        self._outcome = outcome

    def innermost(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        """Note the request, and do what a call does with it."""
        outcome = self._outcome
        outcome.passed_on = copied(scope)

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                outcome.passed_body = (outcome.passed_body or b"") + bytes(message.get("body", b""))
            return message

        return super().innermost(scope, receiving, send)


class _WatchedResponse(ResponseCall):
    """A response call that notes what its innermost plugin passes on."""

    def __init__(
        self, message: HTTPRespCallReq, chain: Chain, connection: _Gateway, host: Host, outcome: Outcome
    ) -> None:
        super().__init__(message, chain, connection, host)
        self._outcome = outcome

    async def innermost(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the request, and do what a call does with it."""
        self._outcome.passed_on = copied(scope)
        await super().innermost(scope, receive, send)
