"""``server-timing``: tells the client, in a header, how long the upstream took and which node it was."""

import time

from pydantic import Field
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import apisix

from ._shared.conf import Conf, HeaderName

__all__ = ["ServerTimingConf", "server_timing"]


class ServerTimingConf(Conf):
    """What ``server-timing`` takes."""

    metric: HeaderName = Field(default="upstream", description="The metric's name.")
    node: bool = Field(
        default=False,
        description="Describe the metric by the address of the upstream's node. Clients see it; one round trip.",
    )


def server_timing(app: ASGIApp, conf: ServerTimingConf) -> ASGIApp:
    """Measure the time from passing the request on until the response starts: the inner plugins and the upstream.

    If only the response phase runs, because the request half is gone, there is nothing to measure and no header.

    Args:
        app: The next layer.
        conf: The route's configuration.
    """

    async def measure(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or apisix(scope).phase == "response":
            await app(scope, receive, send)
            return
        started = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry = f"{conf.metric};dur={(time.perf_counter() - started) * 1000:.1f}"
                if conf.node:
                    found = await apisix(scope).var("balancer_ip", "balancer_port")
                    address = ":".join((value or b"").decode("latin-1") for value in found.values()).strip(":")
                    if address:
                        entry += f';desc="{address}"'
                message.setdefault("headers", [])
                MutableHeaders(scope=message).append("server-timing", entry)
            await send(message)

        await app(scope, receive, timed)

    return measure
