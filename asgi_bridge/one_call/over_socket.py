"""A call to a runner that runs already, as APISIX makes it."""

import asyncio
import time

from ..gateway.nginx.headers import LuaError
from ..gateway.pool import Pool
from ..gateway.runner.client import RunnerClient
from ..gateway.runner.connection import Limits, RunnerError
from ..wire import ExtraInfoReq
from .outcome import Outcome
from .request import Request

__all__ = ["call_over_socket"]

_KEY = "route#asgi-bridge-call#ext-plugin-{}#1"


def call_over_socket(request: Request, path: str, seconds: float) -> Outcome:
    """Call plugins of a running runner.

    Args:
        request: The request, which names the plugins.
        path: Path of the runner's socket.
        seconds: Time that the runner has for each answer.

    Returns:
        The outcome, with an error where the runner cannot be reached or refuses the plugins or the call.
    """
    return asyncio.run(_run(request, path, seconds))


async def _run(request: Request, path: str, seconds: float) -> Outcome:
    outcome = Outcome()

    async def answer(asked: ExtraInfoReq) -> bytes | None:
        outcome.asked.append(asked.info)
        return request.answer(asked.info)

    client = RunnerClient(path, Limits(exchange=seconds), Pool())
    key = _KEY.format("pre-req" if request.phase == "request" else "post-resp")
    try:
        async with client.call(key, request.conf) as (connection, number, token):
            started = time.perf_counter()
            outcome.answer = await connection.ask(request.message(number, token), answer)
            outcome.milliseconds = (time.perf_counter() - started) * 1000
    except (RunnerError, LuaError) as exc:
        outcome.error = f"{exc}; the runner's log says why" if "connect" not in str(exc) else str(exc)
    return outcome
