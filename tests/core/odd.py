"""Give the compiled functions whatever Python code can give them. They may raise any exception, and nothing worse.

In C a slot that is empty, or an object of another class, would be read as if it were the usual one. Only a crash or a
sanitizer shows that, so `try_all` compares little: it does many odd things, and comes back.
"""

import asyncio
import contextlib
import gc
import inspect
import itertools
import logging
import random
import warnings
from collections.abc import Callable, Coroutine
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from asgi_bridge.adapter import Host, RequestCall
from asgi_bridge.adapter import _request_call as calls  # type: ignore[attr-defined]
from asgi_bridge.adapter.sent import Sent
from asgi_bridge.compiled import MODULES
from asgi_bridge.plugins import Chain, Layer
from asgi_bridge.plugins.extension import Apisix
from asgi_bridge.plugins.options import Options
from asgi_bridge.plugins.state import States
from asgi_bridge.plugins.store import ConfigurationStore
from asgi_bridge.server.call_tasks import EAGER, CallTasks, Spare
from asgi_bridge.server.protocol import RunnerProtocol
from asgi_bridge.server.runner import Runner, RunnerOptions
from asgi_bridge.server.state import RunnerState
from asgi_bridge.server.worker import Link
from asgi_bridge.server.worker_protocol import WorkerProtocol
from asgi_bridge.wire import HTTPReqCallReq, HTTPReqCallResp, Session, Stop, Var, encode
from asgi_bridge.wire.frames import FrameReader
from asgi_bridge.wire.session import State

from .connections import Transport

__all__ = ["Key", "connected", "take_from_a_dict_that_changes", "try_all"]

CLASSES: tuple[type[Any], ...] = (
    RequestCall, Chain, Layer, Apisix, Options, States, Host, Sent, Session, FrameReader, CallTasks, RunnerProtocol,
    Runner, RunnerOptions, RunnerState, Link, WorkerProtocol, Spare, ConfigurationStore, HTTPReqCallReq,
    HTTPReqCallResp, Var, Stop,
)  # fmt: skip

FORWARDED = [(b"x-forwarded-proto", b"http"), (b"x-forwarded-host", b"a.test")]
HOST = Host(Starlette())


def _impostor(cls: type[Any]) -> object:
    """Return an object that says it is of a class, and is not."""
    return type("Impostor", (), {"__class__": property(lambda _: cls)})()


def _empty(cls: type[Any]) -> object:
    """Return an instance with empty slots."""
    return object.__new__(cls) if cls is not Apisix else Apisix()


def _odd_objects() -> list[Any]:
    plain: list[Any] = [None, 5, -1, 10**30, True, "", "request", b"", (), (1,), [], [()], [5], {}, {"type": 5}, 1.5]
    return [*plain, object(), *map(_empty, CLASSES), *map(_impostor, CLASSES)]


def _do(function: Callable[..., Any], *args: Any) -> None:
    with contextlib.suppress(Exception):
        result = function(*args)
        if isinstance(result, Coroutine):
            if not inspect.iscoroutine(result):  # what C has in place of one
                result.send(None)
            result.close()


def call_with_anything(chance: random.Random, rounds: int) -> None:
    """Call each compiled function with odd arguments."""
    for name in MODULES:
        module = import_module(f"asgi_bridge.{name}")
        for each in sorted(set(module.__all__) - {"SOURCES"}):
            function = getattr(module, each)
            odd = _odd_objects()
            for first in odd:  # most functions are methods
                _do(function, first, *(chance.choice(odd) for _ in range(function.__code__.co_argcount - 1)))
            for _ in range(rounds):
                _do(function, *(chance.choice(odd) for _ in range(function.__code__.co_argcount)))


def connected(loop: asyncio.AbstractEventLoop) -> Any:
    """Return a connection whose runner has one configuration, with the token 0."""
    runner = Runner({}, RunnerOptions())
    config = type("Config", (), {"loaded_app": runner})
    made: Any = RunnerProtocol(config(), RunnerState(), None, loop)
    chain = Chain([Layer("a", Options(), {})], None)
    runner.store = SimpleNamespace(find=lambda token: chain)  # type: ignore[assignment]
    made._transport = Transport([])
    return made


