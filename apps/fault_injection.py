"""``fault-injection``: answers some of the requests with a fault (the Go runner's example, with its configuration)."""

import random
from collections.abc import Callable

from pydantic import Field
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import upstream

from ._shared.conf import Conf, Status, Text

__all__ = ["FaultInjectionConf", "fault_injection"]


class FaultInjectionConf(Conf):
    """What ``fault-injection`` takes."""

    http_status: Status = Field(description="Status of the fault.")
    body: Text = Field(default="", description="Body of the fault.")
    percentage: int = Field(default=100, ge=0, le=100, description="How many requests of a hundred get the fault.")


def fault_injection(conf: FaultInjectionConf, roll: Callable[[], float] = random.random) -> ASGIApp:
    """Lets a request pass, or answers it with the fault.

    Args:
        conf: the route's configuration.
        roll: a number from 0 up to, but not including, 1 for each request.
    """
    fault = PlainTextResponse(conf.body, status_code=conf.http_status)

    async def inject(scope: Scope, receive: Receive, send: Send) -> None:
        app = fault if roll() * 100 < conf.percentage else upstream
        await app(scope, receive, send)

    return inject
