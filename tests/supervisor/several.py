"""The plugins of the runners in test_workers.py: each answer says which process gave it."""

import asyncio
import os
import time

from asgi_bridge_apps.limit_req import limit_req
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream

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


for app in (who, sleeping, blocking):
    bridge.mount(app.__name__, app)
bridge.plugin("limit-req")(limit_req)


def remembering(name: str) -> ASGIApp:
    """A plugin that puts on the response what it knew before the upstream answered, and its process."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        scope["state"].setdefault("path", path)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = f"{path} {scope['state']['path']} {os.getpid()} {scope['extensions']['apisix']['phase']}"
                message["headers"].append((f"x-{name}".encode(), known.encode()))
            await send(message)

        await upstream(scope, receive, sending)

    return app


for name in ("rule", "pre", "post"):
    both.mount(name, remembering(name), phase="both")
both.mount("strict", remembering("strict"), phase="both", on_missing="refuse")
