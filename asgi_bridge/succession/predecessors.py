"""Those who have, or have had, the socket path before this process. Each gives what it has, one after the other."""

import logging
import socket
import time
from collections.abc import Callable, Iterator

from .control import Control, ControlError, Handed, Packet, close_all, receive
from .packets import DONE, HELLO, MAX_PACKETS, PREDECESSOR, READY, REFUSED, VERSION
from .times import OWNER_SECONDS, SEEK_SECONDS

__all__ = ["Predecessors"]

logger = logging.getLogger("asgi_bridge.server")


class Predecessors:
    """The line of the predecessors.

    Args:
        path: Of the socket, for the log.
        closing: Called with a descriptor before it is closed.

    Attributes:
        current: Connection to the one who gives now; None: there is none.
        back: Connections with a call that a predecessor has not taken.
        is_refused: True: the owner cannot hand over, because it has another version.
    """

    def __init__(self, path: str, closing: Callable[[int], object]) -> None:
        self._path = path
        self._closing = closing
        self.current: Control | None = None
        self.back: list[Handed] = []
        self.is_refused = False
        self._next: list[Control] = []
        self._ready_at: float | None = None
        self._seeks_since = time.monotonic()

    def meet(self, owner: Control) -> None:
        """Say HELLO to an owner."""
        self.current = owner
        owner.send(HELLO, VERSION)
        logger.warning("Another runner listens on %s: it hands over when the plugins are loaded here", self._path)
        if self._ready_at is not None:
            owner.send(READY)

    def say_ready(self) -> None:
        """Say that the plugins are loaded."""
        self._ready_at = time.monotonic()
        if self.current is not None:
            self.current.send(READY)

    @property
    def is_ready(self) -> bool:
        """Whether the plugins are loaded."""
        return self._ready_at is not None

    def packets(self) -> Iterator[Packet]:
        """Yield what a predecessor gives: LISTENER and CONNECTIONS. The sockets belong to the caller."""
        for _ in range(MAX_PACKETS):
            current = self.current
            if current is None:
                return
            packet = receive(current)
            if packet is None:
                if not current.ended:
                    return
                self.end_current()
            elif packet.kind == DONE:
                self.end_current()
            elif packet.kind == REFUSED:
                self.is_refused = True
                self.end_current()
            elif packet.kind == PREDECESSOR:
                self._next += _controls(packet.handed)
            else:
                yield packet

    def end_current(self) -> None:
        """Go on with the next one."""
        assert self.current is not None
        self._closing(self.current.fileno())
        self.back += self.current.close()
        self.current = self._next.pop(0) if self._next else None
        self._seeks_since = time.monotonic()
        if self.current is not None and self.is_ready:
            self.current.send(READY)

    def take_back(self) -> list[Handed]:
        """Return the connections with a call that a predecessor has not taken. They belong to the caller again."""
        back, self.back = self.back, []
        return back

    def give_up(self) -> list[Handed]:
        """Return the control connections of all, which a successor goes on with. There is no predecessor any more."""
        if self.current is None:
            return []
        self.current.flush()
        self._closing(self.current.fileno())
        line = [Handed(each.detach()) for each in (self.current, *self._next)]
        self.current, self._next = None, []
        return line

    def is_silent(self, is_shared: bool) -> bool:
        """Whether the time is over in which an owner could have handed over to this process, which is ready.

        Args:
            is_shared: Whether there is a place where it can be found at all.
        """
        now = time.monotonic()
        if self.current is None:
            return not is_shared or self.is_refused or now >= self._seeks_since + SEEK_SECONDS
        if self._ready_at is None or now < self._ready_at + OWNER_SECONDS:
            return False
        logger.error("The owner of %s does not hand over in %g s: it is not waited for", self._path, OWNER_SECONDS)
        return True


def _controls(handed: list[Handed]) -> Iterator[Control]:
    """Make control connections of descriptors. Raises ControlError for what is no socket."""
    for number, each in enumerate(handed):
        try:
            yield Control(socket.socket(fileno=each.descriptor))
        except OSError as exc:
            close_all(handed[number:])
            raise ControlError(f"a predecessor has sent something else than a socket: {exc}") from None
