"""Objects that a configuration file cannot hold, and names: callables, stores, policies. A project has its own."""

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
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Scope
from starlette_context.plugins import CorrelationIdPlugin, ForwardedForPlugin, RequestIdPlugin, UserAgentPlugin
from timing_asgi.utils import PathToName

from ..middleware import Basic, answer_fault, edit
from .inside import Sessions

__all__ = [
    "answer_fault",
    "basic",
    "context_plugins",
    "csp",
    "edit",
    "etag",
    "forget_limits",
    "guard_config",
    "guard_reset",
    "handlers",
    "limit_backend",
    "limit_by",
    "limit_provider",
    "limit_rules",
    "path_to_name",
    "secure_headers",
    "sessions",
    "store",
    "too_large",
]


# starlette


basic = Basic()


async def forbidden(request: Request, exc: Exception) -> Response:
    return PlainTextResponse("not you", 403)


handlers = {PermissionError: forbidden, 404: forbidden}


# others

context_plugins = (RequestIdPlugin(), CorrelationIdPlugin(), UserAgentPlugin(), ForwardedForPlugin())
secure_headers = Secure.with_default_headers()
csp = CSPConfig(report_uri=b"https://a.test/report", default_src="none")


def etag(body: bytes) -> str:
    """Return an entity tag for `body`."""
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'


store = starsessions.InMemoryStore()


def sessions(app: ASGIApp, conf: dict[str, Any]) -> ASGIApp:
    """Put starsessions around `app`, and between them what loads and uses the session."""
    return starsessions.SessionMiddleware(Sessions(app), store, cookie_https_only=False, **conf)


limit_provider = InMemoryLimitProvider(timespan=300, limit=16)
limit_backend = MemoryBackend()
limit_rules = {r"^/echo": [Rule(minute=6, group="default"), Rule(group="staff")], r"^/json": [Rule(hour=2)]}


def forget_limits() -> None:
    """Empty both limiters."""
    limit_provider.request_dict.clear()
    limit_provider.blocked.clear()
    limit_backend.blocks.clear()
    limit_backend.blocked_users.clear()


async def limit_by(scope: Scope) -> tuple[str, str]:
    """Return the user and the group that headers name."""
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
    """Empty the counters of fastapi-guard, which the process has once."""
    ratelimit_handler._by_ip_request_timestamps.clear()
    ratelimit_handler._by_ip_autoban_counts.clear()
    ratelimit_handler.RateLimitManager(guard_config).request_timestamps.clear()


async def refuse_large(request: Request, exc: Exception) -> Response:
    return PlainTextResponse("too large", 413)


too_large = {ContentSizeExceeded: refuse_large}
