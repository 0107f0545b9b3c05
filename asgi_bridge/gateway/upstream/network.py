"""Requests over TCP, which are written byte for byte as they are given.

An HTTP library rightly refuses some requests that nginx sends: one without Host, which a plugin has deleted, or one
whose target has bytes over 127, since post-resp sends the decoded path. So this module writes requests itself. h11
reads the responses.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import h11

from ..pool import Pool
from . import BrokenAnswer, CannotConnect, Request, Response, UpstreamError, UpstreamTimeout
from .tls import client_context

__all__ = ["NetworkUpstream"]

READ_SIZE = 64 * 1024
"""Maximum number of bytes that are read at a time."""

MAX_HEAD = 100 * 1024
"""Maximum size of a response's head, in bytes."""

MAX_IDLE = 32
"""Number of idle connections to one server that are kept."""

IDLE_SECONDS = 60.0
"""How long an idle connection is kept, as by ``keepalive_pool`` of APISIX."""

_NOT_REPEATED = frozenset({"POST", "LOCK", "PATCH"})


class _Connection:
    """A connection, and the parser of the answer that it carries."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = h11.Connection(h11.CLIENT)

    @property
    def reusable(self) -> bool:
        whole = self._parser.their_state is h11.DONE and not self._parser.trailing_data[0]
        return whole and not self._reader.at_eof()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def ask(self, request: Request) -> h11.Response:
        """Write the request, and read the head of its answer. Without one the connection is closed."""
        # h11 has to know the method, because a response to HEAD has no body
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._parser.send(h11.Request(method=request.method, target=b"/", headers=[(b"Host", b"-")]))
        self._parser.send(h11.EndOfMessage())
        lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.target)]
        lines += [name + b": " + value for name, value in request.headers]
        try:
            # an upstream may answer before it has read all, and close
            with contextlib.suppress(OSError):
                self._writer.write(b"\r\n".join([*lines, b"", request.body]))
                await self._writer.drain()
            while not isinstance(event := await self._next_event(request.upstream.read), h11.Response):
                if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                    raise BrokenAnswer("the upstream switched protocols unasked")
        except BaseException:
            await self.close()
            raise
        return event

    async def chunks(self, seconds: float) -> AsyncIterator[bytes]:
        """Read the body, and wait so many seconds for each part."""
        while isinstance(event := await self._next_event(seconds), h11.Data):
            yield bytes(event.data)

    async def _next_event(self, seconds: float) -> h11.Event:
        try:
            while (event := self._parser.next_event()) is h11.NEED_DATA:
                async with asyncio.timeout(seconds):
                    data = await self._reader.read(READ_SIZE)
                if not data and self._parser.their_state is h11.SEND_RESPONSE:
                    raise BrokenAnswer("the upstream closed the connection without an answer")
                self._parser.receive_data(data)
        except TimeoutError as exc:
            raise UpstreamTimeout("the upstream sent nothing in time") from exc
        except (OSError, h11.RemoteProtocolError) as exc:
            raise BrokenAnswer(str(exc)) from exc
        assert isinstance(event, h11.Event)
        return event


class NetworkUpstream:
    """Sends requests to the servers that they name.

    Args:
        pool: Keeps idle connections.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @contextlib.asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[Response]:
        """Send a request. If the server has closed an idle connection, try a new one, once.

        Raises:
            UpstreamError: There is no answer.
        """
        upstream = request.upstream
        alone = request.fetch or bool(upstream.client_cert)
        server = None if alone else (upstream.scheme, request.node)
        connection, head = await self._answered(request, None if alone else await self._pool.take(server))
        try:
            yield Response(head.status_code, head.headers.raw_items(), connection.chunks(upstream.read))
        finally:
            if alone:
                await connection.close()
            else:
                await self._pool.put(server, connection, size=MAX_IDLE, seconds=IDLE_SECONDS)

    async def _answered(self, request: Request, idle: _Connection | None) -> tuple[_Connection, h11.Response]:
        if idle is not None:
            try:
                return idle, await idle.ask(request)
            except UpstreamError as exc:
                # nginx tries again after a kept connection broke, unless the method forbids it
                if request.method in _NOT_REPEATED or isinstance(exc, UpstreamTimeout):
                    raise
        try:
            connection = await _connect(request)
            return connection, await connection.ask(request)
        except UpstreamError as exc:
            exc.tries = 1 if idle is None else 2
            raise


async def _connect(request: Request) -> _Connection:
    upstream, tls = request.upstream, None
    if upstream.scheme == "https":
        # APISIX does not check certificates of upstreams unless it is told to; lua-resty-http does
        certificate = upstream.client_cert, upstream.client_key
        tls = ssl.create_default_context() if request.fetch else client_context(*certificate)
    try:
        async with asyncio.timeout(upstream.connect):
            return _Connection(*await asyncio.open_connection(request.node.host, request.node.port, ssl=tls))
    except TimeoutError as exc:
        raise UpstreamTimeout("the upstream could not be reached in time") from exc
    except ssl.SSLCertVerificationError as exc:
        why = "the fetch of ext-plugin-post-resp checks the upstream's certificate, plain proxying does not"
        raise CannotConnect(f"{exc}; {why}") from exc
    except OSError as exc:
        raise CannotConnect(str(exc)) from exc
