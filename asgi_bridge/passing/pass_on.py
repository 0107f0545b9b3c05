"""Lets a request go on from inside of an application."""

from starlette.types import Message, Receive, Scope, Send

from ..errors import PluginError
from ..plugins.extension import layer_of, receive_again, upstream
from .change import Change

__all__ = ["pass_on"]


async def pass_on(scope: Scope, receive: Receive, send: Send, change: Change) -> None:
    """Let the request go on: to the next plugin of the route or, behind the last one, to the upstream.

    The body goes on as the plugin got it, also where the application has read it already, as FastAPI and Django do.

    Args:
        scope: The plugin's, or one that was made from it.
        receive: The plugin's, or one that wraps it.
        send: Gets the response.
        change: What to change.

    Raises:
        PluginError: No plugin is being called, or the change cannot be made.
    """
    if layer_of(scope) is None:
        raise PluginError("pass_on and PassOn work in a plugin's call only; this scope belongs to none")
    scope = change.request(scope)
    # What wraps the plugin's receive, such as Starlette's BaseHTTPMiddleware, gives no body a second time.
    receive = receive_again(scope, receive) if change.body is None else _receive_of(change.body, receive)

    async def changed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": change.response(list(message.get("headers") or ()))}
        await send(message)

    await upstream(scope, receive, changed if change.response_headers else send)


def _receive_of(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives `body`, then the disconnect."""
    given = False

    async def replaced() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return replaced
