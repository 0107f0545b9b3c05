"""``session``: Starlette's SessionMiddleware, with limits on what a route may give."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from starlette.middleware.sessions import SessionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from ._shared.conf import HeaderName

__all__ = ["session"]

MIN_SECRET = 16
"""Minimum length of the secret key, in characters."""
_HEADERS = "asgi_bridge_apps.headers"
"""Key of the scope under which all headers wait while Starlette sees only the session's cookie."""


def _long_enough(secret: str) -> str:
    if len(secret.strip()) < MIN_SECRET:
        raise ValueError(
            f"a secret_key needs {MIN_SECRET} characters or more: whoever guesses it can forge sessions "
            "(python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one)"
        )
    return secret


class _OwnCookie:
    """Shows Starlette only the session's cookie; the application behind it gets all headers of the request.

    Starlette parses all cookies, however many there are. Python before 3.11.10, 3.12.6 and 3.13 takes a tenth of a
    second for one cookie with many backslashes.
    """

    def __init__(self, app: ASGIApp, name: str, wrap: Callable[[ASGIApp], ASGIApp]) -> None:
        self._app = app
        self._name = name.encode("ascii") + b"="
        self._own = re.compile(rb"(?:^|;)[ \t]*(" + re.escape(self._name) + rb"[^;\\]*)(?=;|$)")
        self._middleware = wrap(self._behind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        cookies = [value for name, value in headers if name == b"cookie" and self._name in value]
        own = [found for value in cookies for found in self._own.findall(value)]
        scope[_HEADERS] = headers
        scope["headers"] = [(b"cookie", cookie) for cookie in own[-1:]]  # of several the last one counts
        await self._middleware(scope, receive, send)

    async def _behind(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"] = scope.pop(_HEADERS)
        await self._app(scope, receive, send)


def session(
    app: ASGIApp,
    secret_key: Annotated[
        str,
        Field(
            max_length=1024,
            description="Key that signs the cookie.",
            examples=["an example to change: 32 random characters"],
        ),
        AfterValidator(_long_enough),
    ],
    session_cookie: Annotated[HeaderName, Field(description="The name of the cookie.")] = "session",
    max_age: Annotated[
        Annotated[int, Field(ge=0, le=2**31)] | None,
        Field(description="Seconds that a session lasts; null: until the browser is closed."),
    ] = 14 * 24 * 60 * 60,
    path: Annotated[
        str, Field(pattern=r"^/[!-:<-~]*$", max_length=1024, description="Paths that the browser sends the cookie to.")
    ] = "/",
    same_site: Annotated[
        Literal["lax", "strict", "none"], Field(description="What pages of other sites may send the cookie with.")
    ] = "lax",
    https_only: Annotated[bool, Field(description="True: the browser sends the cookie over HTTPS alone.")] = False,
    domain: Annotated[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$", max_length=256)] | None,
        Field(description="Domain that the browser sends the cookie to. Left out: the host that set it."),
    ] = None,
    partitioned: Annotated[bool, Field(description="True: a cookie for each site that embeds this one.")] = False,
) -> ASGIApp:
    """Wrap `app` in Starlette's SessionMiddleware, which describes the arguments."""
    # Older releases of Starlette lack this argument.
    more: dict[str, Any] = {"partitioned": True} if partitioned else {}

    def wrap(behind: ASGIApp) -> ASGIApp:
        return SessionMiddleware(
            behind, secret_key, session_cookie, max_age, path, same_site, https_only, domain, **more
        )

    return _OwnCookie(app, session_cookie, wrap)
