"""`pass_on`: the response of a Django view that lets the request go on.

Example::

    from asgi_bridge.django import pass_on

    def orders(request):
        return pass_on(request, headers={"x-user": request.user.get_username()})

    async def invoices(request):
        user = await request.auser()
        return await pass_on(request, headers={"x-user": user.get_username()})
"""

import asyncio
from collections.abc import Container, Iterable
from http.cookies import Morsel
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.http import HttpRequest, HttpResponse
from starlette.types import Message

from .passing import Change, Values
from .passing import pass_on as pass_on_scope
from .wsgi import pass_on_environ

__all__ = ["pass_on"]


def pass_on(
    request: HttpRequest,
    *,
    headers: Values | None = None,
    path: str | None = None,
    query: str | Values | None = None,
    body: str | bytes | None = None,
    response_headers: Values | None = None,
) -> Any:
    """Let the request of a view or middleware go on, changed or not: to the next plugin, or to the gateway's upstream.

    The body goes on as it came, also though Django has read it. In the request phase the response is an empty 200,
    since the upstream has not answered yet. What the view and Django's middleware add to its headers, such as cookies
    of a session, is added to the real response.

    Args:
        request: Of Django's ASGI or WSGI application.
        headers: Request headers to set, by name; None as a value removes the header. A header replaces all lines that
            the client sent under this name, also those with ``_`` for ``-``: CGI and WSGI upstreams take both for the
            same header.
        path: The new path, decoded. It begins with a slash.
        query: A text replaces the query; it is percent-encoded, without ``?``. A mapping sets the arguments of these
            names, and leaves the others.
        body: The new request body. A text is sent as UTF-8.
        response_headers: Response headers to set, by name; None as a value removes the header, where the real response
            is there to remove it from. ``set-cookie`` is added to the cookies that the response has.

    Returns:
        In a sync view the response, a `django.http.HttpResponse`. In an async view (where an event loop runs) a
        coroutine of it, to await.

    Raises:
        PluginError: A value has the wrong type, or is nothing that HTTP can send. The request belongs to no plugin's
            call.
    """
    change = Change(headers, path, query, body, response_headers)
    environ = getattr(request, "environ", None)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return async_to_sync(_ask_scope)(request.scope, change) if environ is None else _ask_environ(environ, change)
    if environ is None:
        return _ask_scope(request.scope, change)
    return sync_to_async(_ask_environ)(environ, change)


async def _ask_scope(scope: Any, change: Change) -> HttpResponse:
    """Let the request of Django's ASGI application go on."""
    response = HttpResponse()

    async def receive() -> Message:
        return {"type": "http.disconnect"}  # Django has read the body, so nothing else comes

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            _start(response, message["status"], message.get("headers") or ())
        elif message["type"] == "http.response.body":
            response.write(message.get("body", b""))

    await pass_on_scope(scope, receive, send, change)
    return response


def _ask_environ(environ: dict[str, Any], change: Change) -> HttpResponse:
    """Let the request of Django's WSGI application go on."""
    response = HttpResponse()

    def start_response(status: str, headers: Iterable[tuple[str, str]], exc_info: object = None) -> Any:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        _start(response, int(status.split()[0]), raw)

    for part in pass_on_environ(environ, start_response, change):
        response.write(part)
    return response


def _start(response: HttpResponse, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
    response.status_code = status
    del response.headers["content-type"]  # Django's own
    cookies = 0
    for raw, line in headers:
        name, value = raw.decode("latin-1"), line.decode("latin-1")
        if name.lower() == "set-cookie":
            cookies += 1
            # No cookie has such a name. Under its own Django would write another cookie over it.
            dict.__setitem__(response.cookies, f"upstream {cookies}", _Line(value))
        elif name in response.headers:  # Django has one value for each name; a repeat can be joined (RFC 9110, 5.3)
            response.headers[name] += f", {value}"
        else:
            response.headers[name] = value


class _Line(Morsel[str]):
    """A cookie of the upstream: its line goes to the client as it came.

    Args:
        line: The value of ``Set-Cookie``.
    """

    def __init__(self, line: str = "") -> None:
        super().__init__()
        self.set("upstream", "", line)  # pickled with the response, as in Django's cache

    def OutputString(self, attrs: Container[str] | None = None) -> str:
        """Return the line."""
        return self.coded_value
