"""The request body of a call, which the gateway is asked for when a plugin wants it."""

import asyncio
from collections.abc import Sequence

from starlette.types import Receive

from ..errors import PluginError
from ..plugins.replay import Replay
from ..wire import MAX_PAYLOAD, Info, ReqBody, Var
from .connection import Connection
from .headers import shown
from .scope import Headers

__all__ = ["RequestBody", "UnframedRequestBody"]

_BODY: Sequence[Info] = (ReqBody(),)
_BODY_IF_ANY: Sequence[Info] = (Var(b"server_protocol"), ReqBody(), Var(b"request_body_file"))
"""What is asked for where no content-length tells whether there is a body. The order matters: APISIX writes the file
when it reads the body."""
_FRAMING: Sequence[Info] = (Var(b"http_content_length"), Var(b"http_transfer_encoding"))
_FRAMING_NAMES = (b"content-length", b"transfer-encoding")


class RequestBody:
    """The request body of one call.

    Args:
        headers: Of the request.
        protocol: ``$server_protocol``; None: it is not known.

    Attributes:
        protocol: ``$server_protocol``; None: it is not known.
        content: The body; None: it is not known yet.
        taken: True: a plugin has got it from ``receive``.
    """

    __slots__ = ("_asked", "_headers", "_over", "content", "protocol", "taken")

    def __init__(self, headers: Headers, protocol: bytes | None) -> None:
        self._headers = headers
        self.protocol = protocol
        self._asked: asyncio.Future[list[bytes | None]] | None = None
        self._over: asyncio.Future[None] | None = None
        self.content: bytes | None = None
        self.taken = False

    async def read(self, connection: Connection) -> bytes:
        """Return the whole body, and ask the gateway for it if nobody has done so yet.

        Args:
            connection: To the gateway.

        Raises:
            PluginError: The body cannot be had.
        """
        if self.content is None:
            length, has_body = self._framing()
            if has_body is False or (self._asked is not None and self._asked.done()):
                # Without a step of the loop in between, Starlette's request.is_disconnected(), which cancels a
                # receive that does not return at once, would swallow the body.
                await asyncio.sleep(0)
            if has_body is False:
                self.content = b""
            else:
                if self._asked is None:
                    self._check_length()
                    self._asked = connection.ask(_BODY if length is not None else _BODY_IF_ANY)
                self.content = _content_of(length, await asyncio.shield(self._asked))
        return self.content

    def again(self, receive: Receive) -> Receive:
        """Return a receive that gives the body once more, then what `receive` gives; `receive` if no plugin has it.

        Args:
            receive: The call's own.
        """
        if not self.taken or self.content is None:
            return receive
        return Replay(receive, [{"type": "http.request", "body": self.content, "more_body": False}])

    async def settled(self) -> None:
        """Wait until the gateway has answered, if it was asked."""
        if self._asked is not None and not self._asked.done():
            await asyncio.wait([self._asked])

    async def until_over(self) -> None:
        """Wait until :meth:`end`."""
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._over)

    def end(self) -> None:
        """Note that the call is over: whoever waits for ``http.disconnect`` gets it."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def forget(self) -> None:
        """Drop the body, if a plugin has got it."""
        if self.taken:
            self.content = self._asked = None

    def let_go(self) -> None:
        """Drop what the gateway was asked for. An exception in it holds its frames, and these the call."""
        self._asked = None

    def _framing(self) -> tuple[bytes | None, bool | None]:
        """Return the content-length, and whether there is a body; None: nothing that is known tells.

        Before HTTP/2 a body has a content-length or a transfer-encoding (RFC 9112, 6.3); since then it needs neither.
        """
        index = dict(self._headers)
        length: bytes | None = index.get(b"content-length")
        if length is not None:
            return length, length.strip(b"0") != b""
        if b"transfer-encoding" in index:
            return None, True
        return None, None if self.protocol is None else not self.protocol.startswith(b"HTTP/1.")

    def _check_length(self) -> None:
        for name, value in self._headers:
            if name == b"content-length" and (not value.isdigit() or int(value) > MAX_PAYLOAD):
                raise PluginError(
                    f"the request body has {shown(value)} bytes, and only {MAX_PAYLOAD} can be handed over; "
                    "mount the plugin with request_body=False if it does not change the body"
                )


class UnframedRequestBody(RequestBody):
    """The request body of a response call, which knows only those headers that its plugins want.

    To read the body takes two round trips. The first one tells whether there is a body, and how long it is.
    """

    __slots__ = ("_asked_framing",)

    def __init__(self, headers: Headers, protocol: bytes | None) -> None:
        super().__init__(headers, protocol)
        self._asked_framing: asyncio.Future[list[bytes | None]] | None = None

    async def read(self, connection: Connection) -> bytes:
        """Do what :meth:`RequestBody.read` does, once the gateway has told the request's framing."""
        if self.content is None:
            await self._learn_framing(connection)
        return await super().read(connection)

    async def _learn_framing(self, connection: Connection) -> None:
        if self._is_framed():
            return
        if self._asked_framing is None:
            self._asked_framing = connection.ask(_FRAMING)
        found = await asyncio.shield(self._asked_framing)
        if not self._is_framed():  # by another task meanwhile
            more = [(name, value) for name, value in zip(_FRAMING_NAMES, found, strict=True) if value]
            self._headers = [*self._headers, *more]

    def _is_framed(self) -> bool:
        return any(name in _FRAMING_NAMES for name, _ in self._headers)

    async def settled(self) -> None:
        if self._asked_framing is not None and not self._asked_framing.done():
            await asyncio.wait([self._asked_framing])
        await super().settled()

    def let_go(self) -> None:
        super().let_go()
        self._asked_framing = None


def _content_of(length: bytes | None, answers: list[bytes | None]) -> bytes:
    """Return the request body, out of the gateway's answers to ``_BODY`` or ``_BODY_IF_ANY``.

    Trap: APISIX gives nil for an empty body, and also for one that it could not read from its own temporary file.

    Args:
        length: The content-length; None: there is none, so ``_BODY_IF_ANY`` was asked for.
        answers: Of the gateway.

    Raises:
        PluginError: There is a body, and the gateway could not read it.
    """
    body = answers[0] if length is not None else answers[1]
    if body is None and (length is not None or answers[2]):
        size = f"{shown(length)} bytes" if length is not None else "a body without content-length"
        raise PluginError(
            f"the gateway could not read the request body ({size}): its error log says why; is its disk full, or "
            "client_body_temp_path not readable?"
        )
    return body or b""
