"""``cors``, ``trusted-host``, ``session`` and ``gzip``: Starlette's middleware, with bounds on what a route may give.

A pattern for ``cors`` is RE2's: Starlette would compile it with Python's ``re``, and then one short Origin could hold
up all routes.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from .conf import HeaderName, few
from .patterns import Pattern

__all__ = ["cors", "gzip", "session", "trusted_host"]

MAX_ORIGIN = 300
"""Characters of an Origin, of which the name has 253 at most."""
MIN_SECRET = 16

Origins = Annotated[
    list[Annotated[str, Field(pattern=r"^[!-~]*$", max_length=MAX_ORIGIN)]], *few(1000),
]  # fmt: skip
Methods = Annotated[list[Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=64)]], *few(100)]
Names = Annotated[list[HeaderName], *few(100)]


class _OriginPattern:
    """What Starlette asks of a compiled pattern, and all of it."""

    def __init__(self, regex: Any) -> None:
        self._regex = regex

    def fullmatch(self, origin: str) -> Any:
        return self._regex.fullmatch(origin.encode()) if len(origin) <= MAX_ORIGIN else None


def cors(
    app: ASGIApp,
    allow_origins: Origins = [],  # noqa: B006  # never changed, here and below
    allow_methods: Methods = ["GET"],  # noqa: B006
    allow_headers: Names = [],  # noqa: B006
    allow_credentials: bool = False,
    allow_origin_regex: Annotated[
        Pattern | None, Field(description="Origins that may call, besides allow_origins: a regular expression of RE2.")
    ] = None,
    allow_private_network: bool = False,
    expose_headers: Names = [],  # noqa: B006
    max_age: Annotated[int, Field(ge=0, le=2**31)] = 600,
) -> ASGIApp:
    """Starlette's CORSMiddleware."""
    made = CORSMiddleware(
        app,
        allow_origins=allow_origins,
        allow_methods=allow_methods,
        allow_headers=allow_headers,
        allow_credentials=allow_credentials,
        allow_private_network=allow_private_network,
        expose_headers=expose_headers,
        max_age=max_age,
    )
    if allow_origin_regex is not None:
        made.allow_origin_regex = _OriginPattern(allow_origin_regex)  # type: ignore[assignment]
    return made


def _host(host: str) -> str:
    if host != "*" and "*" in host.removeprefix("*."):
        raise ValueError('a host is a name, "*.example.com" for all names within one, or "*" for all')
    return host


def trusted_host(
    app: ASGIApp,
    allowed_hosts: Annotated[list[Annotated[str, Field(max_length=256), AfterValidator(_host)]], *few(1000)]
    | None = None,
    www_redirect: bool = True,
) -> ASGIApp:
    """Starlette's TrustedHostMiddleware."""
    return TrustedHostMiddleware(app, allowed_hosts, www_redirect)


def _long_enough(secret: str) -> str:
    if len(secret.strip()) < MIN_SECRET:
        raise ValueError(
            f"a secret_key has {MIN_SECRET} characters or more: whoever guesses it can write sessions "
            "(python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one)"
        )
    return secret


class _OwnCookie:
    """Shows Starlette the session's own cookie, and whoever is behind it the request as it came.

    Starlette takes all cookies apart, however many there are, and Python before 3.11.10, 3.12.6 and 3.13 takes a tenth
    of a second for one with many backslashes.
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


_HEADERS = "asgi_bridge_apps.headers"


def session(
    app: ASGIApp,
    secret_key: Annotated[str, Field(max_length=1024), AfterValidator(_long_enough)],
    session_cookie: Annotated[HeaderName, Field(description="The name of the cookie.")] = "session",
    max_age: Annotated[int, Field(ge=0, le=2**31)] | None = 14 * 24 * 60 * 60,
    path: Annotated[str, Field(pattern=r"^/[!-:<-~]*$", max_length=1024)] = "/",
    same_site: Literal["lax", "strict", "none"] = "lax",
    https_only: bool = False,
    domain: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$", max_length=256)] | None = None,
    partitioned: bool = False,
) -> ASGIApp:
    """Starlette's SessionMiddleware."""
    # not every Starlette that we take has this word
    more: dict[str, Any] = {"partitioned": True} if partitioned else {}

    def wrap(behind: ASGIApp) -> ASGIApp:
        return SessionMiddleware(
            behind, secret_key, session_cookie, max_age, path, same_site, https_only, domain, **more
        )

    return _OwnCookie(app, session_cookie, wrap)


def gzip(
    app: ASGIApp,
    minimum_size: Annotated[int, Field(ge=0, le=2**24)] = 500,
    compresslevel: Annotated[int, Field(ge=0, le=9)] = 9,
    thread_minimum_size: Annotated[int, Field(ge=0, le=2**24)] | None = None,
    exclude_content_types: Annotated[list[Annotated[str, Field(max_length=256)]], *few(100)] | None = None,
) -> ASGIApp:
    """Starlette's GZipMiddleware."""
    # not every Starlette that we take has these words
    more: dict[str, Any] = {}
    if thread_minimum_size is not None:
        more["thread_minimum_size"] = thread_minimum_size
    if exclude_content_types is not None:
        more["exclude_content_types"] = tuple(exclude_content_types)
    return GZipMiddleware(app, minimum_size, compresslevel, **more)
