"""The middleware that is compared: how it stands under uvicorn, and how it is mounted on a bridge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge

from ..middleware import Basic, Faulty, Visits, answer_fault, edit

__all__ = ["SECRET", "SUBJECTS", "Subject", "make_bridge"]


@dataclass(frozen=True)
class Subject:
    """A middleware on both sides.

    Attributes:
        direct: puts it around an upstream, as it would stand under uvicorn.
        plugins: names and configurations of the same as plugins, outermost first.
        phases: the phases whose lists name these plugins.
        others: plugins of other lists, by phase.
    """

    name: str
    direct: Callable[[ASGIApp], ASGIApp]
    plugins: Sequence[tuple[str, Any]]
    phases: Sequence[str]
    others: Mapping[str, Sequence[tuple[str, Any]]] = field(default_factory=dict)


class Identify:
    """Tells the upstream who the user is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = MutableHeaders(scope=scope)
            headers["x-user"] = scope["user"].display_name or "nobody"
            headers["x-scopes"] = ",".join(scope["auth"].scopes) or "none"
        await self.app(scope, receive, send)


CORS = {
    "allow_origins": ["https://a.test", "https://b.test"],
    "allow_credentials": True,
    "allow_methods": ["GET", "PUT"],
    "allow_headers": ["x-a"],
    "expose_headers": ["x-upstream"],
}
HOSTS = {"allowed_hosts": ["a.test", "*.b.test", "www.c.test"]}
SECRET = "a secret for tests only"
REQUEST, RESPONSE = ("ext-plugin-pre-req",), ("ext-plugin-post-resp",)
BOTH = (*REQUEST, *RESPONSE)

SUBJECTS = [
    Subject("cors", lambda app: CORSMiddleware(app, **CORS), [("cors", CORS)], BOTH),  # type: ignore[arg-type]
    Subject("gzip", GZipMiddleware, [("gzip", {})], RESPONSE),
    Subject(
        "session",
        lambda app: SessionMiddleware(Visits(app), SECRET),
        [("session", {"secret_key": SECRET}), ("visits", {})],
        BOTH,
    ),
    Subject("trusted-host", lambda app: TrustedHostMiddleware(app, **HOSTS), [("trusted-host", HOSTS)], REQUEST),  # type: ignore[arg-type]
    Subject("https-redirect", HTTPSRedirectMiddleware, [("https-redirect", {})], REQUEST),
    Subject(
        "authentication",
        lambda app: AuthenticationMiddleware(Identify(app), Basic()),
        [("authentication", {}), ("identify", {})],
        REQUEST,
    ),
    Subject("base-http", lambda app: BaseHTTPMiddleware(app, edit), [("editing", {})], BOTH),
    Subject(
        "server-error", lambda app: ServerErrorMiddleware(Faulty(app)), [("server-error", {}), ("faulty", {})], BOTH
    ),
    Subject(
        "server-error-handler",
        lambda app: ServerErrorMiddleware(Faulty(app), answer_fault),
        [("server-error-handler", {}), ("faulty", {})],
        BOTH,
    ),
]


def make_bridge() -> Bridge:
    """Mount the same middleware, each in the phase that docs/phases.md gives it."""
    bridge = Bridge()
    bridge.add_middleware("cors", CORSMiddleware, phase="both")
    bridge.add_middleware("gzip", GZipMiddleware, phase="response", request_headers=["accept-encoding"])
    bridge.add_middleware("session", SessionMiddleware, phase="both")
    bridge.add_middleware("visits", Visits, phase="both")
    bridge.add_middleware("trusted-host", TrustedHostMiddleware, phase="request", exact=True)
    bridge.add_middleware("https-redirect", HTTPSRedirectMiddleware, phase="request", exact=True)
    bridge.add_middleware("authentication", AuthenticationMiddleware, phase="request", defaults={"backend": Basic()})
    bridge.add_middleware("identify", Identify, phase="request")
    bridge.add_middleware("editing", BaseHTTPMiddleware, phase="both", defaults={"dispatch": edit})
    bridge.add_middleware("server-error", ServerErrorMiddleware, phase="both")
    bridge.add_middleware(
        "server-error-handler", ServerErrorMiddleware, phase="both", defaults={"handler": answer_fault}
    )
    bridge.add_middleware("faulty", Faulty, phase="both")
    return bridge