async def break_connections() -> None:
    """Let a connection read, ask and answer while something of it is odd or gone."""
    request = encode(HTTPReqCallReq(headers=[]))
    info = b"\3\0\0\x18\x0c\0\0\0\0\0\x06\0\x08\0\x04\0\x06\0\0\0\x04\0\0\0\0\0\0\0"
    odd: list[Any] = [_odd_objects, None, 5, 10**30, (), [], {}, *map(_empty, CLASSES)]
    parts: tuple[Callable[[Any], Any], ...] = (
        lambda made: made, lambda made: made._runner, lambda made: made._session, lambda made: made._session._reader,
        lambda made: made._tasks, lambda made: made._runner.options, lambda made: made._runner.host,
        lambda made: made._server_state,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, about: None)
    for part in parts:
        kind = type(part(connected(loop)))
        names = [name for base in kind.__mro__ for name in base.__dict__.get("__slots__", ()) if name != "__weakref__"]
        for name, value in itertools.product(names, odd):
            for asked in (False, True):
                made = connected(loop)
                tasks = made._tasks
                if asked:
                    made._session._state, made._session._asks = State.REQ_CALLED, 1
                    made._asks.append((loop.create_future(), 1, []))
                broken = part(made)
                if value is _odd_objects:
                    _do(object.__delattr__, broken, name)
                else:
                    _do(object.__setattr__, broken, name, value)
                _do(made.ask, (Var(b"a"),))
                _do(made.data_received, info if asked else request)
                _do(made.answer, HTTPReqCallResp(), "pass")
                _do(tasks.close)  # the calls themselves do not matter here
    await asyncio.sleep(0)


async def break_spares() -> None:
    """Let a call wait while something of its spare is odd or gone, and then let it go on."""
    odd: list[Any] = [_odd_objects, *_odd_objects()]
    loop = asyncio.get_running_loop()
    owner: Any = SimpleNamespace(note_task=lambda call, task: None, ended=lambda call: None)
    for name, value in itertools.product(Spare.__slots__, odd):
        tasks = CallTasks(loop)
        await asyncio.sleep(0)
        (spare,) = tasks.spares
        waited = loop.create_future()
        layer = Layer("a", Options(), {})
        layer.app = partial(_wait_for, waited)
        tasks.start(RequestCall(HTTPReqCallReq(headers=FORWARDED), Chain([layer], None), None, HOST), owner)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        if value is _odd_objects:
            _do(object.__delattr__, spare, name)
        else:
            _do(object.__setattr__, spare, name, value)
        waited.set_result(None)
        await asyncio.sleep(0)
        _do(tasks.close)
    await asyncio.sleep(0)


async def _wait_for(future: "asyncio.Future[None]", scope: Scope, receive: Receive, send: Send) -> None:
    await future


class Key:
    """A key of a dict that does something whenever it is compared with `like`."""

    def __init__(self, like: str, do: Callable[[], object]) -> None:
        self._like = like
        self._do = do

    def __hash__(self) -> int:
        return hash(self._like)

    def __eq__(self, other: object) -> bool:
        self._do()
        return False


def take_from_a_dict_that_changes() -> Sent:
    """Take a message that drops what was read of it already. Returns what was taken."""
    call = RequestCall(HTTPReqCallReq(), Chain([], None), None, Host(Starlette()))  # type: ignore[arg-type]
    for name, text in (("headers", "http.response.start"), ("more_body", "http.response.body")):
        message: dict[Any, Any] = {}
        message[Key(name, message.clear)] = 0
        message |= {"type": text, "status": int("403"), "body": bytes([97]) * 100}
        with contextlib.suppress(Exception):
            calls.send(call, message).send(None)
    assert call.sent is not None
    return call.sent


def try_all(seed: int, rounds: int = 300) -> None:
    """Do all of this once.

    Args:
        seed: Of the random arguments.
        rounds: Number of calls of each function.
    """
    with asyncio.Runner() as runner:

        async def do() -> None:
            call_with_anything(random.Random(seed), rounds)
            await break_connections()
            if not EAGER:  # then there are none
                await break_spares()
            take_from_a_dict_that_changes()

        logging.disable(logging.ERROR)
        try:
            with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of coroutines that nobody awaits
                runner.run(do())
                gc.collect()
        finally:
            logging.disable(logging.NOTSET)
