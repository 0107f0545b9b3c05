"""uvicorn's protocol class for the gateway's connections.

uvicorn makes an instance for each connection, with the keyword arguments ``config, server_state, app_state, _loop``. It
expects the instance to maintain ``server_state.connections``, ``tasks`` and ``total_requests``, and to have
``shutdown()``.
"""

import asyncio
import fcntl
import logging
import os
import struct
import termios
from collections import deque
from collections.abc import Coroutine, Sequence
from time import monotonic
from typing import Any, ClassVar, Protocol, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from ..adapter import Answer, Call, ResponseCall, new_request_call
from ..compiled import twin
from ..errors import ConfigurationError, PluginError, RemoteProtocolError
from ..plugins import Chain
from ..succession.control import MAX_UNREAD
from ..wire import (
    ErrCode,
    ErrResp,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPRespCallReq,
    Info,
    Message,
    PrepareConfReq,
    PrepareConfResp,
    Role,
    Session,
    State,
)
from ..wire.dialogue import receive, send
from .access import note_answered, note_refused
from .runner import Runner

__all__ = ["RunnerProtocol", "runner_of"]

logger = logging.getLogger("asgi_bridge.server")

_UNAVAILABLE = ErrResp(ErrCode.SERVICE_UNAVAILABLE)
GONE = "gone"
"""Outcome of a call that has no answer, because the gateway has closed the connection."""


class Link(Protocol):
    """What a connection knows of the supervisor."""

    def busy(self, connection: "RunnerProtocol") -> None:
        """Note that something of a call was read that is not answered."""

    def answered(self, connection: "RunnerProtocol") -> None:
        """Note an answer, which is written by the next turn of the event loop."""


