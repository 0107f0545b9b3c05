"""Ready-made plugins: ``asgi-bridge run asgi_bridge_apps:bridge`` mounts them all.

The examples of the Go runner (``say``, ``fault-injection``, ``limit-req``, ``request-body-rewrite``,
``response-rewrite``) and of the official Python runner (``stop``, ``rewrite``) stand under their names and take their
configuration, so that a route written for those keeps working. ``forward-auth`` asks an ASGI application of the
operator's, who gives it::

    from asgi_bridge_apps import ready_made

    bridge = ready_made(auth_app=my_auth_app)

``cors``, ``trusted-host``, ``https-redirect``, ``session`` and ``gzip`` are Starlette's middleware, mounted by
configuration alone.

What they stand on is in the extra ``apps``, all of it: where a package is missing this module cannot be imported, and
the error names it. A runner that starts is a runner whose plugins work. (redis-py alone is looked for when a route
names a Redis: it takes longer to import than all the rest.)
"""

from starlette.types import ASGIApp

from asgi_bridge import Bridge, ConfigurationError

from .etag import etag
from .fault_injection import fault_injection
from .forward_auth import ForwardAuth
from .ip_access import ip_access
from .limit_req import limit_req
from .request_body_rewrite import request_body_rewrite
from .request_id import request_id
from .rewrite import rewrite
from .say import say
from .server_timing import server_timing
from .stop import stop

try:
    from .basic_auth import basic_auth
    from .hmac_auth import hmac_auth
    from .jwt_auth import jwt_auth
    from .otel import otel
    from .response_rewrite import response_rewrite
except ModuleNotFoundError as exc:
    raise ConfigurationError(f'asgi_bridge_apps needs {exc.name}: pip install "asgi_bridge[apps]"') from None

__all__ = ["bridge", "ready_made"]

STARLETTE = {
    "cors": {"middleware": "starlette.middleware.cors:CORSMiddleware"},
    "trusted-host": {"middleware": "starlette.middleware.trustedhost:TrustedHostMiddleware", "phase": "request"},
    "https-redirect": {"middleware": "starlette.middleware.httpsredirect:HTTPSRedirectMiddleware", "phase": "request"},
    "session": {"middleware": "starlette.middleware.sessions:SessionMiddleware"},
    "gzip": {
        "middleware": "starlette.middleware.gzip:GZipMiddleware",
        "phase": "response",
        "request_headers": ["accept-encoding"],
    },
}
"""As it would stand under ``[tool.asgi_bridge.plugins]``."""


def ready_made(*, auth_app: ASGIApp | None = None) -> Bridge:
    """A bridge with all plugins of this package.

    Args:
        auth_app: the application that ``forward-auth`` asks; without one, routes that list it are refused.

    Raises:
        ConfigurationError: a package of the extra ``apps`` is not installed.
    """
    made = Bridge()
    made.plugin("say")(say)
    made.plugin("fault-injection")(fault_injection)
    made.plugin("stop")(stop)
    # these want the real response
    made.plugin("response-rewrite", phase="response", request_headers=[])(response_rewrite)
    made.plugin("etag", phase="both", request_body=False, request_headers=["if-none-match"])(etag)
    made.plugin("server-timing", phase="both", response_body=False)(server_timing)
    # what the request becomes, and who may pass, is decided before it goes upstream: listed in the response phase these
    # are refused
    made.plugin("rewrite", phase="request")(rewrite)
    made.plugin("request-body-rewrite", phase="request")(request_body_rewrite)
    made.plugin("limit-req", phase="request")(limit_req)
    made.add_middleware(
        "forward-auth", ForwardAuth, defaults={} if auth_app is None else {"auth_app": auth_app}, phase="request"
    )
    made.plugin("jwt-auth", phase="request")(jwt_auth)
    made.plugin("basic-auth", phase="request")(basic_auth)
    made.plugin("hmac-auth", phase="request", exact=True, request_body=False)(hmac_auth)
    made.plugin("ip-access", phase="request")(ip_access)
    made.plugin("request-id", phase="request")(request_id)
    made.plugin("otel", phase="both", response_body=False)(otel)
    made.configure({"plugins": STARLETTE})
    return made


bridge = ready_made()
