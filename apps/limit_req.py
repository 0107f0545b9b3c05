"""``limit-req``: so many requests a second on one route; a few more wait their turn, the rest is refused with 503.

A leaky bucket as nginx's ``limit_req`` and APISIX's own plugin of this name have it, with the names of the Go runner's
example, ``rate`` and ``burst``. (That example delays without end where this one refuses beyond the burst, so that a
flood cannot pile up calls.) Each route has its bucket, in each worker process: two numbers, whoever calls.

The ``limits`` package does not fit here: its strategies count hits in windows and can only say yes or no, while a
leaky bucket has to tell how long a request must wait.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import Field
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import upstream

from .conf import Conf

__all__ = ["LeakyBucket", "LimitReqConf", "limit_req"]

LONGEST_DELAY = 25.0
"""Seconds. A call has 30 by default, and APISIX gives up after 60: who had to wait longer is refused at once."""


class LimitReqConf(Conf):
    """What ``limit-req`` takes."""

    rate: float = Field(
        gt=0, allow_inf_nan=False, description="Requests a second that pass, evenly spaced; may be a fraction."
    )
    burst: int = Field(
        0,
        ge=0,
        description="Requests above the rate that wait for their turn, for 25 seconds at most; further ones get 503.",
    )


class LeakyBucket:
    """A bucket that leaks `rate` requests a second and holds `burst` of them besides the one that just passes.

    Args:
        rate: requests a second.
        burst: requests that may wait.
        clock: monotonic seconds.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._holds = min(burst, rate * LONGEST_DELAY)
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
) -> ASGIApp:
    """Delays or refuses what is above the rate.

    Args:
        conf: the route's configuration.
        clock: monotonic seconds.
        sleep: waits so many seconds.
    """
    bucket = LeakyBucket(conf.rate, conf.burst, clock)
    refusal = PlainTextResponse("Too many requests\n", status_code=503)

    async def limit(scope: Scope, receive: Receive, send: Send) -> None:
        delay = bucket.pour()
        if delay is None:
            await refusal(scope, receive, send)
            return
        if delay:
            await sleep(delay)
        await upstream(scope, receive, send)

    return limit
