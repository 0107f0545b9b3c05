"""How a runner that serves takes sockets from its predecessor, and gives them to its successor.

:mod:`.succession` says who speaks with whom. This module moves it on from the event loop, and knows what is handed
over: the acceptor's socket, and the connections.
"""

import asyncio
import logging
import select
import signal
import socket
import time
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from ..succession.control import Handed, close_all
from ..succession.early import Watch
from ..succession.packets import CONNECTIONS, DONE
from ..succession.times import END_SECONDS, HANDOVER_SECONDS, LATE_SECONDS, SUCCESSOR_SECONDS, TICK_SECONDS
from .accept import Acceptor
from .protocol import RunnerProtocol
from .runner import Runner

if TYPE_CHECKING:
    from ..succession.sockets import RunnerSocket

__all__ = ["Handover"]

logger = logging.getLogger("asgi_bridge.server")

GRACEFUL_AFTER_WAIT = 0.1
"""Grace period of a runner that APISIX has started, after it has waited for a successor for SUCCESSOR_SECONDS. In the
wait the calls ran on. Lifespans still have time before END_SECONDS."""
ACKNOWLEDGE_SECONDS = 2.0
"""Seconds that a runner stays for the acknowledgement of what it has given. After SIGTERM the hard exit comes sooner.
The system keeps what the successor has not received yet."""


class Server(Protocol):
    """What this module needs of the server."""

    def make_acceptor(self, sock: socket.socket) -> Acceptor:
        """Accept on a socket, from now on."""

    def connections(self) -> list[RunnerProtocol]:
        """Return the connections that are served."""

    def end(self, sig: int | None, frame: FrameType | None, graceful: float | None) -> None:
        """Shut down after a signal, or because there is nothing left to do."""

    def is_ending(self) -> bool:
        """Whether the server shuts down."""


