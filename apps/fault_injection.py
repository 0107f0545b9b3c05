"""``fault-injection``: answers some requests with a fault. Configured as the example of the Go runner."""

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

    http_status: Status = Field(description="Status of the fault.", examples=[503])
    body: Text = Field(default="", description="Body of the fault.")
    percentage: int = Field(
        default=100, ge=0, le=100, description="How many requests of a hundred get the fault.", examples=[100]
    )


def fault_injection(conf: FaultInjectionConf, roll: Callable[[], float] = random.random) -> ASGIApp:
    """Let a request pass, or answer it with the fault.

    Args:
        conf: The route's configuration.
        roll: Returns a number for each request, from 0 up to, but not including, 1.
    """
    fault = PlainTextResponse(conf.body, status_code=conf.http_status)

    async def inject(scope: Scope, receive: Receive, send: Send) -> None:
        app = fault if roll() * 100 < conf.percentage else upstream
        await app(scope, receive, send)

    return inject
