"""uvicorn's HTTP protocols, changed to give the gateway the request target as the client wrote it."""

import asyncio
import collections
import functools
import importlib.util
from typing import Any, cast

import h11
from uvicorn.protocols.http import h11_impl

from .nginx.request import TARGET

__all__ = ["allow_all_statuses", "http_protocol"]


class _StatusLines(dict[int, bytes]):
    def __missing__(self, status: int) -> bytes:
        return b"HTTP/1.1 %d \r\n" % status


@functools.cache
def allow_all_statuses() -> None:
    """Let uvicorn send statuses above 599, without a phrase: APISIX sends them, so plugins may use them.

    uvicorn's tables end at 599. A status that they do not have would break the client's connection.
    """
    h11_impl.STATUS_PHRASES = collections.defaultdict(bytes, h11_impl.STATUS_PHRASES)
    if importlib.util.find_spec("httptools") is not None:
        from uvicorn.protocols.http import httptools_impl

        httptools_impl.STATUS_LINE = _StatusLines(httptools_impl.STATUS_LINE)


def http_protocol(parser: str = "auto") -> type[asyncio.Protocol]:
    """Give the HTTP protocol to serve the gateway with: ``uvicorn.Config(app, http=http_protocol())``.

    Args:
        parser: ``h11``, ``httptools``, or ``auto``: httptools where it is installed.
    """
    if parser == "httptools" or (parser == "auto" and importlib.util.find_spec("httptools") is not None):
        return _with_httptools()
    return _H11Protocol


class _Connection(h11.Connection):
    """An h11 connection that remembers the target of its current request."""

    target = b""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.target = event.target
        return event


class _H11Protocol(h11_impl.H11Protocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        size = self.conn._max_incomplete_event_size  # noqa: SLF001  # h11 does not publish it
        self.conn = _Connection(h11.SERVER, size)

    def handle_events(self) -> None:
        super().handle_events()
        if self.scope is not None:
            # the call has not begun, and h11 reads the next request only after the answer to this one
            cast("Any", self.scope)["extensions"] = {TARGET: cast("Any", self.conn).target}

    def _unsupported_upgrade_warning(self) -> None:
        """Do nothing: the gateway logs the handshake itself."""


@functools.cache
def _with_httptools() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http import httptools_impl

    class HttpToolsProtocol(httptools_impl.HttpToolsProtocol):
        def on_headers_complete(self) -> None:
            cast("Any", self.scope)["extensions"] = {TARGET: self.url}
            super().on_headers_complete()

        def _unsupported_upgrade_warning(self) -> None:
            """Do nothing: the gateway logs the handshake itself."""

    return HttpToolsProtocol
