"""uvicorn's protocol class for the gateway's connections.

uvicorn builds one for each connection, with the keywords ``config, server_state, app_state, _loop``, and expects it to
keep ``server_state.connections``, ``tasks`` and ``total_requests``, and to offer ``shutdown()``.
"""

import asyncio
import fcntl
import logging
import struct
import termios
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from ..adapter import Answer, Call, RequestCall, ResponseCall
from ..errors import ConfigurationError, PluginError, RemoteProtocolError
from ..plugins import Chain
from ..wire import (
    ErrCode,
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPRespCallReq,
    Info,
    Message,
    PrepareConfReq,
    PrepareConfResp,
    Role,
    Session,
)
from .runner import Runner

__all__ = ["RunnerProtocol", "runner_of"]

logger = logging.getLogger("asgi_bridge.server")
access_logger = logging.getLogger("asgi_bridge.access")

_UNAVAILABLE = ErrResp(ErrCode.SERVICE_UNAVAILABLE)
READ_SIZE = 16 * 1024
"""Bytes of a connection's read buffer, on asyncio."""


class RunnerProtocol(asyncio.Protocol, asyncio.BufferedProtocol):
    """One connection of the gateway: one call at a time, as :class:`~asgi_bridge.wire.Session` has it.

    Both kinds of protocol, because each loop is quicker with another one, and takes that one. asyncio reads into a
    buffer of ours, where it would allocate 256 KiB anew for each read of a plain protocol, which can cost more than
    everything else in a call; uvloop hands over the bytes, which saves a call and a copy.

    Tasks do not start eagerly (Python 3.12): under load the loop reads what all connections brought before it runs the
    calls, and that many times the same code in a row is a fifth quicker than each call from end to end.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any] | None = None,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._runner = runner_of(config)
        self._server_state = server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._view: memoryview | None = None
        self._session = Session(Role.RUNNER)
        self._call: Call | None = None
        self._busy = False
        self._closing = False
        self._full = False
        self._paused = False
        self._asks: deque[tuple[asyncio.Future[list[bytes | None]], int, list[bytes | None]]] = deque()
        self._started = 0.0

    # what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        if self._runner.stopping:
            # accepted out of the backlog at the last moment, when uvicorn had told all others
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_state.connections.discard(self)
        self._forsake("the gateway has closed the connection")
        if self._call is not None:
            self._call.disconnect()
            self._call = None

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._view is None:
            self._view = memoryview(bytearray(READ_SIZE))
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        assert self._view is not None
        self.data_received(self._view[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        session = self._session
        session.receive_data(data)
        while not self._transport.is_closing():
            try:
                message = session.next_message()
            except RemoteProtocolError as exc:
                self._broken(exc)
                continue
            if message is None:
                return
            if type(message) is HTTPReqCallReq:
                self._begin(message)
            else:
                self._handle(message)

    def eof_received(self) -> None:
        """The gateway has closed: it never closes its side only, so nobody reads an answer any more."""
        self._session.receive_eof()
        try:
            self._session.next_message()
        except RemoteProtocolError as exc:
            logger.warning("connection: %s", exc)

    def pause_writing(self) -> None:
        """The gateway does not read: it may not ask for more meanwhile, or its answers would pile up here."""
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def shutdown(self) -> None:
        """uvicorn is stopping: ends an idle connection now, one with a call after its answer."""
        self._closing = True
        if not self._busy and not self._transport.is_closing() and not self._unread():
            self._transport.close()

    def _unread(self) -> bool:
        """Whether a call has arrived that was not read yet; closing would drop it."""
        sock = self._transport.get_extra_info("socket")
        (size,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0" * 4))
        return bool(size)

    # messages

    def _handle(self, message: Message) -> None:
        if type(message) is ExtraInfoResp:
            self._told(message.result)
        elif type(message) is PrepareConfReq:
            self._busy = True
            self._spawn(self._prepare(message))
        elif type(message) is ErrResp:
            self._told(PluginError(f"the gateway could not tell: error {message.code!r}"))
        else:
            assert type(message) is HTTPRespCallReq
            self._begin(message)

    def _begin(self, message: HTTPReqCallReq | HTTPRespCallReq) -> None:
        self._busy = True
        self._server_state.total_requests += 1
        runner = self._runner
        options = runner.options
        if options.access_log:
            self._started = time.perf_counter()
        # before anything else is done for it: what is refused must not cost much
        if options.limit_concurrency is not None and self._overloaded(message.conf_token):
            return
        chain = runner.store.find(message.conf_token)
        if chain is None:
            self._spawn(self._restore(message))
        else:
            self._run(message, chain)

    def _overloaded(self, token: int) -> bool:
        """Whether too many calls run; then this one is refused."""
        runner = self._runner
        if runner.admit(token):
            return False
        self._end(_UNAVAILABLE)
        if runner.options.access_log:
            chain = runner.store.find(token)
            names, route_id = ("?", None) if chain is None else (chain.names, chain.route_id)
            self._log_access(names, route_id, "error overload")
        return True

    def _run(self, message: HTTPReqCallReq | HTTPRespCallReq, chain: Chain) -> None:
        runner = self._runner
        call: Call
        if type(message) is HTTPReqCallReq:
            call = RequestCall(message, chain, self, runner.host)
        else:
            call = ResponseCall(cast("HTTPRespCallReq", message), chain, self, runner.host)
        self._call = call
        runner.calls.add(call)
        call.task = task = asyncio.Task(call.run(self._ended), loop=self._loop, name=chain.names)
        self._server_state.tasks.add(task)

    def _ended(self, call: Call) -> None:
        self._runner.calls.discard(call)
        assert call.task is not None
        self._server_state.tasks.discard(call.task)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of its own, and so a context of its own: context variables must not leak into the next request."""
        task = asyncio.Task(coroutine, loop=self._loop)
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)
        return task

    async def _prepare(self, message: PrepareConfReq) -> None:
        answer: PrepareConfResp | ErrResp = _UNAVAILABLE
        try:
            token = await self._runner.store.prepare(message.key, message.conf or [])
            answer = PrepareConfResp(token)
        except ConfigurationError as exc:
            answer = ErrResp(ErrCode.BAD_REQUEST)  # the store has said why
            self._runner.host.on_fault(exc)
        finally:
            self._end(answer)

    async def _restore(self, message: HTTPReqCallReq | HTTPRespCallReq) -> None:
        code = ErrCode.SERVICE_UNAVAILABLE
        chain = None
        try:
            chain = await self._runner.store.restore(message.conf_token)
            if chain is None:
                code = ErrCode.CONF_TOKEN_NOT_FOUND
        except ConfigurationError as exc:  # the store has logged why
            self._runner.host.on_fault(exc)
        finally:
            if chain is None:
                self._end(ErrResp(code))
        if chain is not None and not self._transport.is_closing() and not self._overloaded(message.conf_token):
            self._run(message, chain)

    # one call's exchange

    def ask(self, infos: Sequence[Info]) -> "asyncio.Future[list[bytes | None]]":
        future: asyncio.Future[list[bytes | None]] = self._loop.create_future()
        if self._transport.is_closing():
            future.set_exception(PluginError("the gateway has closed the connection"))
            return future
        self._transport.write(b"".join([self._session.send(ExtraInfoReq(info)) for info in infos]))
        self._asks.append((future, len(infos), []))
        return future

    def _told(self, result: bytes | PluginError | None) -> None:
        future, wanted, results = self._asks[0]
        if isinstance(result, PluginError):
            if not future.done():
                future.set_exception(result)
                future.exception()
            results.append(None)
        else:
            results.append(result)
        if len(results) == wanted:
            self._asks.popleft()
            if not future.done():
                future.set_result(results)

    def answer(self, message: Answer, said: str) -> None:
        self._end(message)
        # answers still on their way are swallowed by the session
        if self._asks:
            self._forsake("the call has been answered: the gateway cannot be asked any more")
        call, self._call = self._call, None
        if call is not None:
            # what it still does (background tasks, waiting for its response half) is nobody's deadline
            self._runner.calls.discard(call)
            if self._runner.options.access_log:
                self._log_access(call.plugins, call.route_id, said)

    def _forsake(self, reason: str) -> None:
        """Nobody will tell what was asked."""
        for future, _, _ in self._asks:
            if not future.done():
                future.set_exception(PluginError(reason))
                future.exception()  # seen: whoever asked may be gone
        self._asks.clear()

    def _log_access(self, plugins: str, route_id: str | None, said: str) -> None:
        milliseconds = (time.perf_counter() - self._started) * 1000
        access_logger.info("%s - route %s - %s - %.1f ms", plugins, route_id or "?", said, milliseconds)

    def _end(self, answer: Answer | PrepareConfResp) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(self._session.send(answer))
        self._busy = False
        if self._closing:
            self._transport.close()
        elif self._full and not self._paused:
            # only between calls: within one, the gateway may be writing to us before it reads
            self._paused = True
            self._transport.pause_reading()

    def _broken(self, exc: RemoteProtocolError) -> None:
        """The gateway sent what cannot be read: told so, and the connection closed where its framing is lost."""
        logger.error("connection: %s; is the other side an APISIX gateway?", exc)
        if not exc.recoverable:
            self._transport.close()
        elif self._asks:
            self._told(PluginError(f"the gateway's answer cannot be read: {exc}"))
        else:
            # a call: nothing else may come while none is open, and nothing but answers to asks while one is
            self._end(ErrResp(ErrCode.BAD_REQUEST))


def runner_of(config: Config) -> Runner:
    """Find the runner that `config` has loaded. At log level "trace" uvicorn wraps it in further applications."""
    app: Any = config.loaded_app
    while not isinstance(app, Runner):
        app = app.app
    return app
