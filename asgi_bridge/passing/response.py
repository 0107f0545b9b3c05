"""`PassOn`: the response of a Starlette or FastAPI endpoint that lets the request go on."""

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .change import Change, Values
from .pass_on import pass_on

__all__ = ["PassOn"]


class PassOn(Response):
    """Response of a Starlette or FastAPI endpoint that lets the request go on, changed or not.

    The request goes to the next plugin of the route or, behind the last one, to the gateway's upstream. Its response
    becomes the response of the endpoint. In the request phase that is an empty 200, since the upstream has not answered
    yet; what is added to its headers is added to the real response.

    The body goes on as it came, also if the endpoint has read it. Headers and cookies that are set on this object, as
    on any Response, are set on the response.

    Args:
        headers: Request headers to set, by name; None as a value removes the header. A header replaces all lines that
            the client sent under this name, also those with ``_`` for ``-``: CGI and WSGI upstreams take both for the
            same header.
        path: The new path, decoded. It begins with a slash.
        query: A text replaces the query; it is percent-encoded, without ``?``. A mapping sets the arguments of these
            names, and leaves the others.
        body: The new request body. A text is sent as UTF-8.
        response_headers: Response headers to set, by name; None as a value removes the header, where the real response
            is there to remove it from. ``set-cookie`` is added to the cookies that the response has.
        background: Runs after the response.

    Raises:
        PluginError: A value has the wrong type, or is nothing that HTTP can send.

    Example::

        @app.get("/orders")
        async def orders(user: Annotated[User, Depends(caller)]) -> Response:
            return PassOn(headers={"x-user": user.name, "authorization": None})
    """

    def __init__(
        self,
        *,
        headers: Values | None = None,
        path: str | None = None,
        query: str | Values | None = None,
        body: str | bytes | None = None,
        response_headers: Values | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        self._change = Change(headers, path, query, body, response_headers)
        super().__init__(background=background)
        self.raw_headers = [(name, value) for name, values in self._change.response_headers.items() for value in values]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request go on, and send the response to it."""
        own = self._change.response_headers
        changes: dict[bytes, list[bytes]] = {name: [] for name, values in own.items() if not values}
        for name, value in self.raw_headers:
            changes.setdefault(name, []).append(value)
        self._change.response_headers = changes
        await pass_on(scope, receive, send, self._change)
        if self.background is not None:
            await self.background()
