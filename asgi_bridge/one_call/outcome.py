"""What came of the call: its answer, and what each plugin did."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from ..plugins import Layer
from ..plugins.reasons import reason_of
from ..plugins.replay import Replay
from ..wire import HTTPReqCallResp, HTTPRespCallResp, Info

__all__ = ["Outcome", "Response", "Watch"]

Headers = list[tuple[bytes, bytes]]


@dataclass
class Response:
    """A response, as a plugin sends it.

    Attributes:
        status: Its status.
        headers: Its headers, names in lower case.
        body: Its body so far.
    """

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes = b""


class Watch:
    """The place of one plugin in the chain. It is an application around the plugin's, which it changes nothing of.

    Args:
        layer: The plugin's, whose application it takes the place of.

    Attributes:
        name: Of the plugin.
        scope: A copy of the scope that the plugin got, without the mount's ``root_path``; None: it was not called.
        body: What the plugin got of the request body; None: it has not read it.
        sent: The response that it sent; None: it has sent nothing, or left the response to the plugins inside.
        fault: The exception that came out of it, or of a plugin inside of it; None: there was none.
    """

    def __init__(self, layer: Layer) -> None:
        self.name = layer.name
        self._layer = layer
        self._app = layer.app
        layer.app = self
        self.scope: Scope | None = None
        self.body: bytes | None = None
        self.sent: Response | None = None
        self.fault: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the plugin's application."""
        self.scope = copied(self._layer.outside(scope) if self._layer.root else scope)

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self.body = (self.body or b"") + bytes(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            self._note(message)  # before a plugin outside changes it in place
            await send(message)

        # the runner takes another receive or send than these for a change that the plugin makes
        extension = scope["extensions"]["apisix"]
        own = Replay(receiving)
        extension._receive, extension._send = own, sending
        try:
            await self._app(scope, own, sending)
        except Exception as exc:
            self.fault = reason_of(exc)
            raise

    def _note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers") or ()]
            self.sent = Response(message["status"], headers)
        elif message["type"] == "http.response.body" and self.sent is not None:
            self.sent.body += bytes(message.get("body", b""))


def copied(scope: Mapping[str, Any]) -> Scope:
    """Return a copy of a scope that later changes of it do not reach."""
    return {**scope, "headers": [(bytes(name), bytes(value)) for name, value in scope["headers"]]}


@dataclass
class Outcome:
    """What came of a call.

    Attributes:
        asked: What the runner asked for in the middle of the call, in its order.
        answer: The answer; None: there is none, and `error` says why.
        error: Why there is no answer; None: there is one.
        milliseconds: Time of the call.
        watches: What each plugin did, outermost first; empty: the call was made in another process.
        parked: The call waits for its response call, which does not come here.
        passed_on: The scope that the innermost plugin passed on; None: it passed none on.
        passed_body: The request body that it passed on; None: nobody has asked for it.
    """

    asked: list[Info] = field(default_factory=list)
    answer: HTTPReqCallResp | HTTPRespCallResp | None = None
    error: str | None = None
    milliseconds: float = 0.0
    watches: list[Watch] = field(default_factory=list)
    parked: bool = False
    passed_on: Scope | None = None
    passed_body: bytes | None = None
