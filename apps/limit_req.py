"""``limit-req``: limits the requests per second of a route. A few more wait for their turn; the rest gets 503.

The plugin is a leaky bucket, as nginx's ``limit_req`` and APISIX's own plugin of this name are. ``rate`` and ``burst``
are named as in the Go runner's example. That example delays any number of requests. This plugin refuses those beyond
the burst, so that a flood cannot pile up calls.

Each route has one bucket, for all clients, for all lists of the route that name the plugin, and for all workers.
With ``redis`` the bucket is in Redis, and all gateways that name the same Redis share it. The operator says which Redis
a route may name (``allow``). A Redis behind a unix socket, or a URL with options, can only be given as the mount's
``defaults``. When Redis does not answer, the mount's ``on_error`` decides whether the request is refused or skips this
plugin.

The package ``limits`` does not fit: it counts hits in windows and answers yes or no, while a leaky bucket has to say
how long a request must wait.
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
from asgi_bridge.plugins.shared_numbers import Numbers, shared_numbers

from ._shared.conf import Conf
from ._shared.shared_bucket import SharedBuckets

__all__ = ["LeakyBucket", "LimitReqConf", "limit_req"]

LONGEST_DELAY = 25.0
"""Maximum wait of a request, in seconds; a longer wait is refused at once. A call has 30 seconds by default, and APISIX
gives up after 60."""


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
        "out: each runner has its own.",
    )
    redis_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Name of the bucket in Redis: routes of the same name share it. Left out: the route's id.",
    )

    @property
    def holds(self) -> float:
        """Number of requests that may wait: the burst, or fewer if the last one would wait for too long."""
        return min(self.burst, self.rate * LONGEST_DELAY)


class LeakyBucket:
    """A bucket that leaks at a fixed rate.

    Args:
        rate: Requests per second that leak.
        holds: Number of requests that may wait, besides the one that passes at once.
        clock: Returns monotonic seconds, the same in all processes.
        numbers: The level of the bucket, and when it was true; None: of this bucket alone.
    """

    def __init__(self, rate: float, holds: float, clock: Callable[[], float], numbers: Numbers | None = None) -> None:
        self._rate = rate
        self._holds = holds
        self._clock = clock
        self._numbers = numbers or Numbers()

    def pour(self) -> float | None:
        """Add one request to the bucket.

        Returns:
            Seconds that the request has to wait; None if the bucket is full, and then the request is not added.
        """
        with self._numbers as pair:
            level, looked = pair
            now = self._clock()
            # The level counts requests, not seconds, so that a burst at one moment is counted without rounding.
            above = max(level - (now - looked) * self._rate, 0.0)
            if above > self._holds:
                return None
            pair[:] = above + 1.0, now
        return above / self._rate


def limit_req(
    conf: LimitReqConf,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    shared_clock: Callable[[], float] | None = None,
) -> ASGIApp:
    """Delay or refuse requests above the rate.

    Args:
        conf: The route's configuration.
        clock: Returns monotonic seconds.
        sleep: Waits for a number of seconds.
        shared_clock: Returns seconds, for a bucket in Redis; None uses the clock of Redis.

    Raises:
        ConfigurationError: redis-py refuses the URL, or is not installed.
    """
    bucket = LeakyBucket(conf.rate, conf.holds, clock, shared_numbers())
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
    """Return the name of the bucket in Redis."""
    name = conf.redis_key or apisix(scope).route_id
    if name is None:
        raise PluginError("the gateway does not say which route this is: set redis_key")
    return name
