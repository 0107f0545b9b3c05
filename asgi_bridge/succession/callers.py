"""Those who connect to our control socket. Who has said HELLO last is the successor."""

import logging
import socket
from collections.abc import Callable

from .control import Control, Handed, close_all, receive
from .control_socket import ControlSocket
from .packets import HELLO, MAX_PACKETS, READY, REFUSED, VERSION

__all__ = ["Callers"]

logger = logging.getLogger("asgi_bridge.server")

MAX_CALLERS = 16
"""Maximum number of processes that have connected and said nothing. The oldest is sent away."""


class Callers:
    """The callers and the successor.

    Args:
        path: Of the socket, for the log.
        control: Our control socket.
        closing: Called with a descriptor before it is closed.

    Attributes:
        successor: Connection to the process that waits for the socket; None: there is none.
        is_wanted: True: the successor is READY.
        back: Called with the connections that a dead successor has not acknowledged.
    """

    def __init__(self, path: str, control: ControlSocket, closing: Callable[[int], object]) -> None:
        self._path = path
        self._control = control
        self._closing = closing
        self.successor: Control | None = None
        self.is_wanted = False
        self.back: Callable[[list[Handed]], object] = close_all
        self._silent: list[Control] = []

    @property
    def controls(self) -> list[Control]:
        """The connections of all."""
        return [*self._silent, *([] if self.successor is None else [self.successor])]

    def hear(self) -> None:
        """Accept, and read what they say, without waiting."""
        for _ in range(MAX_CALLERS):
            caller = self._control.accept()
            if caller is None:
                break
            self._silent.append(caller)
        for caller in list(self._silent):
            self._hear_silent(caller)
        while len(self._silent) > MAX_CALLERS:
            self._close(self._silent.pop(0))
        self._hear_successor()

    def _hear_silent(self, caller: Control) -> None:
        packet = receive(caller)
        if packet is None and not caller.ended:
            return
        self._silent.remove(caller)
        if packet is None or packet.kind != HELLO or packet.data != VERSION:
            if packet is not None and packet.kind == HELLO:
                logger.warning(
                    "A runner of another version has started: it cannot take over %s without loss", self._path
                )
                caller.send(REFUSED)
            if packet is not None:
                close_all(packet.handed)
            self._close(caller)
            return
        if self.successor is not None:
            self._lose_successor()
        self.successor = caller
        logger.info("A successor has started, and will take over %s", self._path)

    def _hear_successor(self) -> None:
        for _ in range(MAX_PACKETS):
            if self.successor is None:
                return
            packet = receive(self.successor)
            if packet is None:
                if self.successor.ended:
                    self._lose_successor()
                    logger.warning("The successor has ended before it took over %s. This runner goes on", self._path)
                return
            close_all(packet.handed)
            if packet.kind == READY:
                self.is_wanted = True

    def _lose_successor(self) -> None:
        assert self.successor is not None
        back = self._close(self.successor)
        self.successor, self.is_wanted = None, False
        self.back([each for each in back if not _is_listening(each)])

    def _close(self, caller: Control) -> list[Handed]:
        self._closing(caller.fileno())
        return caller.close()


def _is_listening(handed: Handed) -> bool:
    """Whether this is a copy of a listening socket, of which the process has its own. It is closed then."""
    sock = socket.socket(fileno=handed.descriptor)
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        return True
    sock.detach()
    return False
