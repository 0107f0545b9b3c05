"""Objects of many shapes, to be mounted in every way. Those that work answer every request with ``here``."""

import asyncio
import dataclasses
import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import flask
from fastapi import FastAPI
from paste.gzipper import middleware as paste_middleware  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from werkzeug.middleware.proxy_fix import ProxyFix

__all__ = ["CORSMiddleware", "ProxyFix", "Starlette"]

here = PlainTextResponse("here")

# ASGI applications


async def coroutine_function(scope: Scope, receive: Receive, send: Send) -> None:
    await here(scope, receive, send)


def returns_awaitable(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    return here(scope, receive, send)


def returns_future(scope: Scope, receive: Receive, send: Send) -> "asyncio.Future[None]":
    return asyncio.ensure_future(coroutine_function(scope, receive, send))


def unnamed(one: Any, two: Any, three: Any) -> Awaitable[None]:
    return here(one, two, three)


class Plain:
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return here(scope, receive, send)

    async def method(self, scope: Scope, receive: Receive, send: Send) -> None:
        await here(scope, receive, send)

    @classmethod
    def of_class(cls, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return here(scope, receive, send)


class Anything:
    def __call__(self, *args: Any, **options: Any) -> Awaitable[None]:
        return here(*args)


def with_more(text: str, scope: Scope, receive: Receive, send: Send, /, *, status: int = 200) -> Awaitable[None]:
    return PlainTextResponse(text, status)(scope, receive, send)


def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        return function(*args, **options)

    return wrapper


def injecting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(scope: Scope, receive: Receive, send: Send) -> None:
        await function(scope, receive, send, "here")

    return wrapper


@injecting
async def injected(scope: Scope, receive: Receive, send: Send, text: str) -> None:
    await PlainTextResponse(text)(scope, receive, send)


class Decorated:
    """A decorator that is a class, around a function or a method."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return functools.partial(self, instance)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.function(*args, **options)


@Decorated
async def decorated(scope: Scope, receive: Receive, send: Send) -> None:
    await here(scope, receive, send)


class Endpoint(HTTPEndpoint):
    async def get(self, request: Request) -> PlainTextResponse:
        return here


def double(scope: Scope) -> Any:
    async def instance(receive: Receive, send: Send) -> None:
        await here(scope, receive, send)

    return instance


class Double:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        await here(self.scope, receive, send)


plain = Plain()
method = plain.method
of_class = Plain.of_class
partial = functools.partial(with_more, "here", status=200)
anything = Anything()
passed_on = passing_on(returns_awaitable)
fastapi_app = FastAPI()
fastapi_app.add_api_route("/", lambda: here)
no_signature = coroutine_function.__call__  # type: ignore[operator]

# ASGI middleware


class Wrapping:
    def __init__(self, wrapped: ASGIApp, text: str = "here") -> None:
        self.text = text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(self.text)(scope, receive, send)


class PlainMiddleware:
    def __init__(self, application: ASGIApp, *, text: str = "here", more: int = 1) -> None:
        self.text = text

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return PlainTextResponse(self.text)(scope, receive, send)


class ByPosition(Wrapping):
    def __init__(self, wsgi_app: ASGIApp, /, text: str = "here", more: int = 1) -> None:
        super().__init__(wsgi_app, text)


class ByStar(Wrapping):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)


@dataclasses.dataclass
class Dataclass:
    inner: "Nowhere"  # type: ignore[name-defined]  # noqa: F821
    text: str = "here"
    more: int = 1

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return PlainTextResponse(self.text)(scope, receive, send)


class MadeByNew:
    def __new__(cls, handler: ASGIApp, text: str = "here") -> Any:
        return PlainTextResponse(text)


class OldMiddleware:
    def __init__(self, app: ASGIApp, text: str = "here", more: int = 1) -> None:
        self.text = text

    def __call__(self, scope: Scope) -> Any:
        return functools.partial(PlainTextResponse(self.text), scope)


def closure(app: ASGIApp, text: str = "here", more: int = 1) -> ASGIApp:
    return lambda scope, receive, send: PlainTextResponse(text)(scope, receive, send)


class Unreadable:
    """Has no signature to read, like a class from some compilers."""

    @property
    def __signature__(self) -> Any:
        raise ValueError("no signature found")

    def __call__(self, app: ASGIApp, **options: Any) -> ASGIApp:
        return app


partial_class = functools.partial(Wrapping, text="here")
partial_cors = functools.partial(CORSMiddleware, allow_origins=["*"])
no_signature_middleware = Unreadable()

# factories


def factory(conf: dict[str, Any]) -> ASGIApp:
    return here


async def async_factory(options: dict[str, Any]) -> ASGIApp:
    return returns_future


def wrapping_factory(app: ASGIApp, conf: dict[str, Any]) -> ASGIApp:
    return here


def create_app() -> ASGIApp:
    return here


class FactoryClass:
    def __init__(self, settings: dict[str, Any], more: int = 1) -> None:
        pass

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return here(scope, receive, send)


# WSGI

flask_app = flask.Flask("here")
flask_app.add_url_rule("/", view_func=lambda: "here")


def wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"here"]


class WSGIClass:
    def __init__(self, environ: Any, start_response: Any) -> None:
        start_response("200 OK", [])

    def __iter__(self) -> Any:
        return iter([b"here"])


class WSGITiming:
    def __init__(self, handler: Any, level: int = 1) -> None:
        pass

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        return wsgi(environ, start_response)


# what is never a plugin


def lacks_async(scope: Scope, receive: Receive, send: Send) -> None:
    here(scope, receive, send)  # type: ignore[unused-coroutine]


class LacksAsync:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.app(scope, receive, send)


class WithoutCall:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app


def view(request: Request) -> PlainTextResponse:
    return here


async def dispatch(request: Request, call_next: Any) -> Any:
    return await call_next(request)


class DjangoMiddleware:
    def __init__(self, get_response: Any) -> None:
        pass

    def __call__(self, request: Any) -> Any:
        return None


def too_many(one: Any, two: Any, three: Any, four: Any) -> None: ...


entry = Middleware(CORSMiddleware, allow_origins=["*"], max_age=5)
text = "main:app"
any_arguments = passing_on(lambda *args, **options: None)
StarletteClass = Starlette
FlaskClass = flask.Flask
ProxyFixClass = ProxyFix


def paste_function(application: Any) -> Any:
    return paste_middleware(application, compress_level=5)
