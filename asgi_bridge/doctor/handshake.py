"""Calls to a runner, as APISIX makes them: does it prepare a configuration, and does it answer?"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence

from ..gateway.nginx.headers import LuaError
from ..gateway.pool import Pool
from ..gateway.runner.client import RunnerClient
from ..gateway.runner.connection import Limits, RunnerError
from ..wire import ExtraInfoReq, HTTPReqCallReq, HTTPReqCallResp
from .findings import Finding, error, good, warning

__all__ = ["shake_hands"]

_KEY = "route#asgi-bridge-doctor#{}#1"
"""Key of the configurations. It names no list, so plugins of both phases may stand in it."""


def shake_hands(path: str, plugins: Sequence[tuple[str, str]], seconds: float) -> Iterator[Finding]:
    """Try what APISIX does: prepare a list without plugins, and make a call with it; then prepare each plugin.

    No plugin is called.

    Args:
        path: Path of the runner's socket.
        plugins: Names and configurations.
        seconds: Time that the runner has for each answer.
    """

    async def found() -> list[Finding]:
        return [finding async for finding in _try(path, plugins, seconds)]

    yield from asyncio.run(found())


async def _try(path: str, plugins: Sequence[tuple[str, str]], seconds: float) -> AsyncIterator[Finding]:
    client = RunnerClient(path, Limits(exchange=seconds), Pool())
    started = time.perf_counter()
    try:
        async with client.call(_KEY.format("nothing"), []) as (connection, number, token):
            call = HTTPReqCallReq(number, b"\x7f\0\0\1", "GET", b"/", [], [(b"host", b"localhost")], token)
            answer = await connection.ask(call, _no_info)
    except (RunnerError, LuaError) as exc:
        yield _failed(path, exc, seconds)
        return
    milliseconds = (time.perf_counter() - started) * 1000
    if answer != HTTPReqCallResp(number, None):
        yield warning(
            path,
            "a call without any plugin is answered with a change of the request",
            "is this the runner that you mean? One of asgi_bridge changes nothing there",
        )
    else:
        yield good(path, f"a handshake works: a list is prepared, and a call is answered ({milliseconds:.0f} ms)")
    for name, conf in plugins:
        try:
            async with client.call(_KEY.format(f"{name} {conf}"), [(name.encode(), conf.encode())]):
                yield good(path, f"plugin {name} is there, and takes the configuration {conf}")
        except (RunnerError, LuaError):
            yield error(
                path,
                f"the runner does not prepare plugin {name} with the configuration {conf}",
                "the runner's log says why: it is not mounted there, or it refuses the configuration; "
                "--conf gives another one",
            )


async def _no_info(asked: ExtraInfoReq) -> bytes | None:
    """Answer what the runner asks in the middle of the call: there is no such variable or body."""
    return None


def _failed(path: str, exc: Exception, seconds: float) -> Finding:
    text = f"a handshake fails: {exc}"
    if "timeout" in str(exc):
        return error(
            path,
            f"{text} ({seconds:g} s)",
            "the runner is still loading its plugins, or a plugin blocks its event loop: its log says which",
        )
    if isinstance(exc, LuaError) or "unexpected type" in str(exc):
        return error(path, text, "what listens there is no plugin runner: give another path")
    return error(path, text, "the runner's log says why")
