"""What a supervisor and its worker say to each other, and the memory that they share.

The channel is a pair of ``SOCK_SEQPACKET`` sockets. Each message is one word and a number. A message that brings a
connection carries its descriptor. The supervisor keeps a descriptor of each connection too, so a worker that dies loses
no idle connection, and a worker gives a connection back without sending it.

The memory says which connections a worker is busy with, and whether its event loop turns. The supervisor reads it after
the worker's death too.
"""

import json
import mmap
import os
import socket
import struct
from enum import IntEnum
from typing import Any

from ..succession.control import MAX_UNREAD

__all__ = ["MAX_CONNECTIONS", "MAX_FRAME", "Table", "Word", "pack", "receive", "send", "unpack"]

MAX_CONNECTIONS = 16_384
"""Maximum number of connections of one worker."""
_BUSY = mmap.PAGESIZE
"""Offset of the flags in the memory. The page before them counts the turns, and has the socket's name."""
_NAME = struct.Struct("QQ")
_NAME_AT = 64
MAX_FRAME = MAX_UNREAD
"""Maximum size of a call that goes from one worker to another with its connection, in bytes."""
_MESSAGE = struct.Struct("<BI")
_MAX_SIZE = 64 * 1024


class Word(IntEnum):
    """First part of a message. The number behind it is a slot: the connection's number in this worker.

    CONNECTION may have a call of the connection behind it. MOVED has the process id of the worker that a call is for,
    and the call. REPORT and REPORTS bring a memory with what a worker, or all workers, tell of themselves.
    """

    # to the worker
    CONNECTION = 1
    GIVE_BACK = 2
    RETIRE = 3
    HURRY = 4
    SHORTEN = 10
    ASK = 11
    # to the supervisor
    READY = 5
    RETURNED = 6
    CLOSED = 7
    WORN = 8
    MOVED = 9
    REPORT = 12
    # both
    REPORTS = 13


class Table:
    """Memory that a worker writes and its supervisor reads.

    Args:
        descriptor: Of a ``memfd`` that :meth:`create` has made. It may be closed afterwards.

    Attributes:
        busy: A byte for each slot. 1: the worker may have read something of a call that it has not answered.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = memoryview(mmap.mmap(descriptor, _BUSY + MAX_CONNECTIONS))
        self.busy = self._memory[_BUSY:]

    @staticmethod
    def create() -> int:
        """Return the descriptor of a new memory. It goes when the last process that has it ends."""
        descriptor = os.memfd_create("asgi_bridge-worker")
        os.ftruncate(descriptor, _BUSY + MAX_CONNECTIONS)
        return descriptor

    @property
    def turns(self) -> int:
        """Number that changes as long as the event loop turns."""
        return self._memory[0]

    @property
    def socket(self) -> tuple[int, int]:
        """Device and inode of the listening socket's file, which the supervisor writes; zeros: it has none."""
        device, inode = _NAME.unpack_from(self._memory, _NAME_AT)
        return device, inode

    @socket.setter
    def socket(self, name: tuple[int, int]) -> None:
        _NAME.pack_into(self._memory, _NAME_AT, *name)

    def turned(self) -> None:
        """Note that the event loop turns."""
        self._memory[0] = (self._memory[0] + 1) & 0xFF


def send(channel: socket.socket, word: Word, number: int = 0, data: bytes = b"", descriptor: int | None = None) -> None:
    """Send a message.

    Args:
        channel: The channel, which does not block.
        word: What to say.
        number: Slot of the connection that it is about.
        data: What stands behind the number.
        descriptor: What goes with it; None: nothing.

    Raises:
        BlockingIOError: The other side has too much to read already.
        OSError: The other side has gone, or too many descriptors are on their way.
    """
    socket.send_fds(channel, [_MESSAGE.pack(word, number) + data], [] if descriptor is None else [descriptor])


def receive(channel: socket.socket) -> tuple[Word, int, bytes, int | None] | None:
    """Return the next message: word, number, what stands behind it, and descriptor; None: the other side has gone.

    The descriptor is None if none came, or if this process may not have any more.

    Raises:
        BlockingIOError: There is no message.
    """
    try:
        data, descriptors, _, _ = socket.recv_fds(channel, _MAX_SIZE, 1, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:  # it left messages unread
        return None
    if len(data) < _MESSAGE.size:
        return None
    word, number = _MESSAGE.unpack_from(data)
    return Word(word), number, data[_MESSAGE.size :], descriptors[0] if descriptors else None


def pack(value: Any) -> int:
    """Put plain data into a new memory, and return its descriptor."""
    memory = os.memfd_create("asgi_bridge-report")
    with open(memory, "wb", closefd=False) as file:
        file.write(json.dumps(value).encode())
    return memory


def unpack(memory: int) -> Any:
    """Return the data of a memory that :func:`pack` has made, and close its descriptor."""
    with open(memory, "rb") as file:
        file.seek(0)
        return json.load(file)
