"""What WSGI code gets of its request: the environ, the body when it reads it, and the gateway's variables."""

import asyncio
import io
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from starlette.types import Receive, Scope

from ..errors import PluginError
from ..plugins import Apisix
from ..wire import MAX_PAYLOAD
from .crossing import Crossing
from .environ import build_environ, changed_scope, may_have_unannounced_body
from .inner import YIELD_EVERY, Inner, ReplacedBody, read_all
from .threads import Lane

__all__ = ["Input", "Request", "WSGIApisix"]


class WSGIApisix(Mapping[str, Any]):
    """``environ["asgi_bridge.apisix"]``: as :class:`asgi_bridge.Apisix`, with a ``var`` that blocks.

    Args:
        extension: The extension of the ASGI scope.
        ask: Runs a coroutine in the event loop, and returns its result.
    """

    __slots__ = ("_ask", "_extension")

    def __init__(self, extension: Apisix, ask: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]) -> None:
        self._extension = extension
        self._ask = ask

    def __getitem__(self, key: str) -> Any:
        return self.var if key == "var" else self._extension[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._extension)

    def __len__(self) -> int:
        return len(self._extension)

    @property
    def plugin(self) -> str:
        return self._extension.plugin

    @property
    def phase(self) -> str:
        return self._extension.phase

    @property
    def conf(self) -> Any:
        return self._extension.conf

    @property
    def route_id(self) -> str | None:
        return self._extension.route_id

    @property
    def request_id(self) -> str | None:
        return self._extension.request_id

    def var(self, *names: str) -> Any:
        """Ask the gateway for variables.

        Args:
            names: One variable or more.

        Returns:
            For one name ``bytes | None``. For several, a dict of these, after a single round trip.

        Example::

            consumer = environ["asgi_bridge.apisix"].var("consumer_name")
        """
        extension: Any = self._extension

        async def ask() -> Any:
            return await extension.var(*names)

        return self._ask(ask)


class Input:
    """``wsgi.input``: the request body, which is fetched when somebody first reads it.

    Args:
        fetch: Returns the whole body.
    """

    __slots__ = ("_body", "_file", "_fetch")

    def __init__(self, fetch: Callable[[], bytes]) -> None:
        self._fetch = fetch
        self._file: io.BytesIO | None = None
        self._body = b""

    @property
    def body(self) -> bytes | None:
        """The whole body; None: nobody has read from it."""
        return None if self._file is None else self._body

    def read_ahead(self) -> int:
        """Fetch the body, and return its length in bytes."""
        self._opened()
        return len(self._body)

    def drop(self) -> None:
        """Forget what has been read already."""
        if self._file is not None:
            self._file = io.BytesIO(self._file.read())
            self._body = b""

    def _opened(self) -> io.BytesIO:
        if self._file is None:
            self._body = self._fetch()
            self._file = io.BytesIO(self._body)
        return self._file

    def read(self, size: int | None = -1) -> bytes:
        return self._opened().read(size)

    def readline(self, size: int | None = -1) -> bytes:
        return self._opened().readline(size)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        return self._opened().readlines(hint)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._opened())


class Request:
    """The request of one run, as its WSGI application sees it.

    Args:
        scope, receive: Of the ASGI call.
        crossing: The way from the thread to the event loop.
    """

    def __init__(self, scope: Scope, receive: Receive, crossing: Crossing) -> None:
        self._scope = scope
        self._receive = receive
        self._crossing = crossing
        extension = (scope.get("extensions") or {}).get("apisix")
        self._extension: Apisix | None = extension if isinstance(extension, Apisix) else None
        self._input: Input | None = None
        self._before: dict[str, Any] = {}
        self._passed_on = False

    @property
    def plugin(self) -> str:
        """Name of the plugin, for the log."""
        return "?" if self._extension is None else self._extension.plugin

    def environ(self, **own: Any) -> dict[str, Any]:
        """Make the environ, in the thread.

        Args:
            own: Further keys, without their ``asgi_bridge.``.
        """
        self._input = Input(self._read_body)
        environ = build_environ(self._scope, self._input)
        environ["asgi_bridge.scope"] = self._scope
        environ.update({f"asgi_bridge.{key}": value for key, value in own.items()})
        extension = self._extension
        if extension is not None:
            environ["asgi_bridge.apisix"] = WSGIApisix(extension, self._crossing.ask)
        if may_have_unannounced_body(self._scope) and (
            extension is None or extension._layer.options.request_body  # noqa: SLF001
        ):
            # Trap: Django and others read CONTENT_LENGTH bytes, none without it, whatever wsgi.input_terminated says.
            # A check of the body would see an empty one.
            length = self._input.read_ahead()
            environ.pop("HTTP_TRANSFER_ENCODING", None)
            if length:
                environ["CONTENT_LENGTH"] = str(length)
        self._before = environ.copy()
        return environ

    def changed_scope(self, environ: Mapping[str, Any]) -> Scope:
        """Return the scope with the changes that the application made in `environ`; the same one if it made none.

        Raises:
            PluginError: A changed value fits no scope.
        """
        return changed_scope(self._scope, self._before, environ)

    def receive_of(self, environ: Mapping[str, Any], inner: Inner, lane: Lane) -> Receive:
        """Return the receive of the inner application: our own where the application did not touch the body."""
        stream = environ.get("wsgi.input")
        if isinstance(stream, Input) and stream is self._input:
            body = stream.body
            if body is None:
                self._passed_on = True
                return self._receive
            # an application that reads the body and leaves it in place has only looked at it
            stream.drop()
            return ReplacedBody(inner, lane, lambda: body)
        return ReplacedBody(inner, lane, lambda: read_all(stream))

    def release(self) -> None:
        """Drop the environ and its input, which hold this object: only the garbage collector would free them."""
        self._input = None
        self._before = {}

    def _read_body(self) -> bytes:
        """Return the request body. Once the request was passed on it is empty, since the inner application reads it."""
        if self._passed_on:
            return b""
        body: bytes = self._crossing.ask(self._receive_body)
        return body

    async def _receive_body(self) -> bytes:
        body = bytearray()
        messages = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise OSError("the client went away before the end of the request body")
            body += message.get("body", b"")
            if len(body) > MAX_PAYLOAD:
                raise PluginError(f"the request body is longer than the protocol's {MAX_PAYLOAD} bytes")
            if not message.get("more_body", False):
                return bytes(body)
            messages += 1
            if not messages % YIELD_EVERY:
                await asyncio.sleep(0)
