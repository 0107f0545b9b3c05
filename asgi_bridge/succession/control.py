"""The control socket: how processes of one socket path find each other and hand each other sockets.

Between two calls a connection of the gateway has no state. So another process can go on with it: it gets the descriptor
(``SCM_RIGHTS``), and the bytes that were read already. The listening socket goes the same way, with its backlog.

The control socket has the type ``SOCK_SEQPACKET``: packets keep their borders, and a connection ends when a process
does. It stands in the runner's private folder, where only the runner's user and root can reach it. Both ends look at
the other one's user as well (``SO_PEERCRED``).

A :class:`Control` acknowledges what it receives. The sender keeps a descriptor until then, so a receiver that dies
loses none: :meth:`Control.close` returns what has not been acknowledged.

This module imports little. A process can use it before it imports anything that takes long.
"""

import array
import contextlib
import errno
import logging
import os
import socket
import stat
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..errors import BridgeError

__all__ = [
    "ACK",
    "MAX_DATA",
    "MAX_DESCRIPTORS",
    "MAX_UNREAD",
    "NAME",
    "Control",
    "ControlError",
    "Handed",
    "Packet",
    "accept",
    "close_all",
    "connect",
    "identity",
    "listen",
    "open_private",
    "receive",
]

logger = logging.getLogger("asgi_bridge.server")

NAME = "control"
"""Name of the control socket in the private folder."""
ACK = 0
"""Kind of the packet that acknowledges descriptors. Other kinds are the caller's."""
MAX_DESCRIPTORS = 253
"""Maximum number of descriptors in one packet (Linux: SCM_MAX_FD)."""
MAX_DATA = 128 * 1024
"""Maximum number of bytes in one packet, which is less than a socket's buffer."""
MAX_UNREAD = 60_000
"""Maximum number of unread bytes of one connection. Their length is written with 16 bits."""
BACKLOG = 64
"""Maximum number of control connections that wait to be accepted."""

_HEAD = struct.Struct(">BIH")
"""Kind, number of the packet, length of its data. The length and the bytes of each descriptor's unread bytes follow."""
_LENGTH = struct.Struct(">H")
_CREDENTIALS = struct.Struct("iII")
"""``struct ucred``: process, user, group."""
_INT = array.array("i").itemsize


class ControlError(BridgeError):
    """The other end does not speak as this module does, or is not allowed to."""


class Handed(NamedTuple):
    """A socket on its way from one process to another.

    Attributes:
        descriptor: The socket's descriptor in this process.
        unread: Bytes that were read from the socket, and that nobody has handled. At most MAX_UNREAD.
    """

    descriptor: int
    unread: bytes = b""


class Packet(NamedTuple):
    """One packet.

    Attributes:
        kind: What it means, 0 to 255.
        data: Its bytes.
        handed: The sockets that came with it. They belong to the receiver, and are closed on exec.
    """

    kind: int
    data: bytes
    handed: list[Handed]


