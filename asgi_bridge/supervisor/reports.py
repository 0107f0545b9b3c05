"""What the workers tell of themselves, for the one of them that serves the admin address.

That worker asks the supervisor, which asks the others. What a worker has told last outlives it: counts never go back.
"""

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from ..insight.tally import Tally
from .channel import Word, pack, send, unpack
from .handle import State, WorkerHandle

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Reports"]

WAIT_SECONDS = 0.5
"""Seconds that workers have to report. What one of them has told before stands for one that has not."""
KEPT_LINES = 50
"""Maximum number of last warnings and errors that are kept of workers that have ended."""


class Reports:
    """Collects reports.

    Args:
        workers: All workers that run.
    """

    def __init__(self, workers: "Iterable[WorkerHandle]") -> None:
        self._workers = workers
        self._last: dict[int, dict[str, Any]] = {}
        self._ended = Tally()
        self._lines: list[Any] = []
        self._asking: list[WorkerHandle] = []
        self._missing: set[int] = set()
        self._until = 0.0

    def ask(self, asking: WorkerHandle, memory: int) -> None:
        """Ask all other workers, and answer `asking` once they have reported.

        Args:
            asking: A worker.
            memory: Its own report.
        """
        self._last[asking.pid] = unpack(memory)
        if not self._asking:
            self._until = time.monotonic() + WAIT_SECONDS
        self._asking.append(asking)
        for worker in self._workers:
            if worker is not asking and worker.state is not State.LOADING and worker.tell(Word.ASK):
                self._missing.add(worker.pid)
        self.step()

    def take(self, worker: WorkerHandle, memory: int) -> None:
        """Take the report of a worker: one that it was asked for, or its last."""
        self._last[worker.pid] = unpack(memory)
        self._missing.discard(worker.pid)
        self.step()

    def bury(self, worker: WorkerHandle) -> None:
        """Keep what a worker that has ended has told."""
        self._missing.discard(worker.pid)
        self._asking = [each for each in self._asking if each is not worker]
        last = self._last.pop(worker.pid, None)
        if last is not None:
            self._ended.add(last["tally"])
            self._lines = [*last["lines"], *self._lines][:KEPT_LINES]
        self.step()

    def step(self) -> None:
        """Answer those that have asked, if all have reported or the time is over."""
        if not self._asking or (self._missing and time.monotonic() < self._until):
            return
        ended = {"worker": {}, "tally": self._ended.dump(), "lines": self._lines}
        memory = pack([*self._last.values(), ended])
        for worker in self._asking:
            with contextlib.suppress(OSError):  # it asks again
                send(worker.channel, Word.REPORTS, 0, b"", memory)
        os.close(memory)
        self._asking.clear()
        self._missing.clear()
