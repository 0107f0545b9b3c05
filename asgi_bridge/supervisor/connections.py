"""Which worker has which connection of the gateway."""

import socket
from collections import deque
from typing import TYPE_CHECKING

from .channel import Word
from .handle import State, WorkerHandle

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Connections"]

SLOW_LOOKS = 2
"""A worker gets no new connections, while others do, if its event loop stands still for this many looks in a row."""


class Connections:
    """Hands connections to workers, and takes them back.

    Attributes:
        workers: All workers that run.
        elsewhere: Takes a connection, and the call that it is in, for a successor; None: there is none, or it is not
            its turn yet.
        before: Takes a connection, its call, and the process that the call is for, if that may be a predecessor's
            worker. Returns whether it has taken it.
        is_closed: True: the workers end. A connection that comes back is closed, unless it goes elsewhere.
    """

    def __init__(self) -> None:
        self.workers: list[WorkerHandle] = []
        self.elsewhere: Callable[[socket.socket, bytes], object] | None = None
        self.before: Callable[[socket.socket, bytes, int], bool] = lambda sock, call, process: False
        self.is_closed = False
        self._waiting: deque[tuple[socket.socket, bytes, int]] = deque()

    def ready(self) -> list[WorkerHandle]:
        """Return the workers that take connections."""
        return [each for each in self.workers if each.state is State.READY]

    def hand_out(self, sock: socket.socket, call: bytes = b"", process: int = 0) -> None:
        """Hand a connection to the worker that has fewest. If none can take it, it waits.

        Args:
            sock: The connection.
            call: The call that it is in; empty: it is in none.
            process: The worker that the call is for, if it still runs; 0: any.
        """
        wanted = [each for each in self.workers if each.pid == process and each.state is not State.LOADING]
        if process and not wanted and self.before(sock, call, process):
            return
        if self.elsewhere is not None and not wanted:
            self.elsewhere(sock, call)
            return
        ready = sorted(self.ready(), key=lambda each: (each.stalled >= SLOW_LOOKS, len(each.connections)))
        for worker in wanted or ready:
            if worker.take(sock, call):
                return
        self._waiting.append((sock, call, process))

    def keep(self, sock: socket.socket, call: bytes = b"") -> None:
        """Keep a connection until :meth:`hand_out_waiting`."""
        self._waiting.append((sock, call, 0))

    def hand_out_waiting(self) -> None:
        """Hand out the connections that wait."""
        for _ in range(len(self._waiting)):
            self.hand_out(*self._waiting.popleft())

    def close_waiting(self) -> None:
        """Close the connections that wait."""
        while self._waiting:
            self._waiting.popleft()[0].close()

    def balance(self, slack: float) -> None:
        """Let each worker that has more connections than its share give the excess back.

        Args:
            slack: Part of its share that a worker may have too many.
        """
        ready = self.ready()
        if len(ready) < 2 or self.elsewhere is not None or self.is_closed:
            return
        share = -(-sum(len(each.connections) for each in ready) // len(ready))
        for worker in ready:
            excess = len(worker.connections) - len(worker.recalled) - share
            if excess > slack * share:
                worker.recall(excess)

    def left(self, worker: WorkerHandle, word: Word, slot: int, data: bytes) -> None:
        """Take a connection that a worker has no more.

        Args:
            worker: The worker.
            word: What it says of the connection: CLOSED, RETURNED or MOVED.
            slot: The connection's number there.
            data: For MOVED, whom the call is for, and the call.
        """
        if slot not in worker.connections:
            return
        asked = worker.state is State.RETIRING or slot in worker.recalled
        sock = worker.give_up(slot)
        if word is Word.MOVED:
            self.hand_out(sock, data[4:], int.from_bytes(data[:4], "little"))
        elif word is Word.CLOSED or self._has_ended():
            sock.close()
            if self._waiting:  # for a descriptor, perhaps
                self.hand_out(*self._waiting.popleft())
        elif asked:
            self.hand_out(sock)
        else:  # it has no descriptor free
            self.keep(sock)

    def inherit(self, worker: WorkerHandle) -> int:
        """Take all connections of a worker that has died, and hand out those that it was not busy with.

        Returns:
            The number of the others. They are closed.
        """
        idle, busy = [], 0
        for slot in list(worker.connections):
            is_busy = worker.is_busy(slot)
            sock = worker.give_up(slot)
            if is_busy or self._has_ended():
                busy += is_busy
                sock.close()
            else:
                idle.append(sock)
        for sock in idle:
            self.hand_out(sock)
        return busy

    def _has_ended(self) -> bool:
        return self.is_closed and self.elsewhere is None
