"""WSGI applications and middleware as ASGI applications and middleware."""

import inspect
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import ConfigurationError, PluginError
from ..plugins import upstream as next_layer
from ..plugins.advice import Place, refusal
from ..plugins.kinds import Kind, judge
from ..plugins.lifespan import quiet_lifespan
from ..plugins.signatures import hints_of, signature_of
from .run import Run, WSGIApplication, upstream
from .threads import thread_pool

__all__ = ["WSGIApp", "WSGIMiddleware"]

THREADS = 40
"""Number of threads of an application or middleware that has no number of its own."""


class WSGIApp:
    """A WSGI application as an ASGI application.

    Mounted as a plugin it answers by itself, or calls :func:`asgi_bridge.wsgi.upstream`.

    Args:
        wsgi_app: The application.
        threads: Maximum number of its requests that run at once. Further requests wait.
        pool: Name of a thread pool, shared by all that give this name. Without a name the application has its own.

    Raises:
        ConfigurationError: `wsgi_app` is no WSGI application, or `threads` is not the number of threads of `pool`.

    Example::

        bridge.mount("legacy", WSGIApp(flask_app))
    """

    def __init__(self, wsgi_app: WSGIApplication, *, threads: int = THREADS, pool: str | None = None) -> None:
        verdict = judge(wsgi_app)
        if not verdict.may_be_wsgi:
            raise ConfigurationError(refusal(wsgi_app, verdict, Place("name"), "a WSGI application"))
        self._wsgi = wsgi_app
        self._pool = thread_pool(threads, pool)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await quiet_lifespan(scope, receive, send)
            return
        await _run(self._wsgi, next_layer, self._pool, scope, receive, send)


class _Wrapped:
    """A WSGI middleware around an ASGI application."""

    def __init__(self, wsgi: WSGIApplication, app: ASGIApp, pool: Executor) -> None:
        self._wsgi = wsgi
        self._app = app
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _run(self._wsgi, self._app, self._pool, scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _run(
    wsgi: WSGIApplication, inner: ASGIApp, pool: Executor, scope: Scope, receive: Receive, send: Send
) -> None:
    if scope["type"] != "http":
        raise PluginError(f"a WSGI application knows HTTP only, not {scope['type']!r}")
    await Run(wsgi, inner, pool, scope, receive, send).run()


def WSGIMiddleware(
    middleware: Callable[..., WSGIApplication], *, threads: int = THREADS, pool: str | None = None
) -> Callable[..., ASGIApp]:
    """Make an ASGI middleware of a WSGI middleware.

    It is a function of ``app`` and of the keyword arguments of `middleware`. Its signature is that of `middleware`, so
    a route's configuration is checked against the WSGI middleware's own annotations.

    Args:
        middleware: A class or function whose first parameter is the WSGI application to wrap.
        threads: Maximum number of requests that run at once in everything that `middleware` makes. Further ones wait.
        pool: Name of a thread pool, shared by all that give this name. Without a name the middleware has its own.

    Raises:
        ConfigurationError: `middleware` cannot be called or takes no application, or `threads` is not the number of
            threads of `pool`.

    Example::

        bridge.add_middleware("fix", WSGIMiddleware(ProxyFix), defaults={"x_host": 1})
    """
    verdict = judge(middleware)
    if not verdict.may_be_wsgi_middleware:
        raise ConfigurationError(refusal(middleware, verdict, Place("name"), "a WSGI middleware"))
    name = getattr(middleware, "__qualname__", type(middleware).__qualname__)
    executor = thread_pool(threads, pool)

    def make(app: ASGIApp, /, **options: Any) -> ASGIApp:
        made = middleware(upstream, **options)
        verdict = judge(made)
        if not verdict.may_be_wsgi:
            what = repr(made) if verdict.kind is Kind.DATA else verdict.kind.value
            raise ConfigurationError(f"{name} made {what}, which is not a WSGI application")
        return _Wrapped(made, app, executor)

    made: Any = make
    made.__signature__, made.__annotations__ = _asgi_signature(middleware, name)
    made.__name__ = getattr(middleware, "__name__", name)
    made.__qualname__ = name
    made.__doc__ = middleware.__doc__
    made.__module__ = middleware.__module__
    made.of_wsgi = True
    return make


def _asgi_signature(middleware: Callable[..., Any], name: str) -> tuple[inspect.Signature, dict[str, Any]]:
    """Return the signature and the annotations of the ASGI middleware that is made of `middleware`."""
    signature = signature_of(middleware)
    if signature is None:  # compiled, or a built-in: it has none as an ASGI middleware either
        anything = inspect.Parameter("arguments", inspect.Parameter.VAR_POSITIONAL)
        return inspect.Signature([anything, inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)]), {}
    hints = hints_of(middleware)
    parameters = list(signature.parameters.values())
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in (*by_position, inspect.Parameter.VAR_POSITIONAL):
        raise ConfigurationError(f"{name} is no WSGI middleware: its first parameter is not an application")
    rest = parameters[parameters[0].kind in by_position :]
    annotations = {each.name: hints[each.name] for each in rest if each.name in hints}
    # by this name `kinds.judge` and people see that it is a middleware
    first = inspect.Parameter("app", inspect.Parameter.POSITIONAL_ONLY, annotation=ASGIApp)
    if any(each.name == "app" for each in rest):
        first = first.replace(name="application")
    return signature.replace(parameters=[first, *rest], return_annotation=ASGIApp), annotations