class Handover:
    """Takes and gives for one server.

    Args:
        watch: The runner's place in the line, and the thread that sees to it until :meth:`obtain`.
        server: The server.
    """

    def __init__(self, watch: Watch, server: Server) -> None:
        self._watch = watch
        self._succession = watch.succession
        self._server = server
        self._runner: Runner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: dict[int, int] = {}
        self._turned = asyncio.Event()
        self._listening: RunnerSocket | None = None
        self._acceptor: Acceptor | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._signal: tuple[int, FrameType | None] | None = None
        self._gives = False
        self._batch: list[Handed] = []
        self._leaving: asyncio.Task[None] | None = None

    # taking

    async def obtain(self, runner: Runner) -> None:
        """Get the listening socket, and start to accept. Connections from the predecessor come whenever it is done.

        Args:
            runner: The runner, which has started.

        Raises:
            ConfigurationError: The path cannot be taken.
        """
        succession = self._succession
        self._watch.stop()
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        succession.closing = self._forget
        succession.callers.back = self._take_back
        if not self._server.is_ending():
            succession.say_ready()
        while not self._server.is_ending():
            self._turned.clear()
            self._step()
            if succession.listening is None and succession.signalled is not None:
                succession.end_early()
            elif succession.listening is None:
                succession.replace_silent()
            if succession.listening is not None:
                break
            await _wait(self._turned, TICK_SECONDS)
        if not self._server.is_ending():
            self._accept()
            self._adopt()
            self._ticker = self._loop.create_task(self._tick())
        elif succession.predecessors.current is not None:
            succession.is_over = True  # a signal has come: the path stays the owner's, which gets back what it has sent

    def _accept(self) -> None:
        """Accept on the socket of the path. It is another one if somebody has removed the first."""
        before, old = self._acceptor, self._listening
        self._listening = self._succession.listening
        assert self._listening is not None and self._runner is not None
        self._runner.socket = self._listening.name
        self._acceptor = self._server.make_acceptor(self._listening.sock)
        if before is not None and old is not None:
            before.close()
            old.sock.close()

    def _adopt(self) -> None:
        """Serve the connections that have come from the predecessor."""
        assert self._acceptor is not None
        connections, self._succession.connections = self._succession.connections, []
        for descriptor, unread in connections:
            self._acceptor.adopt(socket.socket(fileno=descriptor), unread)

    # the event loop

    async def _tick(self) -> None:
        while True:
            self._turn()
            await asyncio.sleep(TICK_SECONDS)

    def _step(self) -> None:
        self._succession.step()
        wanted = self._succession.wanted()
        for descriptor in [each for each in self._watched if each not in wanted]:
            self._forget(descriptor)
        assert self._loop is not None
        for descriptor, events in wanted.items():
            before = self._watched.get(descriptor, 0)
            if not before:
                self._loop.add_reader(descriptor, self._turn)
            if events & select.POLLOUT and not before & select.POLLOUT:
                self._loop.add_writer(descriptor, self._turn)
            elif before & select.POLLOUT and not events & select.POLLOUT:
                self._loop.remove_writer(descriptor)
            self._watched[descriptor] = events

    def _forget(self, descriptor: int) -> None:
        """Watch a descriptor no more. It may be closed afterwards, and its number given to another file."""
        assert self._loop is not None
        if self._watched.pop(descriptor, 0) & select.POLLOUT:
            self._loop.remove_writer(descriptor)
        self._loop.remove_reader(descriptor)

    def _turn(self) -> None:
        """Do what can be done now."""
        self._turned.set()
        if self._acceptor is None:
            return  # :meth:`obtain` goes on
        self._step()
        self._adopt()
        if self._succession.listening is not self._listening and not self._gives:
            self._accept()
        self._decide(time.monotonic())

    def _decide(self, now: float) -> None:
        succession = self._succession
        since = succession.signalled
        is_time = since is not None and now >= since + HANDOVER_SECONDS
        if self._gives:
            self._send_batch()
            if self._server.is_ending():
                return
            if self._is_all_given():
                self._end(None)
            elif is_time:  # APISIX kills soon: refuse the calls that still run, and send their connections after them
                self._end(0.0 if succession.of_apisix else None)
        elif succession.successor is not None:
            if succession.is_wanted or is_time:
                self.give()
        elif since is not None and not self._server.is_ending():
            if not succession.of_apisix:
                self._end(None)
            elif now >= since + SUCCESSOR_SECONDS:
                self.give()  # whoever comes while this runner ends
                self._end(GRACEFUL_AFTER_WAIT)

    def _end(self, most: float | None) -> None:
        sig, frame = self._signal or (None, None)
        self._server.end(sig, frame, most)

    # giving

    def give(self) -> None:
        """Hand over to the successor: the listening socket, then all connections without a call.

        Connections with a call follow behind their answers. If there is no successor yet, all wait for it here, and
        calls wait in the connections.
        """
        if self._gives or self._acceptor is None or self._runner is None:
            return
        self._gives = True
        self._acceptor.stop()
        self._runner.give = self._give
        assert self._loop is not None
        self._leaving = self._loop.create_task(self._runner.leave_admin())
        for connection in self._server.connections():
            connection.hand_over()
        self._send_batch()

    def _give(self, descriptor: int, unread: bytes) -> None:
        assert self._loop is not None
        if not self._batch:
            self._loop.call_soon(self._send_batch)
        self._batch.append(Handed(descriptor, unread))

    def _send_batch(self) -> None:
        succession = self._succession
        if succession.successor is None:
            return
        if not succession.is_over:
            succession.is_over = True
            logger.info("The successor takes over %s", succession.path)
            succession.send_listener()
        batch, self._batch = self._batch, []
        if batch:
            succession.successor.send(CONNECTIONS, b"", batch)
        self._step()  # the queue may be full

    def _is_all_given(self) -> bool:
        assert self._acceptor is not None
        successor = self._succession.successor
        return (
            successor is not None
            and successor.settled
            and not self._server.connections()
            and not self._acceptor.is_connecting
        )

    def _take_back(self, handed: list[Handed]) -> None:
        """Go on with what a dead successor has not acknowledged."""
        if self._acceptor is None or self._runner is None:
            return  # nothing was given yet
        self._runner.give = None
        self._gives = self._succession.is_over = False
        batch, self._batch = self._batch, []
        for descriptor, unread in [*handed, *batch]:
            self._acceptor.adopt(socket.socket(fileno=descriptor), unread)
        if not self._server.is_ending():
            self._acceptor.resume()

    # the end

    def defer(self, sig: int, frame: FrameType | None) -> bool:
        """Take over a signal, from its handler: the server ends later, when the successor has all.

        Returns:
            False: there is no successor, and none to be expected.
        """
        succession = self._succession
        if sig != signal.SIGTERM or self._server.is_ending():
            return False
        if self._loop is None:
            return succession.note_signal()
        if succession.signalled is not None or (succession.successor is None and not succession.of_apisix):
            return False
        succession.signalled = time.monotonic()
        self._signal = sig, frame
        self._loop.call_soon_threadsafe(self._turn)
        return True

    def hard_exit_seconds(self, seconds: float) -> float:
        """Return how many seconds after SIGTERM the hard exit comes.

        Args:
            seconds: The same for a runner that has no successor and waits for none.
        """
        if self._succession.of_apisix:
            return max(seconds, END_SECONDS)
        return seconds + (HANDOVER_SECONDS if self._succession.successor is not None else 0.0)

    def leave(self) -> None:
        """Leave the path, at the beginning of the shutdown: to the successor, or to nobody."""
        if self._succession.successor is not None:
            self.give()
        if not self._gives:
            self._succession.remove_path()

    def leave_at_once(self) -> None:
        """Leave the path before the hard exit, from another thread: the event loop hangs."""
        self._succession.pass_on()
        self._succession.remove_path()

    async def finish(self) -> None:
        """Send what is left, at the end of the shutdown. A late successor may still come."""
        end = time.monotonic() + ACKNOWLEDGE_SECONDS
        if self._succession.signalled is not None and not self._succession.is_over:
            end = self._succession.signalled + LATE_SECONDS
        while self._gives and time.monotonic() < end:
            self._send_batch()
            successor = self._succession.successor
            if successor is not None and successor.settled:
                successor.send(DONE)
                break
            self._turned.clear()
            await _wait(self._turned, TICK_SECONDS / 5)
        close_all(self._batch)
        if self._ticker is not None:
            self._ticker.cancel()
        for descriptor in list(self._watched):
            self._forget(descriptor)
        self._acceptor = None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, or the time is over."""
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    await event.wait()
    timer.cancel()
