"""WSGI applications and middleware as plugins.

Example::

    from werkzeug.middleware.proxy_fix import ProxyFix
    from asgi_bridge.wsgi import WSGIApp, WSGIMiddleware

    bridge.mount("legacy", WSGIApp(flask_app))
    bridge.add_middleware("fix", WSGIMiddleware(ProxyFix))

Whoever a WSGI application wraps is :func:`upstream`, a WSGI application: what it changes in the environ before it calls
that becomes a change of the request, and its own ``start_response`` and iterable are the plugin's response.

asgiref's ``WsgiToAsgi`` and a2wsgi were measured and do not fit: the first allows ASCII headers only, knows neither
``write()`` nor ``close()``, and crosses threads for each message; both take the whole body of a request, or a queue and
a thread hop for each chunk of a response; and neither tells what became of the environ.
"""

from .app import WSGIApp, WSGIMiddleware
from .call import upstream
from .request import WSGIApisix

__all__ = ["WSGIApisix", "WSGIApp", "WSGIMiddleware", "upstream"]