class Control:
    """One end of a control connection. It never blocks.

    Args:
        sock: The connected socket. The object closes it.

    Example:
        With a selector::

            selector.register(control, EVENT_READ | (EVENT_WRITE if control.wants_write else 0))
            …
            control.flush()
            while (packet := control.receive()) is not None:
                handle(packet)
            if control.ended:
                take_back(control.close())
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._outgoing: deque[tuple[bytes, list[Handed], int]] = deque()
        self._sent: dict[int, list[Handed]] = {}
        self._number = 0
        self._crowded = False
        self.ended = False
        """True: the other end has gone, or the connection is broken. Nothing more comes."""

    def fileno(self) -> int:
        """Return the descriptor, for selectors and event loops."""
        return self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether packets wait until the other end reads. Call :meth:`flush` when the socket is writable."""
        return bool(self._outgoing) and not self.ended and not self._crowded

    @property
    def settled(self) -> bool:
        """Whether all packets are sent, and all descriptors acknowledged."""
        return not self._outgoing and not self._sent

    def send(self, kind: int, data: bytes = b"", handed: Iterable[Handed] = ()) -> None:
        """Send a packet, now or when there is room for it.

        Sockets beyond what one packet holds go into further packets of the same kind, with the same data.

        Args:
            kind: 1 to 255.
            data: At most half of MAX_DATA.
            handed: Sockets. Their descriptors belong to this object from now on.
        """
        parts: list[list[Handed]] = [[]]
        size = base = _HEAD.size + len(data)
        for each in handed:
            more = _LENGTH.size + len(each.unread)
            if len(parts[-1]) == MAX_DESCRIPTORS or size + more > MAX_DATA:
                parts.append([])
                size = base
            parts[-1].append(each)
            size += more
        for part in parts:
            self._number += 1
            self._outgoing.append((_packed(kind, self._number, data, part), part, self._number))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self._outgoing and not self.ended:
            data, handed, number = self._outgoing[0]
            try:
                socket.send_fds(self._sock, [data], [each.descriptor for each in handed], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno == errno.ETOOMANYREFS and self._sent:
                    self._crowded = True  # too many descriptors are on their way: wait until some are acknowledged
                    return
                if exc.errno in (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM):
                    return
                self.ended = True
                return
            self._outgoing.popleft()
            if handed:
                self._sent[number] = handed

    def receive(self) -> Packet | None:
        """Return the next packet; None: there is none now, or :attr:`ended` says that no more come.

        Descriptors are acknowledged before this returns. After that they are this process's alone.

        Raises:
            ControlError: The other end sends something else than packets, or the system has dropped descriptors. The
                connection has ended.
        """
        while True:
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(
                    MAX_DATA + 1, socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return None
            except ConnectionResetError:
                continue  # comes once, before the packets of an end that has gone without reading all of ours
            except OSError:
                data, ancillary, flags = b"", [], 0
            descriptors = _descriptors(ancillary)
            if not data:
                _close(descriptors)
                self.ended = True
                return None
            try:
                if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
                    raise ControlError("the system has cut off a packet, or its descriptors: is ulimit -n too low?")
                kind, number, packet = _unpacked(data, descriptors)
            except ControlError:
                _close(descriptors)
                self.ended = True
                raise
            if kind == ACK:
                self._acknowledged(number)
                continue
            if descriptors:
                self._outgoing.append((_packed(ACK, number, b"", []), [], number))
                self.flush()
            return packet

    def _acknowledged(self, number: int) -> None:
        close_all(self._sent.pop(number, ()))
        self._crowded = False
        self.flush()

    def close(self) -> list[Handed]:
        """Close the connection.

        Returns:
            The sockets that were not acknowledged. They belong to the caller again. If the other end lives, it may have
            them as well.
        """
        self.ended = True
        self._sock.close()
        back = [each for handed in self._sent.values() for each in handed]
        back += [each for _, handed, _ in self._outgoing for each in handed]
        self._sent.clear()
        self._outgoing.clear()
        return back

    def detach(self) -> int:
        """Give the connection up without closing it, and return its descriptor."""
        return self._sock.detach()


def _packed(kind: int, number: int, data: bytes, handed: Sequence[Handed]) -> bytes:
    parts = [_HEAD.pack(kind, number & 0xFFFFFFFF, len(data)), data]
    for each in handed:
        parts += (_LENGTH.pack(len(each.unread)), each.unread)
    return b"".join(parts)


def _unpacked(data: bytes, descriptors: Sequence[int]) -> tuple[int, int, Packet]:
    """Return kind and number of a packet, and the packet. Raises ControlError."""
    try:
        kind, number, size = _HEAD.unpack_from(data)
        at = _HEAD.size + size
        handed = []
        for descriptor in descriptors:
            (size,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size + size
            handed.append(Handed(descriptor, data[at - size : at]))
    except struct.error:
        at = -1
    if at != len(data):
        raise ControlError(f"a packet of {len(data)} bytes with {len(descriptors)} descriptors cannot be read")
    return kind, number, Packet(kind, data[_HEAD.size : _HEAD.size + _HEAD.unpack_from(data)[2]], handed)


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % _INT])
    return list(found)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def close_all(handed: Iterable[Handed]) -> None:
    """Close sockets that nobody wants.

    Args:
        handed: The sockets.
    """
    _close(each.descriptor for each in handed)


def receive(control: Control) -> Packet | None:
    """Send what waits, and return the next packet. A connection that breaks is logged.

    Args:
        control: The connection. Its attribute `ended` says whether no more packets come.

    Returns:
        The packet; None: there is none now.
    """
    control.flush()
    try:
        return control.receive()
    except ControlError as exc:
        logger.warning("The control socket: %s", exc)
        return None


def open_private(folder: str) -> int | None:
    """Open the private folder, and check that it is one.

    Args:
        folder: Its path.

    Returns:
        Its descriptor; None: it is not there, or others than this user and root may use it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(descriptor)
        return None
    return descriptor


def listen(folder: int) -> tuple[socket.socket, tuple[int, int]]:
    """Make a control socket, and put it in the place of one that is there.

    Args:
        folder: Descriptor of the private folder.

    Returns:
        The listening socket, which does not block, and what identifies its name: see :func:`identity`.

    Raises:
        OSError: The folder cannot be written to.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    name = f"{NAME}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        sock.bind(f"/proc/self/fd/{folder}/{name}")  # the path itself may be too long for a socket
        try:
            os.chmod(name, 0o600, dir_fd=folder)
            sock.listen(BACKLOG)
            sock.setblocking(False)
            found = os.lstat(name, dir_fd=folder)
            os.rename(name, NAME, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(name, dir_fd=folder)
            raise
    except BaseException:
        sock.close()
        raise
    return sock, (found.st_dev, found.st_ino)


def identity(folder: int) -> tuple[int, int] | None:
    """Return what identifies the control socket that is in the folder now; None: there is none.

    Args:
        folder: Descriptor of the private folder.
    """
    try:
        found = os.lstat(NAME, dir_fd=folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def connect(folder: int) -> Control | None:
    """Connect to the control socket of the process that has the socket path now.

    Args:
        folder: Descriptor of the private folder.

    Returns:
        The connection; None: no such process runs.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.setblocking(False)
        sock.connect(f"/proc/self/fd/{folder}/{NAME}")
        _check_user(sock)
    except (OSError, ControlError):
        sock.close()
        return None
    return Control(sock)


def accept(listening: socket.socket) -> Control | None:
    """Accept a control connection.

    Args:
        listening: What :func:`listen` has returned.

    Returns:
        The connection; None: none waits, or another user has connected.
    """
    try:
        sock, _ = listening.accept()
    except OSError:
        return None
    try:
        _check_user(sock)
    except (OSError, ControlError):
        sock.close()
        return None
    return Control(sock)


def _check_user(sock: socket.socket) -> None:
    """Raise ControlError unless the other end's user is ours, or root."""
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(found)
    if user not in (os.geteuid(), 0):
        raise ControlError(f"process {process} of user {user} may not use the control socket")
