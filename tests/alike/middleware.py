"""Middleware that both sides of a comparison have: a user, a session, an edit, a fault."""

from typing import Any

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, SimpleUser
from starlette.datastructures import MutableHeaders
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Basic", "Faulty", "Visits", "answer_fault", "edit"]


class Basic(AuthenticationBackend):
    """Takes the name in ``Authorization: User NAME`` for the user."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        given = conn.headers.get("authorization")
        if given is None:
            return None
        scheme, _, name = given.partition(" ")
        if scheme.lower() != "user":
            raise AuthenticationError(f"no such scheme: {scheme}")
        return AuthCredentials(["authenticated"]), SimpleUser(name)


class Visits:
    """Counts a client's requests in its session, and tells the upstream. The query ``logout`` ends the session."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            session = scope["session"]
            if scope["query_string"].startswith(b"logout"):
                session.clear()
            elif not scope["query_string"].startswith(b"quiet"):
                session["visits"] = session.get("visits", 0) + 1
            MutableHeaders(scope=scope)["x-visits"] = str(session.get("visits", 0))
        await self.app(scope, receive, send)


async def edit(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Edit the request, and the status, headers and body of the response."""
    if request.headers.get("x-refuse"):
        return Response("refused", 403, {"x-by": "edit"})
    headers = MutableHeaders(scope=request.scope)
    headers["x-edited"] = "yes"
    if "x-drop" in headers:
        del headers["x-drop"]
    if request.query_params.get("move"):
        request.scope["path"] = request.scope["path"] + "/moved"
        request.scope["raw_path"] = request.scope["raw_path"] + b"/moved"
    method = request.method
    response: Any = await call_next(request)
    response.headers["x-method"] = method
    response.set_cookie("edited", "1")
    if request.headers.get("x-shout"):
        body = b"".join([chunk async for chunk in response.body_iterator])
        del response.headers["content-length"]
        status = 299 if response.status_code == 200 else response.status_code
        return Response(body.upper(), status, dict(response.headers))
    return response  # type: ignore[no-any-return]


class Faulty:
    """Raises where the header ``x-fault`` of a request says so."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = dict(scope.get("headers", ())).get(b"x-fault")
        if fault == b"before":
            raise KeyError("before the upstream")
        if fault == b"forbidden":
            raise PermissionError("no")
        if fault == b"read":
            await receive()
            raise KeyError("after reading")

        async def sending(message: Message) -> None:
            if fault == b"start":
                raise KeyError("at the start of the response")
            await send(message)

        await self.app(scope, receive, sending)
        if fault == b"after":
            raise KeyError("after the response")


async def answer_fault(request: Request, exc: Exception) -> Response:
    """Answer an exception with its name."""
    return Response(f'{{"error": "{type(exc).__name__}"}}', 500, {"x-by": "answer_fault"}, "application/json")
