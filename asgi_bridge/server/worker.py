"""A worker: it serves connections that the supervisor hands to it."""

import asyncio
import dataclasses
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Coroutine, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import uvicorn

from ..compiled import twin
from ..plugins import Plugin
from ..plugins.shared_numbers import SharedTable
from ..succession.sockets import SocketName
from ..supervisor.channel import Table, Word, pack, receive, send, unpack
from .handover import GRACEFUL_AFTER_WAIT
from .process import RunnerServer
from .protocol import RunnerProtocol, runner_of
from .runner import Runner
from .steering import NotedCalls, Whereabouts
from .worker_protocol import SteeringProtocol, WorkerProtocol

if TYPE_CHECKING:
    from ..insight.insight import Report

__all__ = ["WorkerEnds", "WorkerServer"]

BEAT_SECONDS = 0.25
"""Seconds between two notes that the event loop turns."""
REPORT_SECONDS = 5.0
"""Seconds to wait for the reports of all workers. The supervisor waits for 0.5 s, unless it cannot write its log."""
TURN_CONNECTIONS = 32
"""Maximum number of messages of the supervisor that are read in one turn of the event loop."""


class WorkerEnds(NamedTuple):
    """What a worker has of its supervisor.

    Attributes:
        channel: Its end of the channel.
        table: The memory that both share.
        parked: The memory of all workers that says who has parked calls.
        folder: Path of the private folder.
        first: True: no other worker has served yet.
        record_key: Key of the hashes that stand for secrets in a recording, in hexadecimal.
        limit_max_requests: Number of calls after which the worker asks to be replaced; None: it never does.
    """

    channel: socket.socket
    table: Table
    parked: SharedTable
    folder: str | None
    first: bool
    record_key: str
    limit_max_requests: int | None = None


