"""The supervisor: it owns the listening socket, accepts, and hands each connection to the worker that has fewest.

It keeps a descriptor of each connection. So a connection outlives its worker, unless the worker was busy with a call of
it. Workers are new processes, which import the plugins themselves: this one imports next to nothing.

uvicorn's own supervisor does not serve here. Its workers all accept on one socket: the gateway keeps its connections,
so the worker that accepts first keeps most of the work. It sees a process that hangs, but not an event loop that does.
And it loads all of uvicorn before it listens.
"""

import contextlib
import logging
import os
import select
import selectors
import signal
import socket
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

from ..compiled import core_in_use
from ..succession.control import Handed, close_all
from ..succession.gateway_master import open_master
from ..succession.packets import CALL, CONNECTIONS, DONE, PROCESS
from ..succession.succession import Succession
from ..succession.times import END_SECONDS, HANDOVER_SECONDS, LATE_SECONDS, SUCCESSOR_SECONDS, TICK_SECONDS
from .channel import Word
from .connections import Connections
from .crew import Crew
from .door import Door
from .signals import Signals

__all__ = ["Supervisor"]

logger = logging.getLogger("asgi_bridge.server")

LOOK_SECONDS = 0.5
"""Seconds between two looks at the workers."""
STOP_SECONDS = 0.55
"""The supervisor kills what still runs this many seconds after the grace period. With that of 0.3 s it makes 0.85 s:
APISIX sends SIGKILL after one second, and a worker's own watchdog acts after 0.75 s."""
KILL_SECONDS = END_SECONDS - 0.04
"""The same after SIGTERM where APISIX has started the runner, in seconds after the signal. A successor may come."""
SHARED_SECONDS = 2.0
"""Seconds that a predecessor has to give the memories that its workers share. No plugin is loaded before that."""
MEMORIES = ("numbers", "parked")
"""The memories: what plugins count, and who has parked calls."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD)


class Supervisor:
    """The workers and the socket.

    Args:
        succession: Our place among those that have the socket path. It has begun.
        workers: Number of workers.
        graceful: Seconds that running calls get to finish after a signal.
        spawned: True: the gateway may have started this process, and then it ends with the gateway's master.
    """

    def __init__(self, succession: Succession, workers: int, graceful: float, *, spawned: bool) -> None:
        self._succession = succession
        self._stop_seconds = graceful + STOP_SECONDS
        self._spawned = spawned
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, int] = {}
        self._connections = Connections()
        self._door = Door(self._selector, self._connections.hand_out)
        self._connections.before = self._send_back
        self._crew = Crew(self._selector, workers, self._connections, succession.shared)
        self._crew.on_ready = self._serve
        self._giving = False
        self._announced = False
        self._code = 0
        self._core = ""
        self._stop_signal: int | None = None

    def run(self, message: Mapping[str, Any]) -> int:
        """Serve until a signal or a successor ends it, or the first worker fails.

        Args:
            message: What each worker is told.

        Returns:
            The exit code, or ``-signal.SIGTERM``.
        """
        crew = self._crew
        crew.message = message
        self._succession.closing = self._forget
        self._succession.back = self._take_back
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            signals = stack.enter_context(Signals(self._selector, SIGNALS, self._bound_end))
            signal.signal(signal.SIGALRM, self._give_up)
            master = open_master(self._succession.path) if self._spawned else None
            if master is not None:
                stack.callback(os.close, master)
                self._selector.register(master, selectors.EVENT_READ, lambda: self._lose_master(master))
            self._share()
            crew.start()
            self._core = core_in_use()  # reads the modules: the worker loads its plugins meanwhile
            next_look = time.monotonic() + LOOK_SECONDS
            while not crew.is_over or self._owes():
                for key, _ in self._selector.select(TICK_SECONDS):
                    key.data()
                for each in signals.come():
                    self._handle(each)
                self._turn()
                if time.monotonic() >= next_look:
                    self._look()
                    next_look = time.monotonic() + LOOK_SECONDS
        if crew.failed and self._stop_signal is not None:
            return 128 + self._stop_signal
        return self._code or crew.failed

    def _close(self) -> None:
        self._door.close()
        self._connections.close_waiting()
        for descriptor in list(self._watched):
            self._forget(descriptor)
        self._selector.close()

    # serving

    def _serve(self) -> None:
        """A worker is ready."""
        self._succession.say_ready()
        self._listen()

    def _listen(self) -> None:
        """Accept on the socket of the path. It is another one if somebody has removed the first."""
        if self._stop_signal is not None or self._giving:
            return
        listening = self._succession.listening
        self._door.exchange(listening)
        self._crew.name_socket((0, 0) if listening is None else (listening.name.device, listening.name.inode))
        if not self._connections.ready():
            self._door.shut()  # connections wait in the backlog
            return
        self._door.open()
        if self._door.listening is not None and not self._announced:
            self._announced = True
            wanted = self._crew.wanted
            logger.info("Core: %s", self._core)
            logger.info(
                "Runner listens on unix socket %s%s (Press CTRL+C to quit)%s",
                self._succession.path,
                "" if wanted == 1 else f", with {wanted} workers",
                ""
                if wanted == 1
                else ". What plugins keep in memory, each worker has for itself; limit-req counts for all together",
            )

    def _look(self) -> None:
        """Replace workers that hang, and do what could not be done at once."""
        self._crew.look(LOOK_SECONDS, self._stop_seconds)
        self._listen()
        self._connections.hand_out_waiting()
        self._connections.balance(0.25)

    # signals

    def _handle(self, sig: int) -> None:
        match sig:
            case signal.SIGCHLD:
                self._crew.reap()
            case signal.SIGTERM if self._may_wait():
                self._succession.signalled = time.monotonic()
                self._code = -sig
            case signal.SIGTERM | signal.SIGINT:
                self._stop(sig)
            case signal.SIGHUP:
                logger.info("SIGHUP: the workers are replaced, one after the other")
                self._crew.roll()
            case signal.SIGTTIN | signal.SIGTTOU:
                self._crew.resize(1 if sig == signal.SIGTTIN else -1)
                logger.info("%s: %d workers", signal.Signals(sig).name, self._crew.wanted)

    def _bound_end(self, sig: int) -> None:
        """Bound how long the end takes, from the signal's handler: this process may wait in a write."""
        if sig in (signal.SIGTERM, signal.SIGINT) and not signal.getitimer(signal.ITIMER_REAL)[0]:
            of_apisix = self._succession.of_apisix
            signal.setitimer(signal.ITIMER_REAL, KILL_SECONDS if of_apisix else self._stop_seconds + HANDOVER_SECONDS)

    def _give_up(self, sig: int, frame: FrameType | None) -> None:
        """Kill the workers that still run, and end. A signal calls this, also while this process waits in a write."""
        self._crew.kill_all()
        self._succession.pass_on()
        self._succession.remove_path()
        self._succession.private.close()
        os._exit(128 + (self._stop_signal or signal.SIGTERM))

    def _lose_master(self, master: int) -> None:
        """Stop, because the gateway's master that has started this process has gone."""
        self._selector.unregister(master)
        if self._stop_signal is None:
            logger.warning("The gateway's process that started this runner has gone: the runner ends")
            self._stop(signal.SIGTERM)

    def _stop(self, sig: int) -> None:
        """Stop accepting, and end the workers. A second SIGINT does not wait for calls."""
        workers, succession = self._crew.workers, self._succession
        if self._stop_signal is not None:
            if sig == signal.SIGINT:
                for worker in workers:
                    worker.tell(Word.HURRY)
            return
        self._stop_signal = sig
        self._code = -sig if sig == signal.SIGTERM else 0
        self._crew.complete()
        since = succession.signalled
        if since is None:
            signal.setitimer(signal.ITIMER_REAL, self._stop_seconds)
        if not self._giving:
            self._take_backlog()
        self._connections.is_closed = True
        for worker in workers:
            if since is not None and succession.of_apisix:
                worker.tell(Word.SHORTEN)
            worker.kill(signal.SIGTERM)

    def _take_backlog(self) -> None:
        """Hand the connections of the backlog to the workers: the end of the process would cut them off."""
        self._succession.remove_path()
        self._door.empty()
        self._door.close()
        self._adopt()
        self._connections.hand_out_waiting()
        self._connections.close_waiting()

    # predecessor and successor

    def _share(self) -> None:
        """Get the memories that all workers share: from the predecessor, if it has some."""
        succession = self._succession
        until = time.monotonic() + SHARED_SECONDS
        predecessors = succession.predecessors
        while not predecessors.has_shared and predecessors.current is not None and time.monotonic() < until:
            select.select([predecessors.current], [], [], TICK_SECONDS)
            succession.step()
        if len(succession.shared) != len(MEMORIES):
            close_all(map(Handed, succession.shared))
            succession.shared[:] = map(_shared_memory, MEMORIES)

    def _send_back(self, sock: socket.socket, call: bytes, process: int) -> bool:
        """Send a connection to the predecessor, whose worker may have parked calls of the same request."""
        predecessor = self._succession.predecessors.current
        if predecessor is None or predecessor.ended:
            return False
        predecessor.send(CALL, PROCESS.pack(process), [Handed(sock.detach(), call)])
        return True

    def _turn(self) -> None:
        """Do what predecessor and successor wait for."""
        succession = self._succession
        succession.step()
        serves = self._crew.has_served and self._stop_signal is None and not self._giving
        if serves and succession.listening is None:
            succession.replace_silent()
        wanted = succession.wanted()
        for descriptor in [each for each in self._watched if each not in wanted]:
            self._forget(descriptor)
        for descriptor, events in wanted.items():
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if events & select.POLLOUT else 0)
            if descriptor not in self._watched:
                self._selector.register(descriptor, mask, lambda: None)
            elif self._watched[descriptor] != mask:
                self._selector.modify(descriptor, mask, lambda: None)
            self._watched[descriptor] = mask
        self._listen()
        self._adopt()
        calls, succession.callers.calls = succession.callers.calls, []
        for process, (descriptor, call) in calls:
            self._connections.hand_out(_connection(descriptor), call, process)
        if self._giving and succession.successor is not None and not succession.is_over:
            self._introduce()
        self._decide(time.monotonic())

    def _forget(self, descriptor: int) -> None:
        """Watch a descriptor no more, because it is about to be closed."""
        if self._watched.pop(descriptor, 0):
            self._selector.unregister(descriptor)

    def _adopt(self) -> None:
        """Serve the connections that have come from the predecessor."""
        if self._giving or self._connections.ready():
            connections, self._succession.connections = self._succession.connections, []
            for descriptor, unread in connections:
                self._connections.hand_out(_connection(descriptor), unread)

    def _may_wait(self) -> bool:
        """Whether a successor is there or expected, so that SIGTERM does not end the workers at once."""
        succession = self._succession
        is_first = self._stop_signal is None and succession.signalled is None
        return is_first and (succession.successor is not None or succession.of_apisix)

    def _decide(self, now: float) -> None:
        """Hand over or end, if it is time for that."""
        succession = self._succession
        since = succession.signalled
        if self._stop_signal is not None or (since is None and not succession.is_wanted):
            return
        is_time = since is not None and now >= since + HANDOVER_SECONDS
        if self._giving:
            if is_time:
                self._stop(signal.SIGTERM)
        elif self._door.listening is None or not self._crew.has_served:
            if since is not None:
                succession.end_early()  # it ends the process, and with it the workers
        elif succession.successor is not None:
            if succession.is_wanted or is_time:
                self._give()
        elif since is not None and now >= since + (SUCCESSOR_SECONDS if succession.of_apisix else 0.0):
            if succession.of_apisix:
                self._give()  # whoever comes while this process ends
            self._stop(signal.SIGTERM)

    def _give(self) -> None:
        """Hand over: the listening socket, and each connection when its worker gives it back.

        If there is no successor yet, all of them wait for it here.
        """
        self._giving = True
        self._door.shut()
        if self._succession.successor is not None:
            self._introduce()
        self._connections.elsewhere = self._send
        self._crew.complete()
        self._crew.retire_all()
        self._connections.hand_out_waiting()

    def _introduce(self) -> None:
        """Give the successor the listening socket, and the connections that wait."""
        logger.info("The successor takes over %s", self._succession.path)
        self._succession.hand_over()
        self._connections.hand_out_waiting()

    def _send(self, sock: socket.socket, call: bytes) -> None:
        successor = self._succession.successor
        if successor is None or not self._succession.is_over:
            self._connections.keep(sock, call)
        else:
            successor.send(CONNECTIONS, b"", [Handed(sock.detach(), call)])

    def _take_back(self, handed: list[Handed]) -> None:
        """Go on with what a dead successor has not acknowledged: in new workers, or for the next successor."""
        for descriptor, unread in handed:
            self._connections.keep(_connection(descriptor), unread)
        if self._giving and self._stop_signal is None and self._succession.signalled is None:
            self._giving = False
            self._connections.elsewhere = None
            self._crew.resume()

    def _owes(self) -> bool:
        """Whether the successor has not got all yet, or may still come. At the end it is told that there is no more."""
        successor, since = self._succession.successor, self._succession.signalled
        if not self._giving:
            return False
        if successor is None or successor.ended or not self._succession.is_over:
            return self._succession.of_apisix and since is not None and time.monotonic() < since + LATE_SECONDS
        if not successor.settled:
            return True
        successor.send(DONE)
        return False


def _connection(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    return sock


def _shared_memory(name: str) -> int:
    """Make a memory that all workers share. It begins with a secret: see plugins/shared_numbers.py."""
    memory = os.memfd_create(f"asgi_bridge-{name}", os.MFD_CLOEXEC)
    os.write(memory, os.urandom(16))
    return memory
