"""Compare whole calls in the compiled core and in pure Python: what the plugins see, the answer, and the log.

A call goes through up to four plugins, each of which does something at random. Then the same happens with classes that
the compiled core leaves to its pure twins, because they are not the usual ones.

As a program it tries random calls for some seconds, prints how many there were, and ends with exit code 1 at the first
difference: ``python -m tests.core.calls SECONDS [SEED]``.
"""

import asyncio
import gc
import logging
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge.adapter import Answer, Call, Host, RequestCall, new_request_call, twins
from asgi_bridge.errors import PluginError
from asgi_bridge.plugins import Chain, Layer, apisix
from asgi_bridge.plugins.extension import current
from asgi_bridge.plugins.options import Options
from asgi_bridge.server.call_tasks import CallTasks
from asgi_bridge.wire import ExtraInfoResp, HTTPReqCallReq, Info, ReqBody, Role, Session, Var, decode, encode
from asgi_bridge.wire.dialogue import DIALOGUES
from asgi_bridge.wire.frames import HEADER_SIZE

from ..wire.damage import RECORDED
from . import connections
from .doings import DOINGS, USUAL, Chance, Doing, Seen
from .odd import try_all
from .trying import Difference, compare_stories, run_program, try_out

__all__ = ["Difference", "compare_call", "compare_connection", "compare_reads", "main"]


answers: Any = import_module("asgi_bridge.server._answers").answers


class PureCall(RequestCall):
    """A call that the compiled core leaves to pure Python, since it is not of the usual class."""

    __slots__ = ()
    send = twins.send_in_python
    var = twins.var_in_python


class PureLayer(Layer):
    """The same for a layer."""

    __slots__ = ()


for pure_class, usual_class in ((PureCall, RequestCall), (PureLayer, Layer)):
    for each_name in ("__name__", "__qualname__", "__module__"):  # messages of errors name them
        setattr(pure_class, each_name, getattr(usual_class, each_name))


def plugin(number: int, seed: int, seen: Seen, doings: Sequence[Doing] = DOINGS) -> ASGIApp:
    """Return a plugin that does one of `doings`, as `seed` says, and notes what it sees."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        chance = Chance(seed)
        seen.append((number, {**scope, "app": None, "extensions": sorted(scope.get("extensions") or ())}))
        seen.append((number, {**apisix(scope), "var": None}, current.get(None) is apisix(scope)))
        scope["state"][f"plugin {number}"] = True
        try:
            await chance.choice(doings)(scope, receive, send, seen, chance)
        except BaseException as exc:
            seen.append((number, type(exc), str(exc)))
            raise
        finally:
            mine = current.get(None)
            seen.append((number, None if mine is None else mine["plugin"]))

    return app


class Gateway:
    """The connection of a call. It answers asks in the next turn of the loop."""

    def __init__(self, seen: Seen, pure: bool = False) -> None:
        self._seen = seen
        self._pure = pure

    def ask(self, infos: Sequence[Info]) -> "asyncio.Future[list[bytes | None]]":
        self._seen.append(("asks", tuple(infos)))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[bytes | None]] = loop.create_future() if self._pure else answers(loop)

        def answer() -> None:
            if future.done():
                return
            if Var(b"broken") in infos:
                future.set_exception(PluginError("the gateway does not answer"))
            else:
                known = {b"remote_addr": b"127.0.0.1", b"request_id": b"abc"}
                bodies = [b"body" if type(info) is ReqBody else known.get(getattr(info, "name", b"")) for info in infos]
                future.set_result(bodies)

        loop.call_soon(answer)
        return future

    def answer(self, message: Answer, outcome: str) -> None:
        self._seen.append(("answers", message, outcome))


class Owner:
    """Knows when a call has ended."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self.task: asyncio.Task[None] | None = None

    def is_done(self) -> bool:
        """Whether the call had a task, which has ended."""
        return self.task is not None and self.task.done()

    def cancel(self) -> None:
        """Cancel the call's task, if it has one."""
        if self.task is not None:
            self.task.cancel()

    def note_task(self, call: Call, task: "asyncio.Task[None]") -> None:
        call.task = self.task = task

    def ended(self, call: Call) -> None:
        self._seen.append("ended")


