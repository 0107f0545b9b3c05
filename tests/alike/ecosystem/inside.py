"""Middleware that stands inside the one under test, and tells the upstream in a header what it finds."""

import json
from collections.abc import Callable
from typing import Any

import asgi_babel
import asgi_correlation_id
import starlette_context
from asgi_request_id import request_id_ctx_var
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starsessions import load_session

from ..middleware import Faulty, Visits

__all__ = ["Faulty", "FaultyWSGI", "Sessions", "Tell", "TellWSGI", "Visits"]


def _user_agent(scope: Scope) -> Any:
    ua = scope["ua"]
    return [ua.browser.family, ua.os.family, ua.device.family, ua.is_mobile, ua.is_bot, ua.is_provided]


def _context(scope: Scope) -> Any:
    data = starlette_context.context.data
    return {name: str(value) for name, value in sorted(data.items())}


TELLS: dict[str, Callable[[Scope], Any]] = {
    "client": lambda scope: [scope["client"][0], scope["scheme"]],
    "context": _context,
    "correlation-id": lambda scope: asgi_correlation_id.correlation_id.get(),
    "locale": lambda scope: str(asgi_babel.current_locale.get()),
    "request-id": lambda scope: request_id_ctx_var.get(),
    "csrftoken": lambda scope: bool(scope["csrftoken"]() if callable(scope["csrftoken"]) else scope["csrftoken"]),
    "user": lambda scope: [scope["user"].display_name, scope["auth"].scopes],
    "user-agent": _user_agent,
}


class Tell:
    """Puts what it finds into the request header ``x-tell``.

    Args:
        what: a name of `TELLS`.
    """

    def __init__(self, app: ASGIApp, what: str) -> None:
        self.app = app
        self.tell = TELLS[what]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            MutableHeaders(scope=scope)["x-tell"] = json.dumps(self.tell(scope))
        await self.app(scope, receive, send)


class Sessions(Visits):
    """Does the same with starsessions, which loads a session on demand."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await load_session(HTTPConnection(scope))
        await super().__call__(scope, receive, send)


class TellWSGI:
    """Puts the client and the scheme into the request header ``x-tell``."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        environ["HTTP_X_TELL"] = json.dumps([environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"]])
        return self.app(environ, start_response)


class FaultyWSGI:
    """Raises where the header ``x-fault`` of a request says so."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        fault = environ.get("HTTP_X_FAULT")
        if fault == "before":
            raise KeyError("before the upstream")

        def starting(*args: Any) -> Any:
            if fault == "start":
                raise KeyError("at the start of the response")
            return start_response(*args)

        return self.app(environ, starting)
