"""An application around the gateway that keeps a record of each request."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..gateway import Call
from ..gateway.exchange import Exchange
from ..gateway.nginx.request import target_of
from ..gateway.upstream import Request, Response
from ..gateway.watch import watching
from ..wire.messages import Message as Frame
from .record import Exchanged, Record, Upstreamed
from .store import Records

__all__ = ["AGAIN", "Again", "Capture", "GatewayLines", "observe"]

AGAIN = "asgi_bridge.again"
"""The ASGI extension of a request that repeats another one; its value is an `Again`."""

_current: ContextVar[Record | None] = ContextVar("asgi_bridge.inspector.record", default=None)


@dataclass(frozen=True, slots=True)
class Again:
    """A request that repeats another one.

    Attributes:
        of: Number of the record of the other one.
        made: Gets the number of its own record.
    """

    of: int
    made: asyncio.Future[int]


class Capture:
    """The gateway, with a record of each request.

    Args:
        app: The gateway.
        records: Where the records go.
    """

    def __init__(self, app: ASGIApp, records: Records) -> None:
        self._app = app
        self._records = records

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        client = Exchanged(scope["method"], target_of(scope), headers)
        again: Again | None = (scope.get("extensions") or {}).get(AGAIN)
        record = self._records.begin(client, None if again is None else again.of)
        if again is not None:
            again.made.set_result(record.number)
        whole = False

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                client.body.add(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal whole
            if message["type"] == "http.response.start":
                client.status = message["status"]
                client.response_headers = [(bytes(name), bytes(value)) for name, value in message["headers"]]
            elif message["type"] == "http.response.body":
                client.response_body.add(message.get("body", b""))
                whole = not message.get("more_body", False)
            await send(message)

        watch = _Watch(record, self._records)
        watching.set(watch)  # the server has a task of its own for each request
        _current.set(record)
        try:
            await self._app(scope, receiving, sending)
        except BaseException as exc:
            record.error = f"the connection was broken off: {type(exc).__name__}: {exc}"
            raise
        finally:
            if not whole and record.error is None:
                record.error = "the client went away before it had the whole response"
            client.body, client.response_body = record.keep(client.body), record.keep(client.response_body)
            for each in record.upstreams:
                each.response_body = record.keep(each.response_body)
            record.finished = time.monotonic()
            watch.finish()
            self._records.explain(record)
            self._records.changed(record)


def observe(call: Call) -> None:
    """Take what the gateway saw of a call of the runner: an observer of :class:`..gateway.GatewayApp`."""
    record = _current.get()
    if record is not None:
        record.add_call(call)


class _Watch:
    """Looks at one exchange (:class:`..gateway.watch.Watch`)."""

    def __init__(self, record: Record, records: Records) -> None:
        self._record = record
        self._records = records
        self._exchange: Exchange | None = None

    def began(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def frame(self, message: Frame, size: int, *, sent: bool) -> None:
        record = self._record
        calls = len(record.calls)
        record.add_frame(message, size, sent=sent)
        if len(record.calls) != calls:
            self._find()
            self._records.calls(record, record.calls[-1])
            self._records.changed(record)

    def requested(self, request: Request) -> None:
        self._find()
        record, node = self._record, request.node
        body = record.keep(request.body)
        to = f"{request.upstream.scheme}://{node.host}:{node.port}"
        record.upstreams.append(
            Upstreamed(request.method, request.target, request.headers, body, to=to, fetch=request.fetch)
        )
        self._records.changed(record)

    def responded(self, response: Response) -> None:
        upstream = self._record.upstreams[-1]
        upstream.head = time.monotonic()
        upstream.status, upstream.response_headers = response.status, response.headers

        async def chunks(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for part in parts:
                upstream.response_body.add(part)
                yield part

        response.chunks = chunks(response.chunks)

    def failed(self, reason: str) -> None:
        self._record.upstreams[-1].error = reason

    def finish(self) -> None:
        """Keep what the gateway found, and let the rest of it go."""
        self._find()
        self._exchange = None

    def _find(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        route = exchange.route
        builtin = {*exchange.global_rules.plugins.builtin, *exchange.plugins.plugins.builtin}
        self._record.about.update(
            route=None if route is None else route.id,
            route_name=None if route is None else route.name,
            own=sorted(builtin),
            websocket=exchange.request.upgrades_to_websocket,
            request_id=exchange.request.id,
        )


class GatewayLines(logging.Handler):
    """Gives the gateway's log lines to the records of their requests, and keeps those from the terminal."""

    def __init__(self, records: Records) -> None:
        super().__init__(logging.INFO)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        """Give a log record to the request that it is about, if there is one."""
        found = _current.get()
        if found is not None:
            found.add_line(
                {
                    "at": time.monotonic(), "kind": "log", "text": record.getMessage(), "plugin": "",
                    "level": record.levelname.lower(), "logger": record.name,
                }
            )  # fmt: skip
            record.told = record.levelno >= logging.WARNING  # the block has these; others were asked for

    @staticmethod
    def unless_told(record: logging.LogRecord) -> bool:
        """Whether a log record is about no request: a filter for other handlers."""
        return not getattr(record, "told", False)

    def start(self) -> None:
        """Begin to listen to the gateway's logger."""
        logger: Any = logging.getLogger("asgi_bridge")
        logger.handlers.insert(0, self)  # before those that `unless_told` is a filter of
        for handler in logger.handlers[1:]:
            handler.addFilter(self.unless_told)
