"""The plugins of the runners in test_workers.py: each answer says which process gave it."""

import asyncio
import os
import time

from asgi_bridge_apps.limit_req import limit_req
from starlette.types import Receive, Scope, Send

from asgi_bridge import Bridge, apisix

bridge = Bridge()
both = Bridge()


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the process id and the configuration."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{os.getpid()} {apisix(scope).conf}".encode()})


async def sleeping(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers after some seconds."""
    await asyncio.sleep(apisix(scope).conf)
    await who(scope, receive, send)


async def blocking(scope: Scope, receive: Receive, send: Send) -> None:
    """Holds up the event loop for some seconds."""
    time.sleep(apisix(scope).conf)  # noqa: ASYNC251  # what it is for
    await who(scope, receive, send)


async def around(scope: Scope, receive: Receive, send: Send) -> None:
    """Would run through both phases."""


for app in (who, sleeping, blocking):
    bridge.mount(app.__name__, app)
bridge.plugin("limit-req")(limit_req)
both.mount("around", around, phase="both")
