"""All ready-made plugins on one Bridge: their names, phases and options."""

from collections.abc import Sequence

from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.types import ASGIApp

from asgi_bridge import Bridge, ConfigurationError

try:
    from .basic_auth import basic_auth
    from .cors import cors
    from .etag import etag
    from .fault_injection import fault_injection
    from .forward_auth import ForwardAuth
    from .gzip import gzip
    from .hmac_auth import hmac_auth
    from .ip_access import ip_access
    from .jwt_auth import jwt_auth
    from .key_auth import key_auth
    from .limit_count import limit_count
    from .limit_req import limit_req
    from .oidc import oidc
    from .otel import otel
    from .request_body_rewrite import request_body_rewrite
    from .request_id import request_id
    from .response_rewrite import response_rewrite
    from .rewrite import rewrite
    from .say import say
    from .server_timing import server_timing
    from .session import session
    from .stop import stop
    from .trusted_host import trusted_host
except ModuleNotFoundError as exc:
    raise ConfigurationError(f'asgi_bridge_apps needs {exc.name}: pip install "asgi_bridge[apps]"') from None

__all__ = ["ready_made"]

OTEL_HEADERS = ("host", "user-agent", "traceparent", "tracestate", "baggage")
"""Request headers that ``otel`` reads, with OpenTelemetry's own propagators."""


def ready_made(*, auth_app: ASGIApp | None = None, allow: Sequence[str] = ()) -> Bridge:
    """Make a bridge with all plugins of this package.

    Args:
        auth_app: The application that ``forward-auth`` asks. Without one, routes that list this plugin are refused.
        allow: Files and servers that routes may name: paths and URLs, as in the option `allow` of a mount.

    Raises:
        ConfigurationError: An entry of `allow` is neither a path nor a URL.

    Example::

        bridge = ready_made(allow=["https://idp.example.com/", "/etc/apisix/keys/"])
    """
    made = Bridge()
    # In the response phase each request header is asked for: the plugins that may run there say what they read.
    made.plugin("say", request_headers=[])(say)
    made.plugin("fault-injection", request_headers=[])(fault_injection)
    made.plugin("stop", request_headers=[])(stop)
    # these change the real response
    made.plugin("response-rewrite", phase="response", request_headers=[])(response_rewrite)
    made.plugin("etag", phase="both", request_body=False, request_headers=["if-none-match"])(etag)
    made.plugin("server-timing", phase="both", response_body=False, request_headers=[])(server_timing)
    # These change the request or decide who may pass, before it goes upstream. A route that lists them in the response
    # phase is refused.
    made.plugin("rewrite", phase="request")(rewrite)
    made.plugin("request-body-rewrite", phase="request")(request_body_rewrite)
    made.plugin("limit-req", phase="request")(limit_req)
    made.plugin("limit-count", phase="request")(limit_count)
    made.add_middleware(
        "forward-auth", ForwardAuth, defaults={} if auth_app is None else {"auth_app": auth_app}, phase="request"
    )
    made.plugin("jwt-auth", phase="request")(jwt_auth)
    made.plugin("oidc", phase="request")(oidc)
    made.plugin("basic-auth", phase="request")(basic_auth)
    made.plugin("key-auth", phase="request")(key_auth)
    made.plugin("hmac-auth", phase="request", exact=True, request_body=False)(hmac_auth)
    made.plugin("ip-access", phase="request")(ip_access)
    made.plugin("request-id", phase="request")(request_id)
    made.plugin("otel", phase="both", response_body=False, request_headers=OTEL_HEADERS)(otel)
    made.add_middleware("cors", cors, request_headers=["origin", "cookie"])
    made.add_middleware("trusted-host", trusted_host, phase="request")
    made.add_middleware("https-redirect", HTTPSRedirectMiddleware, phase="request")
    made.add_middleware("session", session, request_headers=["cookie"])
    made.add_middleware("gzip", gzip, phase="response", request_headers=["accept-encoding"])
    allowing = Bridge()
    allowing.include(made, allow=allow)
    return allowing
