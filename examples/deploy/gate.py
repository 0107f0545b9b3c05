"""A plugin to try a deployment with: it answers /gate itself, and marks what the upstream answers."""

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, upstream

bridge = Bridge()


@bridge.plugin("mark", phase="request")
def mark(conf: dict[str, str]) -> ASGIApp:
    """Make the plugin of a route. Its configuration is the headers that responses get."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(conf)
            await send(message)

        if scope["path"] == "/gate":
            await JSONResponse({"status": "ok"})(scope, receive, marked)
        else:
            await upstream(scope, receive, marked)

    return app
