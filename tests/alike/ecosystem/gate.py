"""What a configuration file names, since it cannot hold it: callables, stores, policies; one's own in a project."""

import hashlib
from typing import Any

import starsessions
from content_size_limit_asgi.errors import ContentSizeExceeded
from guard_core.handlers import ratelimit_handler
from guard_core.models import SecurityConfig
from piccolo_api.csp.middleware import CSPConfig
from piccolo_api.rate_limiting.middleware import InMemoryLimitProvider
from ratelimit import Rule
from ratelimit.backends.simple import MemoryBackend
from secure import Secure
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, SimpleUser
from starlette.datastructures import MutableHeaders
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Scope
from starlette_context.plugins import CorrelationIdPlugin, ForwardedForPlugin, RequestIdPlugin, UserAgentPlugin
from timing_asgi.utils import PathToName

from tests.alike.ecosystem.inside import Sessions

__all__: list[str] = []


# starlette


class Basic(AuthenticationBackend):
    """A user's name as credentials."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        given = conn.headers.get("authorization")
        if given is None:
            return None
        scheme, _, name = given.partition(" ")
        if scheme.lower() != "user":
            raise AuthenticationError(f"no such scheme: {scheme}")
        return AuthCredentials(["authenticated"]), SimpleUser(name)


basic = Basic()


async def edit(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Edits the request, and the response's headers, or its body."""
    if request.headers.get("x-refuse"):
        return Response("refused", 403, {"x-by": "edit"})
    MutableHeaders(scope=request.scope)["x-edited"] = "yes"
    response = await call_next(request)
    response.headers["x-method"] = request.method
    response.set_cookie("edited", "1")
    if request.headers.get("x-shout"):
        body = b"".join([chunk async for chunk in response.body_iterator])
        del response.headers["content-length"]
        return Response(body.upper(), response.status_code, dict(response.headers))
    return response


async def told(request: Request, exc: Exception) -> Response:
    """The answer to any exception."""
    return Response(f'{{"error": "{type(exc).__name__}"}}', 500, {"x-by": "told"}, "application/json")


async def forbidden(request: Request, exc: Exception) -> Response:
    return PlainTextResponse("not you", 403)


handlers = {PermissionError: forbidden, 404: forbidden}


# others

context_plugins = (RequestIdPlugin(), CorrelationIdPlugin(), UserAgentPlugin(), ForwardedForPlugin())
secure_headers = Secure.with_default_headers()
csp = CSPConfig(report_uri=b"https://a.test/report", default_src="none")


def etag(body: bytes) -> str:
    """An entity tag of the content."""
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'


store = starsessions.InMemoryStore()


def sessions(app: ASGIApp, conf: dict[str, Any]) -> ASGIApp:
    """starsessions, and inside it what loads and uses the session."""
    return starsessions.SessionMiddleware(Sessions(app), store, cookie_https_only=False, **conf)


limit_provider = InMemoryLimitProvider(timespan=300, limit=16)
limit_backend = MemoryBackend()
limit_rules = {r"^/echo": [Rule(minute=6, group="default"), Rule(group="staff")], r"^/json": [Rule(hour=2)]}


def forget_limits() -> None:
    """Empties both."""
    limit_provider.request_dict.clear()
    limit_provider.blocked.clear()
    limit_backend.blocks.clear()
    limit_backend.blocked_users.clear()


async def limit_by(scope: Scope) -> tuple[str, str]:
    """User and group, of headers."""
    headers = dict(scope["headers"])
    return headers.get(b"x-user", b"nobody").decode(), headers.get(b"x-group", b"default").decode()


path_to_name = PathToName("gate")


# fastapi-guard, content-size-limit-asgi


guard_config = SecurityConfig(
    enable_redis=False,
    rate_limit=20,
    rate_limit_window=300,
    blocked_user_agents=["badbot"],
    auto_ban_threshold=100,
    trusted_proxies=[],
    enforce_https=False,
)


def guard_reset() -> None:
    """fastapi-guard counts once for each process."""
    ratelimit_handler._by_ip_request_timestamps.clear()
    ratelimit_handler._by_ip_autoban_counts.clear()
    ratelimit_handler.RateLimitManager(guard_config).request_timestamps.clear()


async def refuse_large(request: Request, exc: Exception) -> Response:
    return PlainTextResponse("too large", 413)


too_large = {ContentSizeExceeded: refuse_large}
