"""The plugins that are called here."""

import asyncio

from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream

bridge = Bridge()
bridge.add_middleware("cors", CORSMiddleware, defaults={"allow_origins": ["*"]})


class KeyConf(BaseModel):
    key: str


@bridge.plugin("api-key", phase="request")
def api_key(conf: KeyConf) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if (b"x-api-key", conf.key.encode()) in scope["headers"]:
            await upstream(scope, receive, send)
        else:
            await PlainTextResponse("who are you?", 401)(scope, receive, send)

    return app


async def rewrite(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
    headers.append((b"x-user", b"joe"))
    await upstream({**scope, "path": "/in" + scope["path"], "query_string": b"x=2", "headers": headers}, receive, send)


async def in_place(scope: Scope, receive: Receive, send: Send) -> None:
    scope["path"] = "/changed"
    scope["headers"].append((b"x-user", b"joe"))
    await upstream(scope, receive, send)


async def passing(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream(scope, receive, send)


async def upper(scope: Scope, receive: Receive, send: Send) -> None:
    async def receiving() -> Message:
        message = await receive()
        return {**message, "body": message["body"].upper()} if message["type"] == "http.request" else message

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "status": 203, "headers": [(b"content-type", b"text/plain")]}
        elif "body" in message:
            message = {**message, "body": message["body"].upper()}
        await send(message)

    await upstream(scope, receiving, sending)


async def asking(scope: Scope, receive: Receive, send: Send) -> None:
    names = "consumer_name", "remote_addr", "arg_x", "cookie_c", "http_x_one", "uri", "args", "host", "nothing"
    found = await apisix(scope).var(*names)
    await PlainTextResponse(" ".join(str(found[name]) for name in names))(scope, receive, send)


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("boom")


async def sleeping(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await asyncio.sleep(3600)


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    pass


bridge.mount("rewrite", rewrite)
bridge.mount("in-place", in_place)
bridge.mount("rooted", passing, root_path="/api")
bridge.mount("both", passing, phase="both")
bridge.mount("upper", upper)
bridge.mount("asking", asking)
bridge.mount("failing", failing)
bridge.mount("open", failing, on_error="open")
bridge.mount("sleeping", sleeping, timeout=0.05)
bridge.mount("silent", silent)
