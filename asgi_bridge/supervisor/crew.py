"""The workers: who starts, who is replaced, who ends."""

import logging
import selectors
import signal
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from .channel import Word
from .connections import Connections
from .handle import State, WorkerHandle
from .reports import Reports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Crew"]

logger = logging.getLogger("asgi_bridge.server")

HANG_LOOKS = 20
"""A worker is replaced if its event loop stands still for this many looks in a row (10 s)."""
RETIRE_SECONDS = 60.0
"""Seconds that a retiring worker gets for the calls that it has. Then it ends as at a SIGTERM."""
RETRY_SECONDS = (1.0, 30.0)
"""Seconds between two attempts to replace a worker whose plugins do not load: those after the first, and the maximum.
Each attempt doubles them."""
EXIT_CODE = 3
"""Exit code of a runner whose first worker ends without an error of its own before it serves."""


class Crew:
    """Starts workers, and replaces them.

    Args:
        selector: The selector that wakes this process.
        wanted: Number of workers.
        connections: Who has which connection.
        shared: Descriptors of the memories that all workers share.

    Attributes:
        wanted: The same.
        message: What each worker is told at its start.
        is_complete: True: nobody is started or replaced any more, because the process ends or hands over.
        socket: Device and inode of the file of the listening socket; zeros: there is none.
        has_served: True: a worker was ready at some time.
        failed: Exit code of the first worker if it ended before it served, or of one that was ended hard at the end of
            the process; 0: there is none.
        on_ready: Called when a worker is ready, before it gets connections.
    """

    def __init__(
        self, selector: selectors.BaseSelector, wanted: int, connections: Connections, shared: list[int]
    ) -> None:
        self.wanted = wanted
        self.message: Mapping[str, Any] = {}
        self.is_complete = False
        self.socket = (0, 0)
        self.has_served = False
        self.failed = 0
        self.on_ready: Callable[[], object] = lambda: None
        self._selector = selector
        self._connections = connections
        self._shared = shared
        self._reports = Reports(connections.workers)
        # a replacement in progress: the old worker retires once the new one is ready; one at a time
        self._worn: deque[WorkerHandle] = deque()
        self._old: WorkerHandle | None = None
        self._new: WorkerHandle | None = None
        self._retry = _Retry()

    @property
    def is_over(self) -> bool:
        """Whether no worker runs, and none will be started."""
        return not self.workers and (self.is_complete or not self.has_served)

    @property
    def workers(self) -> list[WorkerHandle]:
        """All that run."""
        return self._connections.workers

    # beginning

    def start(self) -> WorkerHandle:
        """Start a worker."""
        worker = WorkerHandle({**self.message, "first": not self.has_served}, self._shared)
        worker.name_socket(self.socket)
        self.workers.append(worker)
        self._selector.register(worker.channel, selectors.EVENT_READ, lambda: self._read(worker))
        return worker

    def fill(self) -> None:
        """Start the workers that are missing. The first one starts alone: an error of the plugins is logged once."""
        if not self.has_served or self.is_complete or time.monotonic() < self._retry.at:
            return
        active = sum(each.state is not State.RETIRING for each in self.workers)
        if self._old is not None and self._new is not None:
            active -= 1  # the new one takes the place of the old one
        for _ in range(self.wanted - active):
            self.start()

    def resize(self, more: int) -> None:
        """Change the number of workers, to 1 at least.

        Args:
            more: 1 or -1.
        """
        self.wanted = max(1, self.wanted + more)
        ready = [each for each in self._connections.ready() if each is not self._old]
        for worker in ready[self.wanted :]:
            self.retire(worker)
        self.fill()

    def roll(self) -> None:
        """Replace all workers, one after the other."""
        self._worn.extend(each for each in self.workers if each not in self._worn)
        self._replace()

    def _replace(self) -> None:
        """Replace the next worker that is to be replaced, unless one is being replaced."""
        while not (self._old or self._new or self.is_complete) and self._worn:
            worker = self._worn.popleft()
            if worker in self.workers and worker.state is State.READY:
                self._old, self._new = worker, self.start()

    # messages

    def _read(self, worker: WorkerHandle) -> None:
        """Handle all messages of a worker."""
        while (message := worker.next_message()) is not None:
            word, slot, data, memory = message
            if word is Word.READY:
                self._greet(worker)
            elif word is Word.WORN:
                if worker not in self._worn:
                    self._worn.append(worker)
                self._replace()
            elif word is Word.REPORTS and memory is not None:
                self._reports.ask(worker, memory)
            elif word is Word.REPORT and memory is not None:
                self._reports.take(worker, memory)
            else:
                self._connections.left(worker, word, slot, data)

    def _greet(self, worker: WorkerHandle) -> None:
        """Give a worker that is ready its share."""
        if self.is_complete:
            return
        worker.state = State.READY
        worker.look()
        self._retry = _Retry()
        self.has_served = True
        logger.info("Worker %d takes calls", worker.pid)
        self.on_ready()
        if worker is self._new:
            old, self._new = self._old, None
            if old is not None:
                self.retire(old)
        self._replace()
        self.fill()
        self._connections.hand_out_waiting()
        self._connections.balance(0.0)

    # the end

    def complete(self) -> None:
        """Start and replace nobody from now on."""
        self.is_complete = True
        self._old = self._new = None
        self._worn.clear()

    def resume(self) -> None:
        """Start and replace again."""
        self.is_complete = False
        self.fill()

    def name_socket(self, name: tuple[int, int]) -> None:
        """Tell all workers by which device and inode they recognize the socket at its path; zeros: there is none."""
        if name != self.socket:
            self.socket = name
            for worker in self.workers:
                worker.name_socket(name)

    def retire_all(self) -> None:
        """Let all workers give their connections back, and end."""
        for worker in self.workers:
            if worker.state is State.READY:
                self.retire(worker)
            elif worker.state is State.LOADING:
                worker.kill(signal.SIGTERM)

    def retire(self, worker: WorkerHandle) -> None:
        """Let a worker give its connections back, and end."""
        worker.state = State.RETIRING
        worker.retire_by = time.monotonic() + RETIRE_SECONDS
        if not worker.tell(Word.RETIRE):
            worker.retire_by = 0.0

    def kill_all(self) -> None:
        """Kill all workers, and wait for them."""
        for worker in self.workers:
            worker.kill(signal.SIGKILL)
        for worker in self.workers:
            worker.wait()

    def reap(self) -> None:
        """Bury the workers that have ended."""
        for worker in list(self.workers):
            code = worker.ended()
            if code is not None:
                self._bury(worker, code)

    def _bury(self, worker: WorkerHandle, code: int) -> None:
        """Hand out the connections that a dead worker was not busy with, close the others, and replace the worker."""
        self._read(worker)  # what it said last
        self._selector.unregister(worker.channel)
        worker.channel.close()
        self.workers.remove(worker)
        self._reports.bury(worker)
        busy = self._connections.inherit(worker)
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        if not self.is_complete:
            if worker.state is State.LOADING:
                self._mourn_loading(worker, code, how)
            elif worker.state is State.READY:
                logger.error("Worker %d ended %s, with %d calls in flight; it is replaced", worker.pid, how, busy)
        elif worker.state is not State.LOADING and code not in (0, -signal.SIGTERM):
            self.failed = code if code > 0 else 128 - code
        if busy and worker.state is State.RETIRING:
            logger.error("Worker %d retired %s, and cut %d calls off", worker.pid, how, busy)
        if worker is self._old:
            self._old = None
            self._replace()
        self.fill()

    def _mourn_loading(self, worker: WorkerHandle, code: int, how: str) -> None:
        """Say what becomes of the runner if a worker's plugins do not load."""
        if not self.has_served:
            self.failed = code if code > 0 else EXIT_CODE
            if code <= 0:  # otherwise it has said why
                logger.error("The first worker ended %s before it served; the runner ends", how)
        elif worker is self._new:
            self._old = self._new = None
            self._worn.clear()
            logger.error("The new worker %d ended %s before it served; the present workers stay", worker.pid, how)
        else:
            seconds = self._retry.later()
            logger.error("Worker %d ended %s before it served; the next attempt is in %g s", worker.pid, how, seconds)

    def look(self, seconds: float) -> None:
        """Replace workers that hang, end those that retire for too long, and start those that are missing.

        Args:
            seconds: Between two looks.
        """
        now = time.monotonic()
        for worker in self.workers:
            if worker.state is State.LOADING:
                continue
            worker.look()
            if worker.stalled >= HANG_LOOKS:
                logger.error(
                    "Worker %d: its event loop has not turned for %g s; it is replaced",
                    worker.pid,
                    worker.stalled * seconds,
                )
                worker.kill(signal.SIGKILL)
            elif now >= worker.retire_by:
                worker.retire_by = float("inf")
                worker.kill(signal.SIGTERM)
        self.reap()
        self.fill()


class _Retry:
    """When the next attempt is made to replace a worker whose plugins do not load."""

    def __init__(self) -> None:
        self.at = 0.0
        self._seconds = RETRY_SECONDS[0]

    def later(self) -> float:
        """Wait before the next attempt. Returns for how many seconds."""
        seconds, self._seconds = self._seconds, min(2 * self._seconds, RETRY_SECONDS[1])
        self.at = time.monotonic() + seconds
        return seconds
