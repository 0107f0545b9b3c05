"""An HTTP/1.1 transport for httpx2 that writes the head of a request byte for byte as it is given.

httpx2's own transport leaves requests to h11, which rightly refuses what nginx sends all the same: a request without
Host (a plugin has deleted it), a target with bytes over 127 (post-resp sends the decoded path). So the request is
written here, and h11 reads the response.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator

import h11
import httpx2

from asgi_bridge.gateway.upstream.tls import client_context

__all__ = ["NetworkTransport"]

READ_SIZE = 64 * 1024
MAX_HEAD = 100 * 1024
"""So large may a response's head be, in bytes."""

MAX_IDLE = 32
IDLE_SECONDS = 60.0
"""How many idle connections are kept for how long: ``keepalive_pool`` of APISIX keeps them for 60 s."""

_NOT_REPEATED = frozenset({"POST", "LOCK", "PATCH"})


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.idle_until = 0.0

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class _Body(httpx2.AsyncByteStream):
    """The body of a response; the connection goes back to the pool, or is closed, when it ends."""

    def __init__(
        self, transport: "NetworkTransport", origin: tuple[str, str, int] | None, read_timeout: float | None
    ) -> None:
        self._transport = transport
        self._origin = origin
        self._timeout = read_timeout
        self.connection: _Connection | None = None
        self.parser: h11.Connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        connection = self.connection
        if connection is None:
            return
        while True:
            event = await _next_event(connection, self.parser, self._timeout)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                break
        if self._origin is not None and self.parser.their_state is h11.DONE and not self.parser.trailing_data[0]:
            self.connection = None
            await self._transport.keep(self._origin, connection)

    async def aclose(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close()


async def _next_event(connection: _Connection, parser: h11.Connection, seconds: float | None) -> h11.Event:
    while True:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as exc:
            raise httpx2.RemoteProtocolError(str(exc)) from exc
        if event is h11.NEED_DATA:
            try:
                async with asyncio.timeout(seconds):
                    data = await connection.reader.read(READ_SIZE)
            except TimeoutError as exc:
                raise httpx2.ReadTimeout("the upstream sent nothing in time") from exc
            except OSError as exc:
                raise httpx2.ReadError(str(exc)) from exc
            if not data and parser.their_state is h11.SEND_RESPONSE:
                raise httpx2.RemoteProtocolError("the upstream closed the connection without an answer")
            parser.receive_data(data)
        else:
            assert isinstance(event, h11.Event)
            return event


class NetworkTransport(httpx2.AsyncBaseTransport):
    """Requests over TCP, with a small pool of idle connections.

    The target is ``extensions["target"]``, timeouts are ``extensions["timeout"]``, both as httpx2 has them;
    ``extensions["keep"]`` False: a connection of its own; ``extensions["verify"]`` True: the server's certificate is
    checked, whatever `verify` says; ``extensions["certificate"]`` is a certificate and its key, in PEM, that the server
    is shown. Connections are kept between `start` and `aclose` only, for the reason that `RunnerClient` gives.

    Args:
        verify: True or a context: check the certificate of every server; False: where a request asks for it.
    """

    def __init__(self, verify: ssl.SSLContext | bool = False) -> None:
        # APISIX does not verify the certificates of upstreams unless told to
        self._verify = verify
        self._keeping = False
        self._idle: dict[tuple[str, str, int], list[_Connection]] = {}

    def start(self) -> None:
        """Begin to keep idle connections."""
        self._keeping = True

    async def aclose(self) -> None:
        """Close idle connections and keep no more."""
        self._keeping = False
        for connections in self._idle.values():
            while connections:
                await connections.pop().close()

    async def keep(self, origin: tuple[str, str, int], connection: _Connection) -> None:
        """Take a connection back."""
        idle = self._idle.setdefault(origin, [])
        if self._keeping and len(idle) < MAX_IDLE:
            connection.idle_until = time.monotonic() + IDLE_SECONDS
            idle.append(connection)
        else:
            await connection.close()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. An idle connection that turns out closed is made up for by a new one, once.

        Raises:
            httpx2.TransportError: there is no answer. Its attribute ``tries`` says how often the request was sent.
        """
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        origin = url.scheme, url.host, port
        keep = request.extensions.get("keep", True)
        idle = self._idle.get(origin, []) if keep else []
        tries = 0
        while True:
            tries += 1
            connection = None
            while idle and connection is None:
                connection = idle.pop()
                if connection.reader.at_eof() or time.monotonic() > connection.idle_until:
                    await connection.close()
                    connection = None
            reused = connection is not None
            try:
                if connection is None:
                    connection = await self._connect(origin, request)
                return await self._exchange(connection, origin, request)
            except httpx2.TransportError as exc:
                # nginx tries again after a kept connection broke, unless the method forbids it
                if reused and request.method not in _NOT_REPEATED and not isinstance(exc, httpx2.TimeoutException):
                    idle = []
                    continue
                exc.tries = tries  # type: ignore[attr-defined]
                raise

    async def _connect(self, origin: tuple[str, str, int], request: httpx2.Request) -> _Connection:
        scheme, host, port = origin
        tls: ssl.SSLContext | None = None
        asked = request.extensions.get("verify", False)
        if scheme == "https":
            tls = self._verify if isinstance(self._verify, ssl.SSLContext) else ssl.create_default_context()
            if self._verify is False and not asked:
                tls = client_context(*request.extensions.get("certificate", ("", "")))
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("connect")):
                reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        except TimeoutError as exc:
            raise httpx2.ConnectTimeout("the upstream could not be reached in time") from exc
        except ssl.SSLCertVerificationError as exc:
            why = "; the fetch of ext-plugin-post-resp checks the upstream's certificate, plain proxying does not"
            raise httpx2.ConnectError(f"{exc}{why if asked else ''}") from exc
        except OSError as exc:
            raise httpx2.ConnectError(str(exc)) from exc
        return _Connection(reader, writer)

    async def _exchange(
        self, connection: _Connection, origin: tuple[str, str, int], request: httpx2.Request
    ) -> httpx2.Response:
        seconds = request.extensions.get("timeout", {}).get("read")
        target: bytes = request.extensions.get("target", request.url.raw_path)
        head = [request.method.encode(), b" ", target, b" HTTP/1.1\r\n"]
        for name, value in request.headers.raw:
            head += [name, b": ", value, b"\r\n"]
        head.append(b"\r\n")
        # What h11 has to know of the request: its method, because of HEAD.
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        parser.send(h11.Request(method=request.method, target=b"/", headers=[(b"Host", b"-")]))
        parser.send(h11.EndOfMessage())
        body = _Body(self, origin if request.extensions.get("keep", True) else None, seconds)
        body.parser = parser
        try:
            connection.writer.write(b"".join(head))
            try:
                assert isinstance(request.stream, httpx2.AsyncByteStream)
                async for chunk in request.stream:
                    connection.writer.write(chunk)
                    await connection.writer.drain()
            except OSError:
                # the upstream may have answered before it closed
                pass
            while True:
                event = await _next_event(connection, parser, seconds)
                if isinstance(event, h11.Response):
                    break
                if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                    raise httpx2.RemoteProtocolError("the upstream switched protocols unasked")
        except BaseException:
            await connection.close()
            raise
        body.connection = connection
        headers = event.headers.raw_items()
        return httpx2.Response(
            event.status_code, headers=headers, stream=body, extensions={"http_version": b"HTTP/1.1"}
        )
