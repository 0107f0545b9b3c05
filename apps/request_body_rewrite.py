"""``request-body-rewrite``: replaces the request body. Configured as the example of the Go runner."""

from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import upstream

from ._shared.conf import Conf, Text

__all__ = ["RequestBodyRewriteConf", "request_body_rewrite"]

_OF_THE_OLD = frozenset((b"content-length", b"content-encoding", b"transfer-encoding"))
"""Headers that describe the length and the encoding of the client's body."""


class RequestBodyRewriteConf(Conf):
    """What ``request-body-rewrite`` takes."""

    new_body: Text = Field(
        default="",
        description="The new body. Empty: the request goes on with the body that it has.",
        examples=["another body"],
    )


def request_body_rewrite(conf: RequestBodyRewriteConf) -> ASGIApp:
    """Replace the body and the headers that describe it, for every method.

    Args:
        conf: The route's configuration.
    """
    if not conf.new_body:
        return upstream
    body = conf.new_body.encode()

    async def replace(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [header for header in scope["headers"] if header[0] not in _OF_THE_OLD]
        scope["headers"] = [*headers, (b"content-length", b"%d" % len(body))]
        received = False

        async def replaced() -> Message:
            nonlocal received
            if not received:
                received = True
                return {"type": "http.request", "body": body, "more_body": False}
            while True:  # skip the client's body, up to the disconnect
                message = await receive()
                if message["type"] != "http.request":
                    return message

        await upstream(scope, replaced, send)

    return replace
