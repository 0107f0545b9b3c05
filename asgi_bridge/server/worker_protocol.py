"""A connection in a worker. Between two calls the supervisor may take it back, and give it to another worker."""

import asyncio
import os
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, cast

from ..adapter import first_variables
from ..errors import PluginError
from ..plugins import Chain
from ..supervisor.channel import MAX_FRAME
from ..wire import ErrCode, ErrResp, HTTPReqCallReq, HTTPRespCallReq, Info, Role, Session, Var
from ..wire.session import State
from .protocol import RunnerProtocol

if TYPE_CHECKING:
    from .steering import Whereabouts
    from .worker import Link, WorkerServer

__all__ = ["SteeringProtocol", "WorkerProtocol"]


class WorkerProtocol(RunnerProtocol):
    """A connection that belongs to the supervisor, and that another worker may go on with between two calls.

    Args:
        link: To the supervisor.
        slot: The connection's number.
        server: The worker's server.
        call: The call that the connection is in, as another worker has read it; empty: it is in none.

    Attributes:
        slot: The connection's number.
    """

    __slots__ = ("_known", "_moved", "_passed_on", "_returned", "_whereabouts", "_worker", "giving", "slot")

    def __init__(self, link: "Link", slot: int, server: "WorkerServer", call: bytes) -> None:
        super().__init__(server.config, server.server_state)
        self.slot = slot
        self._link = self._worker = link
        self.giving = False
        self._returned = False
        self._whereabouts = server.whereabouts
        self.unread = self._passed_on = call  # a call that was passed on once stays
        self._moved: tuple[int, bytes] | None = None
        self._known: dict[bytes, bytes | None] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport. A worker that retires gives the connection back."""
        super().connection_made(transport)
        if self.giving or self._worker.retiring:
            self.give_back()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up, and tell the supervisor."""
        super().connection_lost(exc)
        if self._moved is not None:
            self._worker.moved(self.slot, *self._moved)
        else:
            self._worker.ended(self.slot, returned=self._returned)

    def shutdown(self) -> None:
        """Close the connection at the end of the process, unless it is given back behind its answer."""
        if not self.giving:
            super().shutdown()

    def is_idle(self) -> bool:
        """Whether another process could go on with the connection: no call, nothing half read, nothing unwritten."""
        session = self._session
        return (
            session.state is State.IDLE
            and not session.buffered
            and not self._busy
            and not self._transport.get_write_buffer_size()
        )

    def give_back(self) -> None:
        """Give the connection back: now if it is idle, otherwise after the answer."""
        self.giving = True
        if self._transport is not None:  # it is made soon
            self.leave()

    def leave(self) -> None:
        """Give the connection back, if it is in no call."""
        session = self._session
        if session.state is State.IDLE and not session.buffered and not self._busy:
            if not self._transport.is_closing():
                self._returned = True
            self._transport.close()  # it writes what is left to write first, and does not shut the socket down


class SteeringProtocol(WorkerProtocol):
    """A connection whose calls may belong to requests that other workers have parked calls of."""

    __slots__ = ()

    def _run(self, message: HTTPReqCallReq | HTTPRespCallReq, chain: Chain, started: float | None = None) -> None:
        """Run a call here, unless it may belong to a request that another worker has parked calls of."""
        passed_on, self._passed_on = self._passed_on, b""
        whereabouts = self._whereabouts
        if whereabouts is None or passed_on or not (self._may_meet_parked(message, chain) and whereabouts.has_others()):
            super()._run(message, chain, started)
        else:
            self._spawn(self._steer(message, chain, whereabouts, started or monotonic()))

    def ask(self, infos: Sequence[Info]) -> asyncio.Future[list[bytes | None]]:
        """Ask the gateway, unless the answers are known already."""
        known, self._known = self._known, {}
        values = [known.get(info.name or b"", _UNKNOWN) for info in infos if type(info) is Var] if known else []
        if len(values) != len(infos) or _UNKNOWN in values:
            return super().ask(infos)
        future: asyncio.Future[list[bytes | None]] = self._loop.create_future()
        future.set_result(cast("list[bytes | None]", values))
        return future

    def _may_meet_parked(self, message: HTTPReqCallReq | HTTPRespCallReq, chain: Chain) -> bool:
        """Whether the call would look for parked calls. All these ask for ``$request_id`` anyway."""
        return type(message) is HTTPRespCallReq or chain.both or chain.exact or self._runner.host.ask_origin

    async def _steer(
        self, message: HTTPReqCallReq | HTTPRespCallReq, chain: Chain, whereabouts: "Whereabouts", started: float
    ) -> None:
        """Pass the call on to the worker that has parked calls of the same request, or run it here."""
        process = 0
        names = [name.encode() for name in first_variables(message, chain, self._runner.host.ask_origin)]
        try:
            self._known = dict(zip(names, await super().ask([Var(name) for name in names]), strict=True))
            request_id = self._known[b"request_id"]
            if request_id:
                process = whereabouts.find(request_id.decode("latin-1"))
        except PluginError:
            pass  # the call asks again, and is refused with the reason
        except BaseException:
            self._send_answer(ErrResp(ErrCode.SERVICE_UNAVAILABLE))
            raise
        if self._transport.is_closing():
            return
        call = b""
        if process not in (0, os.getpid()) and not self._session.buffered:
            call = Session(Role.GATEWAY).send(message)
        if 0 < len(call) <= MAX_FRAME:
            self._moved = process, call
            self._transport.close()
        else:
            super()._run(message, chain, started)


_UNKNOWN = object()
