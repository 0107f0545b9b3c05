"""The plugins that the inspector is looked at with: one for each kind of thing that a plugin does."""

import asyncio
import logging
from typing import Any

from starlette.responses import JSONResponse

from asgi_bridge import Bridge, upstream


async def gate(scope: Any, receive: Any, send: Any) -> None:
    """Wants a key, and tells the upstream who it is."""
    if dict(scope["headers"]).get(b"x-key") != b"right":
        await JSONResponse({"title": "no key"}, 401, media_type="application/problem+json")(scope, receive, send)
        return
    scope["headers"] = [item for item in scope["headers"] if item[0] != b"x-key"] + [(b"x-user", b"jane")]
    await upstream(scope, receive, send)


async def path(scope: Any, receive: Any, send: Any) -> None:
    """Writes another path and query."""
    await upstream({**scope, "path": "/new" + scope["path"], "query_string": b"page=2"}, receive, send)


async def body(scope: Any, receive: Any, send: Any) -> None:
    """Writes another body."""
    whole = (await receive())["body"].replace(b'"small"', b'"large"')

    async def receiving() -> Any:
        return {"type": "http.request", "body": whole, "more_body": False}

    await upstream(scope, receiving, send)


async def mark(scope: Any, receive: Any, send: Any) -> None:
    """Sets a header of the response."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"x-mark", b"seen")]}
        await send(message)

    await upstream(scope, receive, sending)


async def around(scope: Any, receive: Any, send: Any) -> None:
    """Changes the request, and the response of the upstream."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "status": 203}
        await send(message)

    await upstream({**scope, "headers": [*scope["headers"], (b"x-around", b"1")]}, receive, sending)


async def shout(scope: Any, receive: Any, send: Any) -> None:
    """Writes the upstream's answer in capitals."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": message.get("body", b"").upper()}
        await send(message)

    await upstream(scope, receive, sending)


def share(pieces: int) -> float:
    return 1 / pieces


async def broken(scope: Any, receive: Any, send: Any) -> None:
    """Fails."""
    share(0)


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Never answers."""
    await asyncio.Event().wait()


async def count(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body."""
    size = len((await receive())["body"])
    scope["headers"].append((b"x-size", b"%d" % size))
    await upstream(scope, receive, send)


async def say(scope: Any, receive: Any, send: Any) -> None:
    """Prints, logs, and asks for a variable."""
    print("printed", "in two parts")
    logging.getLogger("shop").warning("logged <b>boldly</b>")
    scope["headers"].append((b"x-method", await scope["extensions"]["apisix"].var("request_method")))
    await upstream(scope, receive, send)


def http(app: Any) -> Any:
    """Return the application without a lifespan."""

    async def alone(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)

    return alone


bridge = Bridge()
bridge.mount("gate", http(gate))
bridge.mount("judge", http(gate), phase="request", shadow=True)
bridge.mount("path", http(path))
bridge.mount("body", http(body))
bridge.mount("mark", http(mark))
bridge.mount("around", http(around), phase="both")
bridge.mount("shout", http(shout), phase="response")
bridge.mount("broken", http(broken))
bridge.mount("slow", http(slow), timeout=0.2)
bridge.mount("count", http(count))
bridge.mount("say", http(say))
