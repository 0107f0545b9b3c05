"""All ready-made plugins on one Bridge: their names, phases and options."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from starlette.types import ASGIApp

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.plugins import Plugin
from asgi_bridge.plugins.advice import Place
from asgi_bridge.plugins.deferred import DeferredPlugin
from asgi_bridge.plugins.options import Options

__all__ = ["ready_made"]

OTEL_HEADERS = ("host", "user-agent", "traceparent", "tracestate", "baggage")
"""Request headers that ``otel`` reads, with OpenTelemetry's own propagators."""
NEEDED = ("argon2", "authlib", "cryptography", "httpx2", "itsdangerous", "jwt", "opentelemetry", "re2")
"""Packages of the extra ``apps`` that the plugins cannot do without."""

for _package in NEEDED:
    if find_spec(_package) is None:
        raise ConfigurationError(f'asgi_bridge_apps needs {_package}: pip install "asgi_bridge[apps]"')


def ready_made(*, auth_app: ASGIApp | None = None, allow: Sequence[str] = ()) -> Bridge:
    """Make a bridge with all plugins of this package.

    A plugin is imported when the first route lists it.

    Args:
        auth_app: The application that ``forward-auth`` asks. Without one, routes that list this plugin are refused.
        allow: Files and servers that routes may name: paths and URLs, as in the option `allow` of a mount.

    Raises:
        ConfigurationError: An entry of `allow` is neither a path nor a URL.

    Example::

        bridge = ready_made(allow=["https://idp.example.com/", "/etc/apisix/keys/"])
    """
    made = Bridge()

    def factory(name: str, **options: Any) -> None:
        """Add a factory, which has its plugin's name."""
        _add(made, name, "factory", _own(name), None, options)

    def middleware(
        name: str, target: str | None = None, defaults: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """Add a middleware: the `target`, or what has its plugin's name."""
        _add(made, name, "middleware", target or _own(name), defaults, options)

    # In the response phase each request header is asked for: the plugins that may run there say what they read.
    factory("say", request_headers=())
    factory("fault-injection", request_headers=())
    factory("stop", request_headers=())
    # these change the real response
    factory("response-rewrite", phase="response", request_headers=())
    factory("etag", phase="both", request_body=False, request_headers=("if-none-match",))
    factory("server-timing", phase="both", response_body=False, request_headers=())
    # These change the request or decide who may pass, before it goes upstream. A route that lists them in the response
    # phase is refused.
    factory("rewrite", phase="request")
    factory("request-body-rewrite", phase="request")
    factory("limit-req", phase="request")
    factory("limit-count", phase="request")
    auth = {} if auth_app is None else {"auth_app": auth_app}
    middleware("forward-auth", "asgi_bridge_apps.forward_auth:ForwardAuth", auth, phase="request")
    factory("jwt-auth", phase="request")
    factory("oidc", phase="request")
    factory("basic-auth", phase="request")
    factory("key-auth", phase="request")
    factory("hmac-auth", phase="request", exact=True, request_body=False)
    factory("ip-access", phase="request")
    factory("request-id", phase="request")
    factory("otel", phase="both", response_body=False, request_headers=OTEL_HEADERS)
    middleware("cors", request_headers=("origin", "cookie"))
    middleware("trusted-host", phase="request")
    https = "starlette.middleware.httpsredirect:HTTPSRedirectMiddleware"
    middleware("https-redirect", https, phase="request", request_headers=("host",))
    middleware("session", request_headers=("cookie",))
    middleware("gzip", phase="response", request_headers=("accept-encoding",))
    allowing = Bridge()
    allowing.include(made, allow=allow)
    return allowing


def _own(name: str) -> str:
    """Return the ``module:attr`` of a plugin of this package."""
    attribute = name.replace("-", "_")
    return f"asgi_bridge_apps.{attribute}:{attribute}"


def _add(
    made: Bridge,
    name: str,
    source: Literal["factory", "middleware"],
    target: str,
    defaults: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> None:
    """Add a plugin that is imported later."""
    place = Place(name, target)
    made.plugins[name] = DeferredPlugin(place, source, Options(**options), _mounting(place, source, defaults, options))


def _mounting(
    place: Place,
    source: Literal["factory", "middleware"],
    defaults: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> Callable[[], Plugin]:
    def mount() -> Plugin:
        module, _, attribute = (place.target or "").partition(":")
        found = getattr(import_module(module), attribute)
        alone = Bridge()
        if source == "factory":
            alone.plugin(place.name, **options)(found)
        else:
            alone.add_middleware(place.name, found, defaults=defaults, **options)
        return alone.plugins[place.name]

    return mount
