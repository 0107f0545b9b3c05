"""Compare whole connections in the compiled core and in pure Python: what they write, and how they stand after it."""

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from uvicorn.server import ServerState

from asgi_bridge.plugins import Chain
from asgi_bridge.server.runner import Runner, RunnerOptions
from asgi_bridge.server.state import RunnerState
from asgi_bridge.server.worker import Link
from asgi_bridge.server.worker_protocol import WorkerProtocol
from asgi_bridge.wire import ErrResp, ExtraInfoResp, HTTPReqCallReq, HTTPRespCallReq, encode

from .doings import Chance, Seen
from .trying import compare_stories

__all__ = ["Transport", "compare_connection"]


class PureProtocol(WorkerProtocol):
    """A connection that the compiled core leaves to pure Python, since it does some steps in a way of its own."""

    __slots__ = ()

    def _start_call(self, message: HTTPReqCallReq | HTTPRespCallReq) -> None:
        super()._start_call(message)

    def _take_info(self, result: bytes | None) -> None:
        super()._take_info(result)

    def _send_answer(self, answer: Any) -> None:
        super()._send_answer(answer)

    def _fail_asks(self, reason: str) -> None:
        super()._fail_asks(reason)


class PureLink(Link):
    """The same for what it tells the supervisor."""

    __slots__ = ()


class Transport:
    """A transport that notes what is written, and can be closed."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._closing = False

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes) -> None:
        self._seen.append(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self._seen.append("pauses")

    def resume_reading(self) -> None:
        self._seen.append("resumes")

    def close(self) -> None:
        self._seen.append("closes")
        self._closing = True


def _frame(chance: Chance, asked: bool, request: Callable[[int], HTTPReqCallReq]) -> bytes:
    """Return what a gateway sends next, which is seldom what it may not send.

    Args:
        chance: Decides.
        asked: Whether it has to answer an ask.
        request: Makes a request call out of a seed.
    """
    answer = ExtraInfoResp(chance.choice((b"127.0.0.1", None, b"")))
    kinds = (lambda: request(chance.getrandbits(32)), lambda: answer, ErrResp, lambda: HTTPRespCallReq(conf_token=1))
    (make,) = chance.choices(kinds, (0.2, 10, 1, 0.1) if asked else (10, 0.2, 0.1, 0.2))
    try:
        return encode(make())
    except Exception:  # a header without a name, which no frame holds
        return encode(answer)


def _observer(seen: Seen) -> Any:
    """Return what counts the calls of a runner."""
    return SimpleNamespace(
        answered=lambda call, outcome: seen.append(("counted", outcome, call.started is not None)),
        refused=lambda phase, chain, outcome: seen.append(("counted", phase, outcome)),
        asked=lambda: seen.append("counted: asked"),
        broken=lambda: seen.append("counted: broken"),
        prepared=lambda done: seen.append(("counted: prepared", done)),
    )


async def _story(
    seed: int, chain: Callable[[Seen, Chance], Chain], request: Callable[[int], HTTPReqCallReq], *, pure: bool
) -> Seen:
    chance = Chance(seed)
    seen: Seen = []
    loop = asyncio.get_running_loop()
    runner = Runner({}, RunnerOptions(limit_concurrency=chance.choice((None, None, None, 1))))
    found = chain(seen, chance)
    runner.store = SimpleNamespace(find=lambda token: found)  # type: ignore[assignment]
    if chance.random() < 0.3:
        runner.watched = True
        runner.observer = _observer(seen)
    link: Any = (PureLink if pure else Link).__new__(PureLink if pure else Link)
    config = SimpleNamespace(loaded_app=runner)
    server: Any = SimpleNamespace(
        config=config, server_state=(ServerState if pure else RunnerState)(), whereabouts=None
    )
    made: Any = (PureProtocol if pure else WorkerProtocol)(link, 1, server, b"")
    link._answered, link._loop, link._connections, link.flags = [], loop, {1: made}, bytearray(2)
    made._transport = Transport(seen)
    made._worker = SimpleNamespace(retiring=False, ended=lambda slot, returned: seen.append(returned))
    if chance.random() < 0.2:
        made._link = None
    await asyncio.sleep(0)

    def note() -> None:
        session = made._session
        seen.append((made._busy, made._call is None, len(made._asks), bytes(link.flags), len(link._answered)))
        seen.append((session.state, session.asks, session.pending, len(runner.calls), found.calls, found.waits))
        seen.append((server.server_state.total_requests, len(server.server_state.tasks)))

    events = (made.pause_writing, made.resume_writing, made.give_back, lambda: setattr(made, "_closing", True))
    for _ in range(chance.randrange(1, 12)):
        if made._transport.is_closing():
            break
        data: Any = _frame(chance, bool(made._session.asks), request)
        if chance.random() < 0.1:
            data += _frame(chance, True, request)
        cut = chance.choice((len(data), len(data), len(data), chance.randrange(len(data))))
        for part in (data[:cut], data[cut:]):
            if part and not made._transport.is_closing():
                made.data_received(memoryview(part) if chance.random() < 0.1 else part)
                note()
        if chance.random() < 0.05:
            chance.choice(events)()
        for _ in range(chance.choice((1, 1, 2, 6))):
            await asyncio.sleep(0)
        note()
    made.connection_lost(None)
    for _ in range(20):
        await asyncio.sleep(0)
    note()
    for task in list(server.server_state.tasks):
        task.cancel()
    made._tasks.close()
    for _ in range(5):
        await asyncio.sleep(0)
    return seen


async def compare_connection(
    seed: int, chain: Callable[[Seen, Chance, bool], Chain], request: Callable[[int], HTTPReqCallReq]
) -> bool:
    """Compare a connection. Returns whether something was written.

    Args:
        seed: Of all that happens.
        chain: Makes the plugins. The last argument is whether for pure Python.
        request: Makes a request call out of a seed.

    Raises:
        Difference: The two do not agree.
    """
    stories = []
    logging.disable(logging.CRITICAL)
    try:
        for pure in (True, False):
            stories.append(
                await _story(seed, lambda seen, chance: chain(seen, chance, pure), request, pure=pure)  # noqa: B023
            )
    finally:
        logging.disable(logging.NOTSET)
    compare_stories(f"compare_connection({seed})", *stories)
    return any(isinstance(each, bytes) for each in stories[0])
