"""Those who connect to our control socket. Who has said HELLO last is the successor."""

import logging
import os
import socket
import stat
from collections.abc import Callable

from .control import Control, Handed, close_all, receive
from .control_socket import ControlSocket
from .packets import CALL, HELLO, MAX_PACKETS, PROCESS, READY, REFUSED, VERSION

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
        greet: Called with a new successor.

    Attributes:
        successor: Connection to the process that waits for the socket; None: there is none.
        is_wanted: True: the successor is READY.
        back: Called with the connections that a dead successor has not acknowledged.
        calls: Connections with a call from the successor, each with the process id of the worker that it is for.
    """

    def __init__(
        self,
        path: str,
        control: ControlSocket,
        closing: Callable[[int], object],
        greet: Callable[[Control], object] = lambda successor: None,
    ) -> None:
        self._path = path
        self._control = control
        self._closing = closing
        self._greet = greet
        self.successor: Control | None = None
        self.is_wanted = False
        self.back: Callable[[list[Handed]], object] = close_all
        self.calls: list[tuple[int, Handed]] = []
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
        self._greet(caller)
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
            if packet.kind == CALL and len(packet.data) == PROCESS.size:
                (process,) = PROCESS.unpack(packet.data)
                self.calls += [(process, each) for each in packet.handed]
                continue
            close_all(packet.handed)
            if packet.kind == READY:
                self.is_wanted = True

    def _lose_successor(self) -> None:
        assert self.successor is not None
        back = self._close(self.successor)
        self.successor, self.is_wanted = None, False
        connections = [each for each in back if _is_connection(each)]
        close_all(each for each in back if each not in connections)
        self.back(connections)

    def _close(self, caller: Control) -> list[Handed]:
        self._closing(caller.fileno())
        return caller.close()


def _is_connection(handed: Handed) -> bool:
    """Whether this is a connection: neither a copy of the listening socket nor a memory."""
    if not stat.S_ISSOCK(os.fstat(handed.descriptor).st_mode):
        return False
    sock = socket.socket(fileno=handed.descriptor)
    try:
        return not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    finally:
        sock.detach()