class WorkerServer(RunnerServer):
    """The server of a worker. The supervisor accepts for it.

    Args:
        config: What `runner_config` makes.
        path: Of the socket, for the log.
        ends: What the worker has of its supervisor.

    Attributes:
        whereabouts: Who has parked calls; None: no plugin parks any.
    """

    def __init__(self, config: uvicorn.Config, path: str, ends: WorkerEnds) -> None:
        super().__init__(config, path)
        self._ends = ends
        self._path = path
        self._link: Link | None = None
        self.whereabouts: Whereabouts | None = None

    def adopt(self, runner: Runner, plugins: Mapping[str, Plugin]) -> None:
        """Let the other workers know of a runner: of the calls that it parks, and of what it counts."""
        if any(plugin.options.phase == "both" for plugin in plugins.values()):
            self.whereabouts = Whereabouts(self._ends.parked)
            runner.host = dataclasses.replace(runner.host, parked=NotedCalls(self.whereabouts))
        if runner.reporting is not None:
            runner.reporting.peers = self._reports
            runner.reporting.admin.is_quiet = not self._ends.first  # another worker has the address

    async def _reports(self) -> "list[Report]":
        """Return the reports of all workers, and those of workers that have ended."""
        from starlette.exceptions import HTTPException

        from ..insight.insight import Report

        try:
            return [] if self._link is None else [Report(**each) for each in await self._link.reports()]
        except (OSError, TimeoutError):
            raise HTTPException(503, "The supervisor does not answer") from None

    def shorten(self) -> None:
        """Shorten the grace period: the supervisor has waited for a successor, and the calls ran on meanwhile."""
        graceful = min(GRACEFUL_AFTER_WAIT, self.config.timeout_graceful_shutdown or 0)
        self.config.timeout_graceful_shutdown = graceful  # type: ignore[assignment]

    def hurry(self) -> None:
        """Wait for no calls and no lifespan any more."""
        runner_of(self.config).cut_off()
        self.force_exit = True

    def accept(self, sockets: Any) -> None:
        """Take connections from the supervisor."""
        if not self.should_exit:  # no lifespan has failed
            self._link = Link(self, self._ends)
            self.servers.append(self._link)  # type: ignore[arg-type]

    def name_socket(self) -> None:
        """Tell the runner by what it recognizes the socket."""
        device, inode = self._ends.table.socket
        runner_of(self.config).socket = SocketName(self._path, device, inode) if inode else None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGTERM. A terminal sends SIGINT to the supervisor too, which then sends SIGTERM."""
        if sig != signal.SIGINT:
            super().handle_exit(sig, frame)


class Link:
    """The worker's side of the channel. It takes the place of an :class:`asyncio.Server` in uvicorn's ``servers``.

    Args:
        server: The worker's server.
        ends: What the worker has of its supervisor.

    Attributes:
        retiring: True: every connection is given back as soon as it has no call.
        flags: ``Table.busy``.
    """

    __slots__ = (
        "_answered", "_asking", "_channel", "_connections", "_limit", "_loop", "_protocol", "_runner", "_server",
        "_table", "_tasks", "_unsent", "_worn_at", "flags", "retiring",
    )  # fmt: skip

    def __init__(self, server: WorkerServer, ends: WorkerEnds) -> None:
        self.retiring = False
        self._server = server
        self._runner = runner_of(server.config)
        self._channel = ends.channel
        self._table = ends.table
        self.flags = ends.table.busy
        self._limit = ends.limit_max_requests
        self._worn_at = self._limit or 0
        self._loop = asyncio.get_running_loop()
        self._connections: dict[int, WorkerProtocol] = {}
        self._protocol = _protocol_of(server.whereabouts is not None, self._runner.recording is not None)
        self._answered: list[WorkerProtocol] = []
        self._unsent: deque[tuple[Word, int, bytes, int | None]] = deque()
        self._asking: list[asyncio.Future[list[dict[str, Any]]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop.add_reader(self._channel, self._read, TURN_CONNECTIONS)
        self._beat()
        self._tell(Word.READY)

    def close(self) -> None:
        """Take the connections that are on their way. The supervisor sends no more after its SIGTERM."""
        self._read(sys.maxsize)

    async def wait_closed(self) -> None:
        """Do nothing: :class:`asyncio.Server` has this method, and uvicorn itself waits for the connections."""

    # called by a connection

    def busy(self, connection: RunnerProtocol) -> None:
        """Note that something of a call was read that is not answered."""
        self.flags[connection.slot] = 1  # type: ignore[attr-defined]  # all of ours have one

    def answered(self, connection: RunnerProtocol) -> None:
        """Note an answer. asyncio has written it by now, and uvloop before its next turn."""
        assert isinstance(connection, WorkerProtocol)
        if connection.giving:
            connection.leave()  # at once: the next call is for another process
        if not self._answered:
            self._loop.call_soon(self.settle)
        self._answered.append(connection)

    def ended(self, slot: int, *, returned: bool) -> None:
        """Tell the supervisor that this process has closed its descriptor of a connection.

        Args:
            slot: Of the connection.
            returned: True: another worker is to go on with it.
        """
        self._connections.pop(slot, None)
        self._tell(Word.RETURNED if returned else Word.CLOSED, slot)

    def moved(self, slot: int, process: int, call: bytes) -> None:
        """Tell the supervisor that another worker has to go on with a connection and its call.

        Args:
            slot: Of the connection.
            process: Process id of that worker.
            call: The call as the gateway has sent it.
        """
        self._connections.pop(slot, None)
        self._tell(Word.MOVED, slot, process.to_bytes(4, "little") + call)

    def settle(self) -> None:
        """Note that connections are idle again."""
        answered, self._answered = self._answered, []
        for each in answered:
            if each.is_idle() and self._connections.get(each.slot) is each:
                self.flags[each.slot] = 0

    # the channel

    def _tell(self, word: Word, slot: int = 0, data: bytes = b"", memory: int | None = None) -> None:
        self._unsent.append((word, slot, data, memory))
        self._send()

    def _send(self) -> None:
        try:
            while self._unsent:
                send(self._channel, *self._unsent[0])
                memory = self._unsent.popleft()[-1]
                if memory is not None:
                    os.close(memory)
        except OSError:
            pass  # the next beat tries again

    def _read(self, most: int) -> None:
        for _ in range(most):
            try:
                message = receive(self._channel)
            except BlockingIOError:
                return
            if message is None:  # the supervisor has gone
                self._loop.remove_reader(self._channel)
                self._server.should_exit = True
                return
            word, slot, data, descriptor = message
            if word is Word.CONNECTION and descriptor is None:
                self._tell(Word.CLOSED if data else Word.RETURNED, slot)  # no descriptor was free
            elif word is Word.CONNECTION:
                assert descriptor is not None
                connection = self._connections[slot] = self._protocol(self, slot, self._server, data)
                self._spawn(self._connect(connection, socket.socket(fileno=descriptor)))
            elif word is Word.GIVE_BACK:
                if slot in self._connections:
                    self._connections[slot].give_back()
            elif word is Word.RETIRE:
                self.retiring = True
                self._spawn(self._runner.leave_admin())
                for each in list(self._connections.values()):
                    each.give_back()
                self._spawn(self._retire())
            elif word is Word.ASK:
                self._report(Word.REPORT)
            elif word is Word.REPORTS and descriptor is not None:
                found = unpack(descriptor)
                for future in self._asking:
                    if not future.done():
                        future.set_result(found)
                self._asking.clear()
            elif word is Word.SHORTEN:
                self._server.shorten()
            elif word is Word.HURRY:
                self._server.hurry()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: WorkerProtocol, sock: socket.socket) -> None:
        await self._loop.connect_accepted_socket(lambda: connection, sock)

    async def _retire(self) -> None:
        """End the process once it has no connections and no tasks."""
        state = self._server.server_state
        while self._connections or state.connections or state.tasks:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.02)
        self._report(Word.REPORT)
        self._server.should_exit = True

    def _report(self, word: Word) -> None:
        """Tell the supervisor what this worker has counted, if it counts."""
        reporting = self._runner.reporting
        if reporting is not None:
            self._tell(word, memory=pack(dataclasses.asdict(reporting.insight.report())))

    async def reports(self) -> list[dict[str, Any]]:
        """Return what all workers tell of themselves, and last what those have told that have ended.

        Raises:
            OSError: No descriptor is free.
            TimeoutError: The supervisor does not answer.
        """
        future: asyncio.Future[list[dict[str, Any]]] = self._loop.create_future()
        self._report(Word.REPORTS)
        self._asking.append(future)
        async with asyncio.timeout(REPORT_SECONDS):
            return await future

    def _beat(self) -> None:
        self._table.turned()
        self._server.name_socket()
        self._send()
        served = self._server.server_state.total_requests
        if self._limit is not None and served >= self._worn_at:
            self._worn_at = served + self._limit  # it says so again, if its successor has not come up
            self._tell(Word.WORN)
        self._loop.call_later(BEAT_SECONDS, self._beat)


def _protocol_of(steers: bool, records: bool) -> type[WorkerProtocol]:
    """Return the class of a worker's connections.

    Args:
        steers: Whether some calls go to other workers.
        records: Whether calls are recorded.
    """
    if not records:
        return SteeringProtocol if steers else WorkerProtocol
    from .recording_worker_protocol import RecordingSteeringProtocol, RecordingWorkerProtocol

    return RecordingSteeringProtocol if steers else RecordingWorkerProtocol


_compiled = twin("server._link")
if _compiled is not None:
    Link.busy = _compiled.busy  # type: ignore[method-assign]
    Link.answered = _compiled.answered  # type: ignore[method-assign]
    Link.settle = _compiled.settle  # type: ignore[method-assign]
