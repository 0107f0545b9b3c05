"""`pass_on`: the response of a WSGI application that lets the request go on."""

from collections.abc import Iterable
from typing import Any

from ..passing.change import Change, Values
from .response import StartResponse
from .run import run_of

__all__ = ["PassedOn", "pass_on", "pass_on_environ"]


def pass_on_environ(environ: dict[str, Any], start_response: StartResponse, change: Change) -> Iterable[bytes]:
    """Let the request of an environ go on: :func:`asgi_bridge.wsgi.upstream`, with changes.

    Args:
        environ: As in PEP 3333.
        start_response: As in PEP 3333.
        change: What to change beside what was changed in `environ`.

    Raises:
        PluginError: The environ belongs to no plugin's call, or the change cannot be made.
    """
    return run_of(environ).call_inner(environ, start_response, change)


class PassedOn:
    """A WSGI application that lets the request go on when it is called: see `pass_on`."""

    def __init__(self, change: Change, environ: dict[str, Any] | None) -> None:
        self._change = change
        self._environ = environ

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Let the request go on, and respond with the response to it."""
        return pass_on_environ(self._environ or environ, start_response, self._change)


def pass_on(
    environ: dict[str, Any] | None = None,
    *,
    headers: Values | None = None,
    path: str | None = None,
    query: str | Values | None = None,
    body: str | bytes | None = None,
    response_headers: Values | None = None,
) -> PassedOn:
    """Let the request go on, changed or not: to the next plugin of the route, or to the gateway's upstream.

    The body goes on as it came, also if the application has read it. In the request phase the response is an empty 200,
    since the upstream has not answered yet; what is added to its headers is added to the real response.

    Args:
        environ: Of the request; None: the one that the result is called with. Changes in it count too.
        headers: Request headers to set, by name; None as a value removes the header. A header replaces all lines that
            the client sent under this name, also those with ``_`` for ``-``.
        path: The new path, decoded. It begins with a slash, and includes ``SCRIPT_NAME``.
        query: A text replaces the query; it is percent-encoded, without ``?``. A mapping sets the arguments of these
            names, and leaves the others.
        body: The new request body. A text is sent as UTF-8.
        response_headers: Response headers to set, by name; None as a value removes the header, where the real response
            is there to remove it from. ``set-cookie`` is added to the cookies that the response has.

    Returns:
        A WSGI application, which does it when it is called. Flask and others take one as the response of a view.

    Raises:
        PluginError: A value has the wrong type, is nothing that HTTP can send, or `environ` belongs to no plugin's
            call.

    Example::

        @flask_app.route("/orders")
        def orders():
            return pass_on(headers={"x-user": session["user"]})

        def wsgi_app(environ, start_response):
            return pass_on(environ, headers={"x-seen": "yes"})(environ, start_response)
    """
    if environ is not None:
        run_of(environ)
    return PassedOn(Change(headers, path, query, body, response_headers), environ)
