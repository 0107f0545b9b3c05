"""Who has a socket path: a runner gets the listening socket from its predecessor, and gives it to its successor.

A runner that starts connects to the control socket of the process that has the path (see :mod:`.control`), puts its own
control socket in that place, and then imports its plugins:

======================  =====================================================================================
packet                  means
======================  =====================================================================================
HELLO, from successor   I have started. The owner goes on as before.
READY, from successor   My plugins are loaded: hand over.
LISTENER                The listening socket. The sender accepts nothing more.
CONNECTIONS             Connections of the gateway without a call.
PREDECESSOR             The control connection to the sender's own predecessor, which has the socket.
DONE                    There is no more.
REFUSED                 Your version is not mine. Take the path as from an owner that cannot hand over.
SHARED, after HELLO     The memories that the sender's workers share, for the workers of the successor.
CALL, from successor    A connection with a call that is for one of your workers, which has parked calls of its request.
======================  =====================================================================================

A successor that goes away before it is READY costs the owner nothing: the owner puts its control socket back. An owner
that has got SIGTERM hands over without READY when its time is over. The sockets then wait in the successor, on a
thread, until its plugins are loaded. A successor that gets SIGTERM while it loads passes all that it has to its own
successor.

Changes of who has the path happen under a lock on the private folder. The owner yields to a successor alone: if
somebody removes, renames or replaces the path, the owner binds a new socket there. Only where another runner of the
same user has taken the path, because the owner did not answer in time or has another version, the owner leaves it.

This module imports little, because a runner says HELLO before it imports anything that takes long.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..streams import flush
from .callers import Callers
from .control import Control, ControlError, Handed, Packet, close_all
from .control_socket import ControlSocket
from .packets import CONNECTIONS, DONE, IDENTITY, LISTENER, PREDECESSOR, SHARED
from .predecessors import Predecessors
from .private import PrivateFolder
from .sockets import DEFAULT_PERMISSIONS, RunnerSocket, SocketName, bind, check_path, has_owner, move_aside
from .times import END_SECONDS, LOCK_SECONDS, SEEK_SECONDS, SUCCESSOR_SECONDS, TICK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Succession"]

logger = logging.getLogger("asgi_bridge.server")


class Succession:
    """A runner's place in the line of those that have a socket path.

    One thread at a time may use it: that of :mod:`.early` while the plugins are imported, afterwards the event loop's.

    Args:
        path: Absolute path of the socket.
        permissions: Mode of the socket file.

    Raises:
        ConfigurationError: No socket can have this path.

    Attributes:
        private: The private folder.
        control: Our control socket in it.
        predecessors: Who gives us what they have.
        callers: Who has connected to our control socket, and the successor among them.
        listening: The listening socket, once it is ours.
        connections: Connections from the predecessor that nobody serves yet.
        signalled: When SIGTERM came, in monotonic seconds; None: it did not.
        shared: Descriptors of the memories that our workers share; empty: there are none. A successor gets copies.
        is_over: True: the path belongs to the successor, or is removed.
        of_apisix: True: APISIX has started this runner, so it sends SIGKILL one second after SIGTERM.
        closing: Called with a descriptor before it is closed, for an event loop that watches it.
    """

    def __init__(self, path: str, permissions: int = DEFAULT_PERMISSIONS) -> None:
        check_path(path)
        self.path = path
        self.permissions = permissions
        self.private = PrivateFolder(path)
        self.control = ControlSocket(self.private, self._closes)
        self.predecessors = Predecessors(path, self._closes)
        self.callers = Callers(path, self.control, self._closes, self._greet)
        self.listening: RunnerSocket | None = None
        self.connections: list[Handed] = []
        self.signalled: float | None = None
        self.shared: list[int] = []
        self.is_over = False
        self.of_apisix = os.environ.get("APISIX_LISTEN_ADDRESS", "").removeprefix("unix:") == path
        self.closing: Callable[[int], object] = lambda descriptor: None
        self._process = os.getpid()
        self._quiet = False

    def _greet(self, successor: Control) -> None:
        if self.shared:
            successor.send(SHARED, b"", [Handed(os.dup(each)) for each in self.shared])

    def _closes(self, descriptor: int) -> None:
        self.closing(descriptor)

    @property
    def successor(self) -> Control | None:
        """Connection to the process that waits for the socket; None: there is none."""
        return self.callers.successor

    @property
    def is_wanted(self) -> bool:
        """Whether the successor is READY."""
        return self.callers.is_wanted

    @property
    def is_seeking(self) -> bool:
        """Whether there is neither a socket of ours, nor somebody who may give us one."""
        nobody = self.predecessors.current is None and self.listening is None
        return nobody and self.signalled is None and not self.is_over

    # the start

    def begin(self) -> None:
        """Say HELLO to the owner of the path. If there is none, listen.

        Raises:
            ConfigurationError: The path cannot be taken.
        """
        deadline = time.monotonic() + LOCK_SECONDS
        while not self._seek() and time.monotonic() < deadline:
            time.sleep(0.005)

    def _seek(self) -> bool:
        """Find an owner or become it. Returns False if another process has the lock now."""
        with self.control.locked() as locked:
            if not locked:
                return False
            owner = None if self.predecessors.is_refused else self.control.find_other()
            if owner is not None:
                self.predecessors.meet(owner)
                self.control.put()
            elif has_owner(self.path) is False:
                self._bind()
        return True

    def _bind(self) -> None:
        self.listening = bind(self.path, self.permissions)
        self.control.put()

    def say_ready(self) -> None:
        """Tell the predecessor that the plugins are loaded."""
        self.predecessors.say_ready()

    def replace_silent(self) -> None:
        """Take the path from an owner that does not hand over in time. Call it while READY waits for an answer.

        Raises:
            ConfigurationError: The path cannot be taken.
        """
        if self.predecessors.is_silent(self.control.is_shared):
            self._bind()

    # at any time

    def wanted(self) -> dict[int, int]:
        """Return the descriptors to watch: POLLIN or POLLIN | POLLOUT for each. Call :meth:`step` when one is ready."""
        current = self.predecessors.current
        found = {
            each.fileno(): select.POLLIN | (select.POLLOUT if each.wants_write else 0)
            for each in (*self.callers.controls, *([] if current is None else [current]))
            if not each.ended
        }
        descriptor = self.control.descriptor
        if descriptor is not None:
            found[descriptor] = select.POLLIN
        return found

    def step(self) -> None:
        """Do what can be done now, without waiting. The attribute `listening` may be another one afterwards.

        Raises:
            ConfigurationError: The path became free, and cannot be taken.
        """
        try:
            for packet in self.predecessors.packets():
                self._take(packet)
        except ControlError as exc:
            logger.warning("The control socket: %s", exc)
            self.predecessors.end_current()
        self.connections += self.predecessors.take_back()
        self.callers.hear()
        if self.is_seeking:
            self._seek()
        elif self.listening is not None and not self.is_over and not self.is_wanted:
            self._guard(self.listening.name)

    def _take(self, packet: Packet) -> None:
        """Take what a predecessor gives."""
        if packet.kind == CONNECTIONS:
            self.connections += packet.handed
        elif packet.kind == LISTENER:
            self._take_listener(packet)
        elif packet.kind == SHARED and not self.shared:
            self.shared += [each.descriptor for each in packet.handed]
        else:
            close_all(packet.handed)

    def _take_listener(self, packet: Packet) -> None:
        """Take the listening socket, and give its file the mode that this process wants."""
        try:
            ((descriptor, _),) = packet.handed
            name = SocketName(self.path, *IDENTITY.unpack(packet.data))
            sock = socket.socket(fileno=descriptor)
        except (ValueError, OSError, struct.error) as exc:
            close_all(packet.handed)
            raise ControlError(f"a predecessor has sent something else than a listening socket: {exc}") from None
        sock.setblocking(False)
        if self.listening is None:
            self.listening = RunnerSocket(sock, name)
            self.listening.set_mode(self.permissions)
            return
        # the predecessor hung, and the path has our own socket by now: only the backlog is of use
        with sock, contextlib.suppress(OSError):
            while True:
                self.connections.append(Handed(sock.accept()[0].detach()))

    def _guard(self, ours: SocketName) -> None:
        """Bind a new socket if the path does not lead to ours any more, and put our control socket back.

        The latter if that of a successor is in place which has gone. A runner that has no private folder leaves the
        path: nobody could tell it that a successor has it.
        """
        self.control.keep_folder()
        is_safe = self.successor is not None or self.control.is_in_place
        if not self.control.is_shared or (is_safe and ours.is_there()):
            return
        with self.control.locked() as locked:
            if not locked:
                return
            self.callers.hear()  # one may have come in this moment, and have put its own control socket in place
            if not ours.is_there():
                other = self.control.find_other() if self.successor is None else None
                if other is not None:
                    other.close()
                    self._say_once(logging.WARNING, "Another runner has taken %s. This one keeps its connections")
                    return
                self._bind_anew()
            if self.successor is None:
                self.control.put()

    def _bind_anew(self) -> None:
        try:
            moved = move_aside(self.path)
            self.listening = bind(self.path, self.permissions)
        except (ConfigurationError, OSError) as exc:
            self._say_once(
                logging.ERROR, "The socket %s was removed or replaced, and cannot be bound anew: " + str(exc)
            )
            return
        self._quiet = False
        logger.warning(
            "The socket %s was removed or replaced by somebody else. It is bound anew%s",
            self.path,
            f"; what was there is at {moved} now" if moved else "",
        )

    def _say_once(self, level: int, text: str) -> None:
        """Log a line that every turn would log, until the path is ours again."""
        if not self._quiet:
            self._quiet = True
            logger.log(level, text, self.path)

    # the end

    def note_signal(self) -> bool:
        """Note SIGTERM while plugins are imported. Returns False where no successor is there, or to be expected."""
        if self.successor is None and not self.of_apisix:
            return False
        self.signalled = self.signalled or time.monotonic()
        return True

    def end_early(self) -> None:
        """End the process, which has got SIGTERM before it served: once all is passed on, or no successor has come."""
        now, since = time.monotonic(), self.signalled or 0.0
        if self.successor is not None:
            self.pass_on()
            if self.successor.settled or self.successor.ended or now >= since + END_SECONDS:
                _exit()
        elif self.is_over or now >= since + SUCCESSOR_SECONDS:  # the successor has all, and has hung up
            self.close()
            _exit()

    def pass_on(self) -> None:
        """Give the successor all that this process has, though it serves nothing itself. Later calls do nothing."""
        successor = self.successor
        if successor is None or self.is_over:
            return
        self.is_over = True
        for each in self.predecessors.give_up():
            successor.send(PREDECESSOR, b"", [each])
        if self.listening is not None:
            self.send_listener()
        if self.connections:
            successor.send(CONNECTIONS, b"", self.connections)
            self.connections = []
        successor.send(DONE)

    def send_listener(self) -> None:
        """Send the listening socket to the successor."""
        assert self.listening is not None and self.successor is not None
        name = self.listening.name
        copy = os.dup(self.listening.sock.fileno())
        self.successor.send(LISTENER, IDENTITY.pack(name.device, name.inode), [Handed(copy)])

    def remove_path(self) -> None:
        """Remove path and control socket. Does nothing where they belong to a successor."""
        if self.is_over or os.getpid() != self._process:
            return
        self.is_over = True
        with self.control.locked():  # a runner that starts now finds both or none
            self.control.remove()
            if self.listening is not None:
                self.listening.unlink()

    def close(self) -> None:
        """Give all to the successor. If there is none, remove path and control socket, and close the connections."""
        if os.getpid() != self._process:
            return
        self.pass_on()
        self.remove_path()
        self._let_go()
        self.private.close()

    def _let_go(self) -> None:
        close_all(map(Handed, self.shared))
        self.shared.clear()
        close_all(self.connections)
        self.connections = []
        self.control.drop()

    def take_now(self) -> RunnerSocket:
        """Get the listening socket at once, for a process without a control socket. Close the connections.

        Raises:
            ConfigurationError: The path cannot be taken.
        """
        self.begin()
        self.say_ready()
        while self.listening is None:
            self.step()
            if self.listening is None:
                self.replace_silent()
                time.sleep(TICK_SECONDS / 10)
        until = time.monotonic() + SEEK_SECONDS
        while self.predecessors.current is not None and time.monotonic() < until:
            self.step()
            time.sleep(TICK_SECONDS / 10)
        self.control.remove()
        self._let_go()
        return self.listening


def _exit() -> None:
    """End the process after SIGTERM, from any thread."""
    flush()
    os._exit(128 + signal.SIGTERM)
