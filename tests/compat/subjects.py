"""Plugins on which the tests try ``compat``."""

import asyncio
import itertools
import time
from collections.abc import Iterable
from typing import Any

import flask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge.wsgi import upstream

__all__: list[str] = []


def header(scope: Scope, name: bytes) -> bytes:
    return next((value for each, value in scope["headers"] if each == name), b"")


class Middleware:
    """Base class. Subclasses say what they do with the request and with the response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.http(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class StoreAndReplay(Middleware):
    """Keeps the response to a POST by its idempotency key, and repeats it."""

    def __init__(self, app: ASGIApp, header_name: str = "Idempotency-Key") -> None:
        super().__init__(app)
        self.name = header_name.lower().encode()
        self.kept: dict[bytes, list[Message]] = {}

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = header(scope, self.name)
        if scope["method"] != "POST" or not key:
            await self.app(scope, receive, send)
            return
        if key in self.kept:
            for message in self.kept[key]:
                await send(message)
            return
        messages: list[Message] = []

        async def keeping(message: Message) -> None:
            messages.append(message)
            await send(message)

        await self.app(scope, receive, keeping)
        self.kept[key] = messages


class Cache(Middleware):
    """Keeps the first response to a GET of a path."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self.kept: dict[str, list[Message]] = {}

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        messages = self.kept.setdefault(scope["path"], [])

        async def keeping(message: Message) -> None:
            messages.append(message)
            await send(message)

        if messages:
            for message in messages:
                await send(message)
        else:
            await self.app(scope, receive, keeping)


class Limiter(Middleware):
    """Lets a number of requests pass. A header says how many more may come."""

    def __init__(self, app: ASGIApp, limit: int = 40, tell: bool = True) -> None:
        super().__init__(app)
        self.left = limit
        self.tell = tell

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.left == 0:
            await PlainTextResponse("too many", 429)(scope, receive, send)
            return
        self.left -= 1
        left = b"%d" % self.left

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-ratelimit-remaining", left)]}
            await send(message)

        await self.app(scope, receive, telling if self.tell else send)


class LimiterWithVary(Limiter):
    """Changes a header that only the real response has."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def varying(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"vary", b"x-user")]}
            await send(message)

        await super().http(scope, receive, varying)


class StripsHeadBody(Limiter):
    """Sends no body with HEAD, as a careful middleware does."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stripping(message: Message) -> None:
            if scope["method"] == "HEAD" and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await super().http(scope, receive, stripping)


class Challenge(Middleware):
    """Turns the upstream's 401 into a way to log in."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def challenging(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                message = {**message, "headers": [*message["headers"], (b"x-login", b"/login")]}
            await send(message)

        await self.app(scope, receive, challenging)


class Wrapped:
    """Its first parameter is not called ``app``."""

    def __init__(self, wrapped: ASGIApp) -> None:
        self.wrapped = wrapped

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not header(scope, b"authorization"):
            await PlainTextResponse("who?", 401)(scope, receive, send)
            return
        await self.wrapped(scope, receive, send)


class Digest(Middleware):
    """Sets a header that is made from the body."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: list[Message] = []

        async def digesting(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)
                return
            if start:
                first = start.pop()
                value = b"%d" % sum(message.get("body", b""))
                await send({**first, "headers": [*first["headers"], (b"x-digest", value)]})
            await send(message)

        await self.app(scope, receive, digesting)


class Constant(Middleware):
    """Sets the same header on every response."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-frame-options", b"DENY")]}
            await send(message)

        await self.app(scope, receive, adding)


class RaisesWithoutKey(Middleware):
    """Refuses by an exception, which something around it answers."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not header(scope, b"authorization"):
            raise PermissionError("no key")
        await self.app(scope, receive, send)


class NeedsObject(Middleware):
    def __init__(self, app: ASGIApp, backend: Any, clock: Limiter, text: str) -> None:
        super().__init__(app)
        self.text = text

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(self.text)(scope, receive, send)


