"""The old shop's checks at the gateway. Its hooks, session and URL map run there; its views remain in the shop."""

from typing import Any

from shop import app

from asgi_bridge.wsgi import pass_on

# Views that answer at the gateway. The login needs nothing but the secret key.
HERE = {"login"}


def send_on(**values: object) -> Any:
    """Send the request to the upstream, in place of a view."""
    return pass_on()


# Flask runs the hooks before and after every view, so each request that they accept reaches send_on. Flask itself
# answers 404 to an unknown path, and 405 to a method that a view does not have.
app.view_functions.update(dict.fromkeys(app.view_functions.keys() - HERE - {"static"}, send_on))
