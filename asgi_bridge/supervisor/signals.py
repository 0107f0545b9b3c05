"""The signals of a process that waits in a selector."""

import selectors
import signal
import socket
from collections import deque
from collections.abc import Iterator
from types import TracebackType

__all__ = ["Signals"]


class Signals:
    """Collects signals, from ``with Signals(selector) as signals`` on, and lets each of them wake the selector.

    Args:
        selector: The selector.
        numbers: The signals.
    """

    def __init__(self, selector: selectors.BaseSelector, numbers: tuple[signal.Signals, ...]) -> None:
        self._selector = selector
        self._numbers = numbers
        self._come: deque[int] = deque()
        self._reader, self._writer = socket.socketpair()

    def __enter__(self) -> "Signals":
        for end in (self._reader, self._writer):
            end.setblocking(False)
        for number in self._numbers:
            signal.signal(number, lambda number, frame: self._come.append(number))
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._reader, selectors.EVENT_READ, lambda: self._reader.recv(4096))
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.set_wakeup_fd(-1)
        self._selector.unregister(self._reader)
        self._reader.close()
        self._writer.close()

    def come(self) -> Iterator[int]:
        """Yield the signals that have come since the last call, in their order."""
        while self._come:
            yield self._come.popleft()