class RunnerProtocol(asyncio.Protocol, asyncio.BufferedProtocol):
    """One connection of the gateway. It has one call at a time; :class:`~asgi_bridge.wire.Session` checks that.

    The class is both kinds of asyncio protocol, because each event loop is quicker with another one. asyncio takes the
    buffered protocol, and reads into our buffer. For a plain protocol it would allocate 256 KiB for each read, which
    can cost more than everything else in a call. uvloop takes the plain protocol, and gives us the bytes, which saves
    a call and a copy.

    Args:
        config: uvicorn's configuration, which has loaded the runner.
        server_state: uvicorn's connections and tasks.
        app_state: Not used. uvicorn gives it.
        _loop: The event loop; None: the running one.

    Attributes:
        unread: Bytes that another process has read from the connection, and not handled.
        runs_usual_calls: True: the class adds nothing to `_run`, but for calls that ask for something first, or may be
            parked. The compiled core then runs the others.
    """

    __slots__ = (
        "_asks", "_busy", "_call", "_closing", "_full", "_link", "_loop", "_paused", "_runner", "_server_state",
        "_session", "_tasks", "_transport", "unread",
    )  # fmt: skip
    runs_usual_calls: ClassVar[bool] = True

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
        self._tasks = self._runner.tasks(self._loop)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._session = Session(Role.RUNNER)
        self._call: Call | None = None
        self._busy = False
        self._closing = False
        self._full = False
        self._paused = False
        self._asks: deque[tuple[asyncio.Future[list[bytes | None]], int, list[bytes | None]]] = deque()
        self.unread = b""
        self._link: Link | None = None  # of a worker, to its supervisor

    # called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport. If the runner is stopping, close it once its call is answered."""
        self._transport = cast("asyncio.Transport", transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        if self.unread:
            self.data_received(self.unread)
        if self._runner.give is not None:
            self.hand_over()
        elif self._runner.stopping:
            # accepted out of the backlog at the last moment, after uvicorn had called shutdown() of all others
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what the call still waits for, and tell it that the client has gone."""
        self._server_state.connections.discard(self)
        self._fail_asks("the gateway has closed the connection")
        call, self._call = self._call, None
        if call is not None:
            if self._runner.watched:
                note_answered(self._runner, call, GONE)
            call.disconnect()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer for asyncio's next read: all connections share it, since each read is handled at once."""
        return self._tasks.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that asyncio has read into the buffer."""
        self.data_received(self._tasks.read_buffer[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        """Take the bytes of one read, and handle the messages that are complete now."""
        session = self._session
        try:
            message = receive(session, data)
        except RemoteProtocolError as exc:
            self._refuse_unreadable(exc)
            message = self._next_message()
        while message is not None:
            if type(message) is HTTPReqCallReq:
                self._start_call(message)
            elif type(message) is ExtraInfoResp:
                self._take_info(message.result)
            else:
                self._handle(message)
            if not session.buffered:
                return
            message = self._next_message()
        if self._link is not None:
            if session.buffered:
                self._link.busy(self)
            elif not self._busy:
                self._link.answered(self)  # the last answer to an ask of an answered call has come
        if self._runner.give is not None:
            self.hand_over()  # the same

    def _next_message(self) -> Message | None:
        """Return the next message; None: it has not arrived whole, or the connection is closing."""
        while not self._transport.is_closing():
            try:
                return self._session.next_message()
            except RemoteProtocolError as exc:
                self._refuse_unreadable(exc)
        return None

    def eof_received(self) -> None:
        """Close the connection. The gateway never closes only its own side, so nobody would read an answer."""
        self._session.receive_eof()
        try:
            self._session.next_message()
        except RemoteProtocolError as exc:
            logger.warning("connection: %s", exc)
            self._count_error()

    def pause_writing(self) -> None:
        """Note that the gateway does not read. After this call no other one is read, or answers would pile up here."""
        self._full = True

    def resume_writing(self) -> None:
        """Read from the gateway again, because it reads our answers again."""
        self._full = False
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def shutdown(self) -> None:
        """Close the connection: now if it is idle, otherwise after the answer. uvicorn calls this when it stops."""
        if self._runner.give is not None:
            return  # it goes to another process behind the answer
        self._closing = True
        if not self._busy and not self._transport.is_closing() and not self._unread():
            self._transport.close()

    def hand_over(self) -> None:
        """Give the connection to another process (``Runner.give``), if it is idle. A busy one goes behind its answer.

        Between two calls a connection has no state. nginx sees nothing of it, because closing our descriptor does not
        shut the connection down while there is another one.
        """
        give, transport, session = self._runner.give, self._transport, self._session
        if give is None or self._busy or transport.is_closing() or session.state is not State.IDLE:
            return
        if session.pending > MAX_UNREAD:
            return  # the rest of this large frame is on its way; it goes behind the answer to it
        try:
            descriptor = os.dup(transport.get_extra_info("socket").fileno())
        except OSError:  # no descriptor is free: it stays
            return
        # from here on nothing may be read: bytes that arrive are for the other process
        transport.pause_reading()
        give(descriptor, session.unread())
        transport.close()  # after it has written an answer that the gateway has not read yet

    def _unread(self) -> bool:
        """Whether a call has arrived that was not read yet. Closing the connection would drop it."""
        sock = self._transport.get_extra_info("socket")
        (size,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0" * 4))
        return bool(size)

    # messages

    def _handle(self, message: Message) -> None:
        if type(message) is PrepareConfReq:
            self._busy = True
            if self._link is not None:
                self._link.busy(self)
            self._spawn(self._prepare(message))
        elif type(message) is ErrResp:
            code = message.code.name if isinstance(message.code, ErrCode) else message.code
            self._fail_info(f"the gateway did not give what it was asked for: error {code}")
        else:
            assert type(message) is HTTPRespCallReq
            self._start_call(message)

    def _start_call(self, message: HTTPReqCallReq | HTTPRespCallReq) -> None:
        """Run a call, or refuse it."""
        self._busy = True
        if self._link is not None:
            self._link.busy(self)
        self._server_state.total_requests += 1
        runner = self._runner
        options = runner.options
        # check this first, because refusing a call must be cheap
        if options.limit_concurrency is not None and self._overloaded(message):
            return
        chain = runner.store.find(message.conf_token)
        if chain is not None:
            self._run(message, chain)
        elif runner.store.is_unknown(message.conf_token):
            self._refuse(message, ErrCode.CONF_TOKEN_NOT_FOUND)
        else:
            self._spawn(self._restore(message))

    def _refuse(self, message: HTTPReqCallReq | HTTPRespCallReq, code: ErrCode, started: float | None = None) -> None:
        """Refuse a call that has no chain.

        Args:
            message: What the gateway sent.
            code: After CONF_TOKEN_NOT_FOUND the gateway prepares the configuration again.
            started: When the message had come, in monotonic seconds; None: now.
        """
        self._send_answer(ErrResp(code))
        if self._runner.watched:
            outcome = "error unknown token" if code is ErrCode.CONF_TOKEN_NOT_FOUND else "error"
            note_refused(self._runner, message, None, outcome, started)

    def _overloaded(self, message: HTTPReqCallReq | HTTPRespCallReq) -> bool:
        """Refuse the call if too many run. Returns whether it was refused."""
        runner = self._runner
        if runner.admit(message.conf_token):
            return False
        self._send_answer(_UNAVAILABLE)
        if runner.watched:
            note_refused(runner, message, runner.store.find(message.conf_token), "error overload")
        return True

    def _run(self, message: HTTPReqCallReq | HTTPRespCallReq, chain: Chain, started: float | None = None) -> None:
        """Run a call.

        Args:
            message: What the gateway sent.
            chain: The plugins to run.
            started: When the message had come, in monotonic seconds; None: now.
        """
        runner = self._runner
        if started is None and runner.watched:
            started = monotonic()
        tracing = runner.tracing  # what is traced has other classes, so what is not asks nothing
        call: Call
        if type(message) is HTTPReqCallReq:
            make = new_request_call if tracing is None else tracing.request_call
            call = make(message, chain, self, runner.host)
        else:
            message = cast("HTTPRespCallReq", message)
            respond = ResponseCall if tracing is None else tracing.response_call
            call = respond(message, chain, self, runner.host)
        call.started = started
        self._call = call
        runner.calls.add(call)
        if chain.waits:
            chain.waits -= 1
            self.start_in_task(call)
        else:
            self._tasks.start(call, self)

    def start_in_task(self, call: Call) -> None:
        """Start a call in a task of its own."""
        self.note_task(call, asyncio.Task(call.run(self.ended), loop=self._loop, name=call.plugins))

    def note_task(self, call: Call, task: "asyncio.Task[None]") -> None:
        """Note that a call waits for something, and has a task until its end."""
        call.task = task
        self._server_state.tasks.add(task)

    def ended(self, call: Call) -> None:
        """Note the end of a call that has a task, or no answer."""
        self._runner.calls.discard(call)
        if call.task is not None:
            self._server_state.tasks.discard(call.task)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task. It has a context of its own, so context variables do not leak into the next call."""
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
            answer = ErrResp(ErrCode.BAD_REQUEST)  # the store has logged why
            self._runner.host.on_fault(exc)
        finally:
            self._send_answer(answer)
            if self._runner.observer is not None:
                self._runner.observer.prepared(isinstance(answer, PrepareConfResp))

    async def _restore(self, message: HTTPReqCallReq | HTTPRespCallReq) -> None:
        code = ErrCode.SERVICE_UNAVAILABLE
        chain = None
        started = monotonic()
        try:
            chain = await self._runner.store.restore(message.conf_token)
            if chain is None:
                code = ErrCode.CONF_TOKEN_NOT_FOUND
        except ConfigurationError as exc:  # the store has logged why
            self._runner.host.on_fault(exc)
        finally:
            if chain is None:
                self._refuse(message, code, started)
        if chain is not None and not self._transport.is_closing() and not self._overloaded(message):
            self._run(message, chain, started)

    # called by a call

    def ask(self, infos: Sequence[Info]) -> "asyncio.Future[list[bytes | None]]":
        """Ask the gateway for variables or bodies, all in one round trip.

        Args:
            infos: What to ask for.

        Returns:
            A future of the answers, in the same order; None stands for a variable that is not set. The future fails
            with PluginError if the gateway answers with an error, or closes the connection.
        """
        future: asyncio.Future[list[bytes | None]] = self._loop.create_future()
        if self._transport.is_closing():
            future.set_exception(PluginError("the gateway has closed the connection"))
            return future
        self._transport.write(self._session.ask(infos))
        self._asks.append((future, len(infos), []))
        if self._runner.observer is not None:
            self._runner.observer.asked()
        return future

    def _take_info(self, result: bytes | None) -> None:
        """Take the answer to the oldest ask. The plugin goes on once all that it asked for together is there."""
        future, wanted, results = self._asks[0]
        results.append(result)
        if len(results) == wanted:
            self._asks.popleft()
            if not future.done():
                future.set_result(results)

    def _fail_info(self, reason: str) -> None:
        """Take an error in place of the answer to the oldest ask."""
        future = self._asks[0][0]
        if not future.done():
            future.set_exception(PluginError(reason))
            future.exception()  # no warning if nobody awaits the future any more
        self._take_info(None)

    def answer(self, message: Answer, outcome: str) -> None:
        """Answer the call.

        Args:
            message: The answer.
            outcome: The answer in a word or two, for the access log.

        Raises:
            LocalProtocolError: The answer does not fit into a frame. Nothing was sent.
        """
        self._send_answer(message)
        # the session drops the answers to asks that are still on their way
        if self._asks:
            self._fail_asks("the call has been answered: the gateway cannot be asked any more")
        call = self._call
        if call is not None:
            # it may go on (background tasks, waiting for the response call), but without a deadline
            self._call = None
            runner = self._runner
            runner.calls.discard(call)
            if runner.watched:
                note_answered(runner, call, outcome)

    def _fail_asks(self, reason: str) -> None:
        """Fail all asks that have no answer yet."""
        for future, _, _ in self._asks:
            if not future.done():
                future.set_exception(PluginError(reason))
                future.exception()  # no warning if nobody awaits the future any more
        self._asks.clear()

    def _count_error(self) -> None:
        if self._runner.observer is not None:
            self._runner.observer.broken()

    def _send_answer(self, answer: Answer | PrepareConfResp) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        transport.write(send(self._session, answer))
        self._busy = False
        if self._link is not None:
            self._link.answered(self)
        if self._full or self._closing or self._runner.give is not None:
            self._after_answer()

    def _after_answer(self) -> None:
        """Do with the connection what had to wait for the answer."""
        if self._runner.give is not None:
            self.hand_over()
        elif self._closing:
            self._transport.close()
        elif self._full and not self._paused:
            # only between calls: during a call the gateway may write to us before it reads
            self._paused = True
            self._transport.pause_reading()

    def _refuse_unreadable(self, exc: RemoteProtocolError) -> None:
        """Answer an error to a frame that cannot be read. Close the connection if the next frame cannot be found."""
        logger.error("connection: %s; is the other side an APISIX gateway?", exc)
        self._count_error()
        if not exc.recoverable:
            self._transport.close()
        elif self._asks:
            self._fail_info(f"the gateway's answer cannot be read: {exc}")
        else:
            # it was a call: during a call the session lets only answers to asks through
            self._send_answer(ErrResp(ErrCode.BAD_REQUEST))


def runner_of(config: Config) -> Runner:
    """Find the runner that `config` has loaded. At log level "trace" uvicorn wraps it in further applications."""
    app: Any = config.loaded_app
    while not isinstance(app, Runner):
        app = app.app
    return app


_compiled = twin("server._connection")
if _compiled is not None:
    RunnerProtocol.data_received = _compiled.data_received  # type: ignore[method-assign]
    RunnerProtocol.ask = _compiled.ask  # type: ignore[method-assign]
    RunnerProtocol.answer = _compiled.answer  # type: ignore[method-assign]
    RunnerProtocol.note_task = _compiled.note_task  # type: ignore[method-assign]
    RunnerProtocol.ended = _compiled.ended  # type: ignore[method-assign]