class Dispatching(BaseHTTPMiddleware):
    async def dispatch(self, request: Any, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response


class WSGITiming:
    """Sets a header with the time that the upstream took."""

    def __init__(self, application: Any) -> None:
        self.application = application

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        began = time.perf_counter()

        def timed(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            took = f"{(time.perf_counter() - began) * 1000:.0f}"
            return start_response(status, [*headers, ("X-Time", took)], exc_info)

        found: Iterable[bytes] = self.application(environ, timed)
        return found


class WSGIWatching:
    """Counts statuses, and changes nothing."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.statuses: list[str] = []

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        def counting(status: str, *more: Any) -> Any:
            self.statuses.append(status)
            return start_response(status, *more)

        found: Iterable[bytes] = self.app(environ, counting)
        return found


class WSGIWatchingBody(WSGIWatching):
    """Looks at the body only."""

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        chunks: Iterable[bytes] = self.app(environ, start_response)
        return iter(chunks)


class WSGIUser(WSGIWatching):
    """Acts on the request only."""

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["HTTP_X_USER"] = "somebody"
        found: Iterable[bytes] = self.app(environ, start_response)
        return found


def wsgi_function(application: Any, level: int = 1) -> WSGIWatching:
    """Makes a WSGI middleware. Only what it returns shows that it is not for ASGI."""
    return WSGIWatching(application)


limiter = flask.Flask("limiter")
_left = itertools.count(40, -1)


@limiter.before_request
def limit() -> Any:
    return ("too many", 429) if next(_left) <= 0 else None


@limiter.route("/<path:path>", methods=["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
def passed_on(path: str) -> Any:
    return flask.Response.from_app(upstream, flask.request.environ)


limiting = Limiter(Middleware)  # type: ignore[arg-type]


class HTMLOnly(Middleware):
    """Fails on responses that are no HTML pages."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def picky(message: Message) -> None:
            if (b"content-type", b"application/json") in message.get("headers", ()):
                raise ValueError("no page")
            await send(message)

        await self.app(scope, receive, picky)


class RaisesAtLast(Limiter):
    """Refuses by an exception after a number of requests."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.left -= 1
        if self.left < 0:
            raise PermissionError("enough")
        await self.app(scope, receive, send)


class CachesAfterAWhile(Limiter):
    """Keeps responses after a number of requests."""

    def __init__(self, app: ASGIApp, limit: int = 20) -> None:
        super().__init__(app, limit)
        self.kept: list[Message] = []

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.left -= 1
        if self.left < 0 and self.kept:
            for message in self.kept:
                await send(message)
            return
        self.kept.clear()

        async def keeping(message: Message) -> None:
            self.kept.append(message)
            await send(message)

        await self.app(scope, receive, keeping)


class RefusesKeys(Middleware):
    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if header(scope, b"idempotency-key"):
            raise ValueError("no keys here")
        if header(scope, b"x-idempotency-key"):
            await PlainTextResponse("no keys here", 400)(scope, receive, send)
            return
        await self.app(scope, receive, send)


class HangsOnPost(Middleware):
    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await asyncio.get_running_loop().create_future()
        await self.app(scope, receive, send)


class TimesOut(Middleware):
    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise TimeoutError("its own")


class WSGIReturnsNothing:
    def __init__(self, app: Any) -> None: ...

    def __new__(cls, app: Any) -> Any:
        return 5

    def __call__(self, environ: Any, start_response: Any) -> Any: ...


def wsgi_any(application: Any) -> Any:
    """Makes a WSGI middleware, which its signature does not show."""

    def called(*args: Any) -> Any:
        environ, start_response = args
        return application(environ, start_response)

    return called


def raises_as_either(application: Any) -> Any:
    def called(*args: Any) -> Any:
        raise ValueError(len(args))

    return called
