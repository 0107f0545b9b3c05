"""``limit-req``: so many requests a second on one route; a few more wait their turn, the rest is refused with 503.

A leaky bucket as nginx's ``limit_req`` and APISIX's own plugin of this name have it, with the names of the Go runner's
example, ``rate`` and ``burst``. (That example delays without end where this one refuses beyond the burst, so that a
flood cannot pile up calls.) Each route has its bucket, in each worker process: two numbers, whoever calls, whichever
list of the route names the plugin. With ``redis`` the bucket is in Redis, and all gateways that name it share it.
The operator says which Redis a route may name (``allow``). One behind a unix socket, or with options in its URL, is
given as the mount's ``defaults``. When Redis does not answer, the mount's ``on_error`` says whether the request is
refused or skips this plugin.

The ``limits`` package does not fit here: its strategies count hits in windows and can only say yes or no, while a
leaky bucket has to tell how long a request must wait.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from pydantic import Field, SecretStr
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import PluginError, apisix, upstream
from asgi_bridge.plugins import Allowed
from asgi_bridge.plugins.memory import remembered

from ._shared.conf import Conf
from ._shared.shared_bucket import SharedBuckets

__all__ = ["LeakyBucket", "LimitReqConf", "limit_req"]

LONGEST_DELAY = 25.0
"""Seconds. A call has 30 by default, and APISIX gives up after 60: who had to wait longer is refused at once."""


class LimitReqConf(Conf):
    """What ``limit-req`` takes."""

    rate: float = Field(
        gt=0, allow_inf_nan=False, description="Requests a second that pass, evenly spaced; may be a fraction."
    )
    burst: int = Field(
        default=0,
        ge=0,
        description="Requests above the rate that wait for their turn, for 25 seconds at most; further ones get 503.",
    )
    redis: Annotated[SecretStr, Field(max_length=4096), Allowed("redis", "rediss")] | None = Field(
        default=None,
        description="URL (redis:// or rediss://) of the Redis that holds the bucket; the operator allows it. Left "
        "out: each process has its own.",
    )
    redis_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Name of the bucket in Redis: routes of the same name share it. Left out: the route's id.",
    )

    @property
    def holds(self) -> float:
        """Requests that may wait: nobody waits for too long."""
        return min(self.burst, self.rate * LONGEST_DELAY)


class LeakyBucket:
    """A bucket that leaks `rate` requests a second and holds so many of them besides the one that just passes.

    Args:
        rate: requests a second.
        holds: requests that may wait.
        clock: monotonic seconds.
    """

    def __init__(self, rate: float, holds: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._holds = holds
        self._clock = clock
        self._level = 0.0
        self._looked = clock()

    def pour(self) -> float | None:
        """Takes one request in: the seconds that it has to wait; None: the bucket is full, the request stays out."""
        now = self._clock()
        # In requests, not in seconds: so a burst at one moment is counted without rounding.
        above = max(self._level - (now - self._looked) * self._rate, 0.0)
        if above > self._holds:
            return None
        self._level = above + 1.0
        self._looked = now
        return above / self._rate


def limit_req(
    conf: LimitReqConf,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    shared_clock: Callable[[], float] | None = None,
) -> ASGIApp:
    """Delays or refuses what is above the rate.

    Args:
        conf: the route's configuration.
        clock: monotonic seconds.
        sleep: waits so many seconds.
        shared_clock: seconds, for a bucket in Redis; None: the clock of Redis.

    Raises:
        ConfigurationError: ``redis`` is no URL.
    """
    bucket = remembered(lambda: LeakyBucket(conf.rate, conf.holds, clock))
    shared = None
    if conf.redis is not None:
        shared = SharedBuckets(conf.redis.get_secret_value(), conf.rate, conf.holds, shared_clock)
    refusal = PlainTextResponse("Too many requests\n", status_code=503)

    async def limit(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await upstream(scope, receive, send)
            if shared is not None:
                await shared.close()
            return
        if shared is None:
            delay = bucket.pour()
        else:
            delay = await shared.pour(_name(conf, scope))
        if delay is None:
            await refusal(scope, receive, send)
            return
        if delay:
            await sleep(delay)
        await upstream(scope, receive, send)

    return limit


def _name(conf: LimitReqConf, scope: Scope) -> str:
    name = conf.redis_key or apisix(scope).route_id
    if name is None:
        raise PluginError("the gateway does not tell which route this is: give redis_key")
    return name
