"""A middleware in front of the upstream. A route's JSON gives its keyword arguments."""

from asgi_bridge import Bridge
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Middleware:
    """Refuses some paths, and greets the upstream in a header.

    Args:
        app: What it wraps: the next plugin of the route, or the upstream.
        greeting: Value of the header.
        closed: Paths that are refused with 403, with all that is beneath them.
    """

    def __init__(self, app: ASGIApp, greeting: str = "hello", closed: tuple[str, ...] = ()) -> None:
        self.app = app
        self.greeting = greeting
        self.closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif any(f"{scope['path']}/".startswith(f"{path.rstrip('/')}/") for path in self.closed):
            await PlainTextResponse("This is closed.\n", 403)(scope, receive, send)
        else:
            # The client's own goes, with an underscore too: some upstreams take both for the same header.
            headers = [line for line in scope["headers"] if line[0].replace(b"_", b"-") != b"x-greeting"]
            headers.append((b"x-greeting", self.greeting.encode()))
            await self.app({**scope, "headers": headers}, receive, send)


bridge = Bridge()
bridge.add_middleware("my-plugin", Middleware, phase="request")
