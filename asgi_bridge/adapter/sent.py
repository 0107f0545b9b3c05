"""What a chain has sent of its response."""

from typing import TYPE_CHECKING, Any

from starlette.types import Message

from ..errors import PluginError
from ..wire import MAX_PAYLOAD
from .answer import check_status
from .upstream_response import Response, UpstreamBody
from .way_back import checked_headers

if TYPE_CHECKING:
    from .scope import Headers

__all__ = ["Sent"]


class Sent:
    """The response of a chain, as far as the chain has sent it.

    Args:
        complete: True: the call is answered already, so no message can come any more.

    Attributes:
        status: Its status; 0: ``http.response.start`` has not come yet.
        headers: Its headers, names in lower case.
        content: Its body so far.
        complete: True: the last message has come, and the call is answered.
        upstream: The upstream's response, once the chain has got it.
        wants_body: True: a plugin that handed on its own `send` wants the upstream's body.
        needs_body: True: such a plugin is mounted with ``on_error="closed"``, so the call fails without that body.
    """

    __slots__ = ("complete", "content", "headers", "needs_body", "status", "upstream", "wants_body")

    def __init__(self, complete: bool) -> None:
        self.status = 0
        self.headers: Headers = []
        self.content: bytes | bytearray = b""
        self.complete = complete
        self.upstream: Response | None = None
        self.wants_body = False
        self.needs_body = False

    def take(self, message: Message) -> bool:
        """Take an ASGI message of the response.

        Returns:
            True: it was the last one.

        Raises:
            PluginError: The message is not one that an HTTP response may have there, or something in it is wrong.
        """
        kind = message["type"]
        if kind == "http.response.start":
            if self.status:
                raise PluginError("http.response.start twice")
            status = check_status(message.get("status"))
            headers = message.get("headers")
            if headers:
                upstream = self.upstream
                self.headers = checked_headers(headers, () if upstream is None else upstream.headers)
            self.status = status
            return False
        if kind == "http.response.body":
            if not self.status:
                raise PluginError("http.response.body before http.response.start")
            body = message.get("body")
            if body:
                if type(body) is bytes and not self.content and len(body) <= MAX_PAYLOAD:
                    self.content = body  # the usual case: one message
                else:
                    self._add(body)
            return not message.get("more_body", False)
        if kind == "http.response.debug":
            return False
        raise PluginError(f"a message of type {kind!r:.200} is none of an HTTP response")

    def _add(self, body: Any) -> None:
        if type(body) is not bytes:
            body = _as_bytes(body)
        if len(self.content) + len(body) > MAX_PAYLOAD:
            raise PluginError(f"the response body is longer than the protocol's {MAX_PAYLOAD} bytes")
        if not self.content:
            self.content = body
            return
        if isinstance(self.content, bytes):
            self.content = bytearray(self.content)
        self.content += body

    def response(self) -> Response:
        """Return the response, which is complete.

        Raises:
            PluginError: Its body was changed by a plugin that is mounted with ``response_body=False``.
        """
        body: bytes | UpstreamBody = bytes(self.content)
        upstream = self.upstream
        if upstream is not None and isinstance(upstream.body, UpstreamBody):
            if body and not upstream.body.too_long:
                raise PluginError("the response body was changed by a plugin that is mounted with response_body=False")
            body = upstream.body
        return Response(self.status, self.headers, body)


def _as_bytes(body: Any) -> bytes:
    try:
        return bytes(memoryview(body))  # bytes() alone takes a number for a length
    except TypeError:
        raise PluginError(f"the body of http.response.body is {type(body).__name__}; it has to be bytes") from None