class Log(logging.Handler):
    """Notes what the calls log."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    def emit(self, record: logging.LogRecord) -> None:
        self._seen.append((record.levelname, record.getMessage(), record.exc_info and record.exc_info[0]))


def _options(seed: int) -> Options:
    """Return options of a plugin: the defaults, but for one or two of them in a few mounts."""
    return Options(
        root_path="/root" if seed % 23 == 0 else "",
        request_body=seed % 7 > 0,
        cures=seed % 11 > 0,
        on_error="open" if seed % 13 == 0 else "closed",
        exact=seed % 29 == 0,
        phase="both" if seed % 31 == 0 else "response" if seed % 61 == 0 else "auto",
        timeout=1e9 + seed % 3,
    )


def _chain(kind: type[Layer], seeds: Sequence[int], seen: Seen, doings: Sequence[Doing] = DOINGS) -> Chain:
    inner = None
    layers: list[Layer] = []
    for number, seed in reversed(list(enumerate(seeds))):
        layer = kind(f"plugin {number}", _options(seed), {"number": number}, inner, "1")
        layer.app = plugin(number, seed, seen, doings)
        # those of two lifespans: some with a key that another one gives too
        layer.state = {} if seed % 3 else {f"key {seed % 4}": number}
        inner = layer
        layers.insert(0, layer)
    return Chain(layers, "1")


REQUESTS = [
    message
    for message in (decode(2, payload, Role.RUNNER) for kind, payload, role in RECORDED if kind == 2 and not role)
    if type(message) is HTTPReqCallReq
]


def _request(seed: int) -> HTTPReqCallReq:
    """Return a request call: one that was recorded, with something changed."""
    chance = Chance(seed)
    found = chance.choice(REQUESTS)
    headers: Any = list(found.headers or [])
    if chance.random() < 0.8:
        port = chance.choice((b"80", b"80", b"81", b"x"))
        headers += [(b"x-forwarded-proto", b"http"), (b"x-forwarded-host", b"a.test"), (b"x-forwarded-port", port)]
    headers += chance.choice(
        ([], [(b"transfer-encoding", b"chunked")], [(None, b"a")], [(b"a", None)], [(b"a", b"b")] * 99)
    )
    path = chance.choice((found.path, None, b"/", b"/a b", b"/\xff", b"/%"))
    address = chance.choice((b"\x7f\0\0\x01", b"\0" * 15 + b"\x01", None, b"abc"))
    method = chance.choice((found.method, found.method, "HEAD"))
    odd = [(b"a b", b"\xff=&"), (b"", b"")]
    args: Any = chance.choice((found.args, found.args, odd, [*odd, (b"c", None)], [(b"%", b"\xff" * 200)] * 3))
    message = HTTPReqCallReq(seed % 2**32, address, method, path, args, headers, 1)
    if chance.random() < 0.5:
        return message
    # the compiled core reads the arguments of such a message when somebody asks for them
    decoded = decode(2, encode(message)[HEADER_SIZE:], Role.RUNNER)
    assert isinstance(decoded, HTTPReqCallReq)
    return decoded


async def _story(seed: int, *, pure: bool) -> Seen:
    """Return what happens in a call."""
    chance = Chance(seed)
    seen: Seen = []
    chain = _chain(PureLayer if pure else Layer, [chance.getrandbits(32) for _ in range(chance.randrange(5))], seen)
    log = Log(seen)
    loggers = [logging.getLogger(name) for name in ("asgi_bridge.adapter", "asgi_bridge.plugins")]
    for logger in loggers:
        logger.addHandler(log)
        logger.propagate = False
    host = Host(HOST, on_fault=lambda exc: seen.append(("fault", type(exc), str(exc))))
    call = (PureCall if pure else new_request_call)(_request(seed), chain, Gateway(seen, pure), host)
    loop = asyncio.get_running_loop()
    others = asyncio.all_tasks()
    owner, tasks = Owner(seen), CallTasks(loop)
    await asyncio.sleep(0)
    loop.set_exception_handler(lambda _, about: _note_raised(seen, about))
    event, turn = chance.choice((call.disconnect, call.expire, owner.cancel)), chance.choice((2, 3, 5, TURNS, TURNS))
    try:
        tasks.start(call, owner)
        for count in range(2 * TURNS):
            await asyncio.sleep(0)
            if owner.is_done():
                break
            if count == turn:
                _do(seen, event)
        else:
            # what waits for the end of the connection goes on, and what waits for nothing is ended
            _do(seen, call.disconnect if getattr(call, "parking", None) is None else call.abandon)
            for _ in range(TURNS):
                owner.cancel()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        tasks.close()
        await asyncio.sleep(0)
        # what the plugins have begun, and not ended
        for _ in range(TURNS):
            for task in asyncio.all_tasks() - others:
                task.cancel()
            await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(None)
        for logger in loggers:
            logger.removeHandler(log)
            logger.propagate = True
    names = ("stage", "overdue", "_messages", "extension", "state", "apart", "task", "failed")
    left = [getattr(call, name, None) for name in names]  # a plugin may have deleted it
    if isinstance(left[-1], tuple) and isinstance(left[-1][0], GeneratorExit):
        left[-1] = (
            None  # a coroutine that nobody has ended notes its end after the call; what C has in its place does not
        )
    seen += left
    seen += (chain.calls, chain.waits, current.get(None))
    if owner.task is not None and owner.task.done() and not owner.task.cancelled():
        seen.append(owner.task.exception())
    _do(seen, lambda: seen.append({name: value for name, value in call.scope.items() if name != "app"}))
    return seen


def _do(seen: Seen, function: Callable[[], object]) -> None:
    """Call a function, which fails if a plugin has broken something that it needs."""
    try:
        function()
    except Exception as exc:
        seen.append((type(exc), str(exc)))


def _note_raised(seen: Seen, about: dict[str, Any]) -> None:
    if about["message"] == "a call has raised":
        seen.append(("a call has raised", repr(about["exception"])))


HOST = Starlette()
TURNS = 40
"""Turns of the event loop after which a call that has not ended is waiting for the end of its connection."""


async def compare_call(seed: int) -> bool:
    """Compare a call. Returns whether it was answered by a plugin.

    Raises:
        Difference: The two do not agree.
    """
    gc.disable()  # a call that never ends would be told of its end at any time
    try:
        pure, compiled = [[*await _story(seed, pure=pure)] for pure in (True, False)]
    finally:
        gc.enable()
    if any(isinstance(each, tuple) and each[:1] == ("spoils",) for each in pure):
        return False  # a plugin has broken the message, of which the compiled core makes the scope later
    compare_stories(f"compare_call({seed})", map(_shown, pure), map(_shown, compiled))
    return any(isinstance(each, tuple) and each[0] == "answers" for each in pure)


def _shown(seen: object) -> str:
    text = re.sub(" at 0x[0-9a-f]+", "", repr(seen))
    # a call whose chain a plugin has replaced cannot end, and leaves these two, which tell the cores apart
    text = text.replace("<bound method Call.var of", "<bound method var of")
    text = re.sub("(<Task finished name)='[^']*'", r"\1", text)
    return text.replace(str(type(answers(None))), str(asyncio.Future))  # what a step yields that waits for the gateway


async def compare_connection(seed: int) -> bool:
    """Compare a connection, whose calls do nothing that is not usual. Returns whether something was written."""

    def chain(seen: Seen, chance: Chance, pure: bool) -> Chain:
        seeds = [chance.getrandbits(32) for _ in range(chance.randrange(1, 4))]
        return _chain(PureLayer if pure else Layer, seeds, [], USUAL)

    return await connections.compare_connection(seed, chain, _request)


def compare_reads(seed: int) -> bool:
    """Compare what connections read and answer, in any order. Returns whether there was a message.

    Raises:
        Difference: The two do not agree.
    """
    compiled, pure = [_reads(seed, each.receive, each.send) for each in DIALOGUES]
    compare_stories(f"compare_reads({seed})", pure, compiled)
    return len(pure) > 1


def _reads(seed: int, receive: Callable[..., Any], send: Callable[..., Any]) -> list[object]:
    chance = Chance(seed)
    session = Session(chance.choice((Role.RUNNER, Role.RUNNER, Role.RUNNER, Role.GATEWAY)))
    found: list[object] = []

    def do(function: Callable[..., Any], *args: Any) -> None:
        try:
            found.append(function(*args))
        except Exception as exc:
            found.append((type(exc), str(exc)))
        found.append((session.state, session.asks, session.pending, session.buffered, session.unread()))

    for _ in range(chance.randrange(1, 12)):
        kind, payload, _ = chance.choice(RECORDED)
        if chance.random() < 0.2:
            payload = payload[: chance.randrange(len(payload) + 1)]
        if chance.random() < 0.3:
            kind, payload = 3, ANSWER
        data: Any = bytes((kind,)) + len(payload).to_bytes(3, "big") + payload
        cut = chance.choice((len(data), len(data), len(data), chance.randrange(len(data) + 1)))
        for part in (data[:cut], data[cut:]) if cut < len(data) else (data + data * (chance.random() < 0.1),):
            do(receive, session, chance.choice((bytes, bytes, bytearray, memoryview))(part))
        while session.buffered and chance.random() < 0.9:
            do(session.next_message)
            if found[-2] is None or isinstance(found[-2], tuple):
                break
        if chance.random() < 0.4:
            do(session.ask, [Var(b"a")] * chance.randrange(1, 3))
        if chance.random() < 0.6:
            do(send, session, chance.choice(ANSWERS))
        if chance.random() < 0.02:
            do(session.receive_eof)
    return found


ANSWER = b"\x0c\0\0\0\0\0\x06\0\x08\0\x04\0\x06\0\0\0\x04\0\0\0\0\0\0\0"
ANSWERS = [
    message
    for message in (decode(kind, payload, Role.GATEWAY) for kind, payload, role in RECORDED if role)
    if not isinstance(message, ExtraInfoResp)
]


def main(seconds: float, seed: int | None = None) -> None:
    """Compare random calls and random reads, behind the odd things of ``odd.py``."""
    try_all(0 if seed is None else seed)
    with asyncio.Runner() as runner:

        def compare(chance: Chance) -> bool:
            number = chance.getrandbits(32)
            answered = runner.run(compare_call(number))
            runner.run(compare_connection(number))
            return compare_reads(number) and answered

        try_out("calls", "answered", 20, compare, seconds, seed)


if __name__ == "__main__":
    run_program(main)
