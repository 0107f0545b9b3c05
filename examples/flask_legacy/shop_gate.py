"""The old shop's checks at the gateway. Its hooks, session and URL map run there; its views remain in the shop."""

from flask import request
from shop import app
from werkzeug.wrappers import Response

from asgi_bridge.wsgi import upstream

# Views that answer at the gateway. The login needs nothing but the secret key.
HERE = {"login"}


def pass_on(**values: object) -> Response:
    """Send the request to the upstream, in place of a view."""
    return Response.from_app(upstream, request.environ)


# Flask runs the hooks before and after every view, so each request that they accept reaches pass_on. Flask itself
# answers 404 to an unknown path, and 405 to a method that a view does not have.
app.view_functions.update(dict.fromkeys(app.view_functions.keys() - HERE - {"static"}, pass_on))
