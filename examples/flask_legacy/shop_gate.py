"""The old shop's checks at the gateway: its hooks, session and URL map decide, its views stay where they are."""

from flask import request
from shop import app
from werkzeug.wrappers import Response

from asgi_bridge.wsgi import upstream

# what the gateway answers by itself; signing in needs nothing but the secret key
HERE = {"login"}


def pass_on(**values: object) -> Response:
    """Instead of a view: the request goes to the upstream, as the hooks have left it."""
    return Response.from_app(upstream, request.environ)


# Hooks run before and after a view, whatever it is, so each request that they let through reaches pass_on. A path that
# the shop does not have is its own 404, and a method that a view does not take its 405.
app.view_functions.update(dict.fromkeys(app.view_functions.keys() - HERE - {"static"}, pass_on))
