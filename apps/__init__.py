"""Ready-made plugins: ``asgi-bridge run asgi_bridge_apps:bridge`` mounts them all.

The examples of the Go runner (``say``, ``fault-injection``, ``limit-req``, ``request-body-rewrite``) and of the
official Python runner (``stop``, ``rewrite``) stand under their names and take their configuration, so that a route
written for those keeps working. ``forward-auth`` asks an ASGI application of the operator's, who gives it::

    from asgi_bridge_apps import ready_made

    bridge = ready_made(auth_app=my_auth_app)

``cors``, ``trusted-host``, ``https-redirect`` and ``session`` are Starlette's middleware, mounted by configuration
alone.
"""

from starlette.types import ASGIApp

from asgi_bridge import Bridge, ConfigurationError

from .fault_injection import fault_injection
from .forward_auth import ForwardAuth
from .limit_req import limit_req
from .request_body_rewrite import request_body_rewrite
from .rewrite import rewrite
from .say import say
from .stop import stop

__all__ = ["bridge", "ready_made"]

STARLETTE = {
    "cors": {"middleware": "starlette.middleware.cors:CORSMiddleware"},
    "trusted-host": {"middleware": "starlette.middleware.trustedhost:TrustedHostMiddleware"},
    "https-redirect": {"middleware": "starlette.middleware.httpsredirect:HTTPSRedirectMiddleware"},
    "session": {"middleware": "starlette.middleware.sessions:SessionMiddleware"},
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
    made.plugin("limit-req")(limit_req)
    made.plugin("request-body-rewrite")(request_body_rewrite)
    made.plugin("stop")(stop)
    made.plugin("rewrite")(rewrite)
    made.add_middleware("forward-auth", ForwardAuth, defaults={} if auth_app is None else {"auth_app": auth_app})
    try:
        made.configure({"plugins": STARLETTE})
    except ModuleNotFoundError as exc:
        raise ConfigurationError(f'asgi_bridge_apps needs {exc.name}: pip install "asgi_bridge[apps]"') from None
    return made


bridge = ready_made()
