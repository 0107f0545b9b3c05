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
======================  =====================================================================================

A successor that goes away before it is READY costs the owner nothing: the owner puts its control socket back. An owner
that has got SIGTERM hands over without READY when its time is over. The sockets then wait in the successor, on a
thread, until its plugins are loaded. A successor that gets SIGTERM while it loads passes all that it has to its own
successor.

Changes of who has the path happen under a lock on the private folder. The owner yields to a successor alone: if
somebody removes, renames or replaces the path, the owner binds a new socket there.

This module imports little, because a runner says HELLO before it imports anything that takes long.
"""

import contextlib
import fcntl
import logging
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ..errors import ConfigurationError
from ..streams import flush, open_streams
from .control import NAME, Control, ControlError, Handed, Packet, accept, connect, identity, listen, open_private
from .private import PrivateFolder
from .sockets import DEFAULT_PERMISSIONS, RunnerSocket, SocketName, bind, check_path, has_owner, socket_path

__all__ = ["CONNECTIONS", "DONE", "LISTENER", "Succession", "begin"]

logger = logging.getLogger("asgi_bridge.server")

HELLO, READY, LISTENER, CONNECTIONS, PREDECESSOR, DONE = range(1, 7)
VERSION = b"1"
"""Data of HELLO. The owner hangs up on a process of another version, which then takes the path as from an owner that
cannot hand over."""

SUCCESSOR_SECONDS = 0.55
"""Seconds after SIGTERM in which a successor has to say HELLO, where APISIX has started the runner. At a reload APISIX
starts the successor at the moment of the signal."""
HANDOVER_SECONDS = 0.8
"""An owner with a successor hands over this many seconds after SIGTERM, even if the successor is not READY."""
END_SECONDS = 0.95
"""A runner that APISIX has started ends this many seconds after SIGTERM. APISIX sends SIGKILL after one second."""
SEEK_SECONDS = 1.0
"""Seconds that a runner looks for the control socket of an owner that lives. One whose successor was killed puts it
back within this time. After it the runner takes the path as from an owner that cannot hand over."""
OWNER_SECONDS = 10.0
"""Seconds that an owner has to answer READY. One whose event loop hangs longer is not waited for."""
TICK_SECONDS = 0.05
"""Seconds between two looks, where nothing wakes the process."""
LOCK_SECONDS = 3.0
"""Seconds to wait for the lock at the start. The others hold it for milliseconds; one of them may be stopped."""

_IDENTITY = struct.Struct("QQ")
"""Data of LISTENER: device and inode of the socket file."""


class Succession:
    """A runner's place in the line of those that have a socket path.

    One thread at a time may use it: its own while the plugins are imported, afterwards the event loop's.

    Args:
        path: Absolute path of the socket.
        permissions: Mode of the socket file.

    Raises:
        ConfigurationError: No socket can have this path.

    Attributes:
        private: The private folder.
        listening: The listening socket, once it is ours.
        connections: Connections from the predecessor that nobody serves yet.
        predecessor: Connection to the process that has the socket, or has had it.
        successor: Connection to the process that waits for the socket.
        is_wanted: True: the successor is READY.
        signalled: When SIGTERM came, in monotonic seconds; None: it did not.
        is_over: True: the path belongs to the successor, or is removed.
        closing: Called with a descriptor before it is closed, for an event loop that watches it.
        back: Called with the sockets that a dead successor has not acknowledged.
    """

    def __init__(self, path: str, permissions: int = DEFAULT_PERMISSIONS) -> None:
        check_path(path)
        self.path = path
        self.permissions = permissions
        self.private = PrivateFolder(path)
        self.listening: RunnerSocket | None = None
        self.connections: list[Handed] = []
        self.predecessor: Control | None = None
        self.successor: Control | None = None
        self.is_wanted = False
        self.signalled: float | None = None
        self.is_over = False
        self.closing: Callable[[int], object] = lambda descriptor: None
        self.back: Callable[[list[Handed]], object] = lambda handed: None
        self.of_apisix = os.environ.get("APISIX_LISTEN_ADDRESS", "").removeprefix("unix:") == path
        self._process = os.getpid()
        self._is_ready = False
        self._ready_at = 0.0
        self._seeks_since = self._ready_at = time.monotonic()
        self._next: list[Control] = []
        self._callers: list[Control] = []
        self._control: socket.socket | None = None
        self._name: tuple[int, int] | None = None
        self._guard_failed = False
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._folder = None
        if not self.private.temporary and self.private.path is not None:
            self._folder = open_private(self.private.path)

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
        with self._locked() as locked:
            if not locked:
                return False
            if self._folder is not None and identity(self._folder) != self._name:
                owner = connect(self._folder)
                if owner is not None:
                    self.predecessor = owner
                    owner.send(HELLO, VERSION)
                    logger.warning(
                        "Another runner listens on %s: it hands over when the plugins are loaded here", self.path
                    )
                    if self._is_ready:
                        owner.send(READY)
                    self._put_control()
                    return True
            if has_owner(self.path) is False:
                self._bind()
        return True

    def _bind(self) -> None:
        self.listening = bind(self.path, self.permissions)
        self._put_control()

    def _put_control(self) -> None:
        """Put our own control socket in its place, unless it is there."""
        if self._folder is None or (self._name is not None and identity(self._folder) == self._name):
            return
        self._drop_control()
        try:
            self._control, self._name = listen(self._folder)
        except OSError as exc:
            logger.warning(
                "There is no control socket in %s (%s): no other runner can take over without loss",
                self.private.path,
                exc.strerror,
            )

    def _keep_control(self) -> None:
        """Put our control socket back, if that of a successor is there which has gone. Only an owner does this."""
        if self._folder is not None and self._name is not None and identity(self._folder) != self._name:
            with self._locked() as locked:
                if locked:
                    self._hear_callers()  # one may have come in this moment, and have put its own socket there
                    if self.successor is None and not self._callers:
                        self._put_control()

    def _drop_control(self) -> None:
        control, self._control, self._name = self._control, None, None
        if control is not None:
            self.closing(control.fileno())
            control.close()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the lock, where it is free. Without a private folder there is nobody to share it with."""
        if self._folder is None:
            yield True
            return
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self._folder, fcntl.LOCK_UN)

    # while the plugins are imported

    def watch(self) -> None:
        """Start the thread that receives, passes on and heeds SIGTERM, until :meth:`unwatch`."""
        self._wake = socket.socketpair()
        self._stopped = False
        self._thread = threading.Thread(target=self._watch, name="succession", daemon=True)
        self._thread.start()

    def heed_signals(self) -> None:
        """Handle SIGTERM. Call it before :meth:`begin`, after which connections may wait for this process."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)

    def unwatch(self) -> None:
        """End the thread. If SIGTERM has come, this does not return: the thread ends the process."""
        if self._thread is None or self._wake is None:
            return
        if self.signalled is None:
            self._stopped = True
        self._wake[0].send(b"\0")
        self._thread.join()
        self._thread = None
        wake, self._wake = self._wake, None
        for each in wake:
            each.close()

    @property
    def is_watched(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None

    def _on_signal(self, sig: int, frame: FrameType | None) -> None:
        if not self.note_signal():
            # nobody will come: end as a process without a handler does
            self.close()
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)

    def note_signal(self) -> bool:
        """Note SIGTERM while plugins are imported. Returns False where no successor is there, or to be expected."""
        if self.successor is None and not self.of_apisix:
            return False
        if self.signalled is None:
            self.signalled = time.monotonic()
            if self._wake is not None:
                self._wake[0].send(b"\0")
        return True

    def _watch(self) -> None:
        assert self._wake is not None
        while not self._stopped:
            poller = select.poll()
            poller.register(self._wake[1], select.POLLIN)
            for descriptor, events in self.wanted().items():
                poller.register(descriptor, events)
            hurried = self.signalled is not None or self.is_seeking
            found = poller.poll(TICK_SECONDS * 1000 if hurried else None)
            if any(descriptor == self._wake[1].fileno() for descriptor, _ in found):
                self._wake[1].recv(100)
            try:
                self.step()
            except ConfigurationError as exc:
                logger.error("%s", exc)
                os._exit(2)
            if self.signalled is not None:
                self.end_early()

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
        successor, predecessor = self.successor, self.predecessor
        if successor is None or self.is_over:
            return
        self.is_over = True
        if predecessor is not None:
            predecessor.flush()
            self.closing(predecessor.fileno())
            for each in (predecessor, *self._next):
                successor.send(PREDECESSOR, b"", [Handed(each.detach())])
            self.predecessor, self._next = None, []
        if self.listening is not None:
            self.send_listener()
        if self.connections:
            successor.send(CONNECTIONS, b"", self.connections)
            self.connections = []
        successor.send(DONE)

    def send_listener(self) -> int:
        """Send the listening socket to the successor. Returns the number of the descriptor that was sent."""
        assert self.listening is not None and self.successor is not None
        name = self.listening.name
        descriptor = os.dup(self.listening.sock.fileno())
        self.successor.send(LISTENER, _IDENTITY.pack(name.device, name.inode), [Handed(descriptor)])
        return descriptor

    # at any time

    @property
    def is_seeking(self) -> bool:
        """Whether there is neither a socket of ours, nor somebody who may give us one."""
        return self.predecessor is None and self.listening is None and self.signalled is None and not self.is_over

    def wanted(self) -> dict[int, int]:
        """Return the descriptors to watch: POLLIN or POLLIN | POLLOUT for each. Call :meth:`step` when one is ready."""
        controls = [each for each in (self.predecessor, self.successor, *self._callers) if each is not None]
        found = {
            each.fileno(): select.POLLIN | (select.POLLOUT if each.wants_write else 0)
            for each in controls
            if not each.ended
        }
        if self._control is not None:
            found[self._control.fileno()] = select.POLLIN
        return found

    def step(self) -> None:
        """Do what can be done now, without waiting.

        Raises:
            ConfigurationError: The path became free, and cannot be taken.
        """
        self._hear_predecessor()
        self._hear_callers()
        self._hear_successor()
        if self.is_seeking:
            self._seek()
        elif self.successor is None and self.listening is not None and not self.is_over:
            self._keep_control()

    def _receive(self, control: Control) -> Packet | None:
        control.flush()
        try:
            return control.receive()
        except ControlError as exc:
            logger.warning("The control socket: %s", exc)
            return None

    def _hear_predecessor(self) -> None:
        while (predecessor := self.predecessor) is not None:
            packet = self._receive(predecessor)
            if packet is None and not predecessor.ended:
                return
            if packet is None or packet.kind == DONE:
                self._close(predecessor)
                self.predecessor = self._next.pop(0) if self._next else None
                self._seeks_since = time.monotonic()
                if self.predecessor is not None and self._is_ready:
                    self.say_ready()
            elif packet.kind == LISTENER and packet.handed:
                self._take_listener(packet)
            elif packet.kind == CONNECTIONS:
                self.connections += packet.handed
            elif packet.kind == PREDECESSOR and packet.handed:
                self._next.append(Control(socket.socket(fileno=packet.handed[0].descriptor)))

    def _take_listener(self, packet: Packet) -> None:
        """Take the listening socket, and give its file the mode that this process wants."""
        device, inode = _IDENTITY.unpack(packet.data)
        sock = socket.socket(fileno=packet.handed[0].descriptor)
        sock.setblocking(False)
        if self.listening is not None:
            # the predecessor hung, and the path has our own socket by now: only the backlog is of use
            with sock, contextlib.suppress(OSError):
                while True:
                    self.connections.append(Handed(sock.accept()[0].detach()))
            return
        self.listening = RunnerSocket(sock, SocketName(self.path, device, inode))
        self.listening.set_mode(self.permissions)

    def _hear_callers(self) -> None:
        while self._control is not None and (caller := accept(self._control)) is not None:
            self._callers.append(caller)
        for caller in list(self._callers):
            self._hear_caller(caller)

    def _hear_caller(self, caller: Control) -> None:
        packet = self._receive(caller)
        if packet is None and not caller.ended:
            return
        self._callers.remove(caller)
        if packet is None or packet.kind != HELLO or packet.data != VERSION:
            self._close(caller)
            return
        if self.successor is not None:
            self._lose_successor()
        self.successor = caller
        logger.info("A successor has started, and will take over %s", self.path)

    def _hear_successor(self) -> None:
        while (successor := self.successor) is not None:
            packet = self._receive(successor)
            if packet is None:
                if successor.ended:
                    self._lose_successor()
                    logger.warning("The successor has ended before it took over %s. This runner goes on", self.path)
                return
            if packet.kind == READY:
                self.is_wanted = True

    def _lose_successor(self) -> None:
        assert self.successor is not None
        back = self._close(self.successor)
        self.successor, self.is_wanted = None, False
        self.back(back)

    def _close(self, control: Control) -> list[Handed]:
        self.closing(control.fileno())
        return control.close()

    def say_ready(self) -> None:
        """Tell the predecessor that the plugins are loaded."""
        self._is_ready = True
        self._ready_at = time.monotonic()
        if self.predecessor is not None:
            self.predecessor.send(READY)

    def replace_silent(self) -> None:
        """Take the path from an owner that does not hand over in time. Call it while READY waits for an answer.

        Raises:
            ConfigurationError: The path cannot be taken.
        """
        now = time.monotonic()
        if self.predecessor is None:
            is_due = self._folder is None or now >= self._seeks_since + SEEK_SECONDS
        else:
            is_due = now >= self._ready_at + OWNER_SECONDS
            if is_due:
                logger.error(
                    "The owner of %s does not hand over in %g s: it is not waited for", self.path, OWNER_SECONDS
                )
        if is_due:
            self._bind()

    def guard(self) -> None:
        """Bind a new socket if the path does not lead to ours any more. The attribute `listening` is then another one.

        A runner that has no private folder leaves it: nobody could tell it that a successor has the path.
        """
        ours = self.listening
        if ours is None or self._folder is None or self.is_over or ours.name.is_there():
            return
        with self._locked() as locked:
            if not locked or ours.name.is_there():
                return
            try:
                self.listening = bind(self.path, self.permissions)
            except ConfigurationError as exc:
                if not self._guard_failed:
                    logger.error("The socket %s was removed or replaced, and cannot be bound anew: %s", self.path, exc)
                self._guard_failed = True
                return
            self._guard_failed = False
            logger.warning("The socket %s was removed or replaced by somebody else. It is bound anew", self.path)
            self._put_control()

    def remove_path(self) -> None:
        """Remove path and control socket. Does nothing where they belong to a successor."""
        if self.is_over or os.getpid() != self._process:
            return
        self.is_over = True
        with self._locked():  # a runner that starts now finds both or none
            if self._folder is not None and self._name is not None and identity(self._folder) == self._name:
                with contextlib.suppress(OSError):
                    os.unlink(NAME, dir_fd=self._folder)
            if self.listening is not None:
                self.listening.unlink()

    def close(self) -> None:
        """Give all to the successor. If there is none, remove path and control socket, and close the connections."""
        if os.getpid() != self._process:
            return
        if self._thread is not threading.current_thread():
            self.unwatch()
        self.pass_on()
        self.remove_path()
        for each in self.connections:
            os.close(each.descriptor)
        self.connections = []
        self._drop_control()
        self.private.close()

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
        while self.predecessor is not None and time.monotonic() < self._ready_at + SEEK_SECONDS:
            self.step()
            time.sleep(TICK_SECONDS / 10)
        with contextlib.suppress(OSError):
            if self._folder is not None and identity(self._folder) == self._name:
                os.unlink(NAME, dir_fd=self._folder)
        self._drop_control()
        for each in self.connections:
            os.close(each.descriptor)
        self.connections = []
        return self.listening


def _exit() -> None:
    """End the process after SIGTERM, from any thread."""
    flush()
    os._exit(128 + signal.SIGTERM)


def begin(uds: str | None, permissions: int) -> Succession | None:
    """Start the succession before anything that takes long is imported.

    Log lines are kept until logging is set up: see :func:`show_early_lines`.

    Args:
        uds: Path of the socket, as the user gives it; None: that of the environment.
        permissions: Mode of the socket file.

    Returns:
        The succession, with its thread running; None: no path is known yet.

    Raises:
        ConfigurationError: The path cannot be taken.
    """
    if not uds and not os.environ.get("APISIX_LISTEN_ADDRESS"):
        return None
    open_streams()  # before anything else is opened
    with _EARLY:
        made = Succession(socket_path(uds), permissions)
        made.heed_signals()
        made.begin()
    made.watch()
    return made


class _EarlyLines(logging.Handler):
    """Keeps log lines until logging is set up."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []

    def __enter__(self) -> None:
        logger.addHandler(self)
        logger.propagate, self._before = False, (logger.level, logger.propagate)
        logger.setLevel(logging.DEBUG)

    def __exit__(self, *exc: Any) -> None:
        logger.removeHandler(self)
        level, logger.propagate = self._before
        logger.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)

    def show(self) -> None:
        records, self._records = self._records, []
        for record in records:
            if logger.isEnabledFor(record.levelno):
                logger.callHandlers(record)  # its filters have seen it already


_EARLY = _EarlyLines()


def show_early_lines() -> None:
    """Log what :func:`begin` has kept. Call it when logging is set up."""
    _EARLY.show()
