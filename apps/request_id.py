"""``request-id``: gives each request an id, in a header for the upstream and for the client.

A good id of the client is kept. In the request phase, the client gets our header and any header of this name that the
upstream sends. Mounted with ``phase="both"``, our header replaces the upstream's.
"""

import re
import uuid
from collections.abc import Callable
from typing import Literal

from pydantic import Field
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import apisix, upstream

from ._shared.conf import Conf
from ._shared.guard import IdentityName
from ._shared.headers import dashed, encoded, without

__all__ = ["RequestIdConf", "request_id"]

# safe in a log line and in a file name
_good = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")


class RequestIdConf(Conf):
    """What ``request-id`` takes."""

    header_name: IdentityName = Field(default="X-Request-Id", description="Header that holds the id.")
    accept: bool = Field(
        default=True,
        description="True: an id of the client's stays if it is 1 to 128 letters, digits and ._~+/=:@- long.",
    )
    include_in_response: bool = Field(default=True, description="True: the client gets the header too.")
    algorithm: Literal["uuid", "gateway"] = Field(
        default="uuid",
        description="What a new id is: a random UUID, or the gateway's own $request_id, as in its access log, which "
        "costs a round trip.",
    )


def request_id(conf: RequestIdConf, make: Callable[[], str] = lambda: str(uuid.uuid4())) -> ASGIApp:
    """Give each request an id.

    Args:
        conf: The route's configuration.
        make: Returns a new id.
    """
    (name,) = encoded([conf.header_name])

    async def identify(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await upstream(scope, receive, send)
            return
        sent = [value for each, value in scope["headers"] if dashed(each.lower()) == dashed(name)]
        if conf.accept and len(sent) == 1 and _good.fullmatch(sent[0]):
            value = sent[0]
        elif conf.algorithm == "gateway":
            value = await apisix(scope).var("request_id") or make().encode("ascii")
        else:
            value = make().encode("ascii")
        if (name, value) not in scope["headers"]:
            scope["headers"] = [*without(scope["headers"], [name]), (name, value)]

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                MutableHeaders(scope=message)[name.decode("ascii")] = value.decode("ascii")
            await send(message)

        await upstream(scope, receive, identified if conf.include_in_response else send)

    return identify
