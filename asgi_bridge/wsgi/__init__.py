"""WSGI applications and middleware as plugins.

Example::

    from werkzeug.middleware.proxy_fix import ProxyFix
    from asgi_bridge.wsgi import WSGIApp, WSGIMiddleware

    bridge.mount("legacy", WSGIApp(flask_app))
    bridge.add_middleware("fix", WSGIMiddleware(ProxyFix))

A WSGI middleware wraps :func:`upstream`, which is a WSGI application too. What the middleware changes in the environ
before it calls :func:`upstream` becomes a change of the request. What it passes to ``start_response``, and the iterable
that it returns, are the plugin's response.

A view of Flask, or any WSGI application, lets a request go on with :func:`pass_on`.

asgiref's ``WsgiToAsgi`` and a2wsgi were measured, and do not fit. ``WsgiToAsgi`` allows ASCII headers only, knows
neither ``write()`` nor ``close()``, and switches threads for each message. Both read the whole body of a request before
anybody asks for it, or switch threads for each chunk of a response. Neither shows what became of the environ.
"""

from .app import WSGIApp, WSGIMiddleware
from .pass_on import pass_on, pass_on_environ
from .request import WSGIApisix
from .run import upstream

__all__ = ["WSGIApisix", "WSGIApp", "WSGIMiddleware", "pass_on", "pass_on_environ", "upstream"]
