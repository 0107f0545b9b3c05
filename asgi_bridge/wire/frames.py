"""Frames: a type, a length, a payload; and a reader that puts them together from whatever reads bring.

``type: u8``, ``length: u24`` big endian, then ``length`` bytes. The reader does not look into payloads, and does not
judge types: an unknown one is the session's affair.
"""

from enum import IntEnum
from struct import Struct
from typing import TypeAlias

from asgi_bridge.errors import LocalProtocolError

__all__ = ["HEADER_SIZE", "MAX_PAYLOAD", "Buffer", "FrameReader", "FrameType", "frame"]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What a read may bring. A memoryview has to be one of plain bytes (format "B", one dimension)."""

HEADER_SIZE = 4

MAX_PAYLOAD = 2**24 - 1
"""The length of a payload is written in three bytes."""

_HEADER = Struct(">I")


class FrameType(IntEnum):
    """The first byte of a frame (``ext-plugin/init.lua``, ``RPC_*``)."""

    ERROR = 0
    PREPARE_CONF = 1
    HTTP_REQ_CALL = 2
    EXTRA_INFO = 3
    HTTP_RESP_CALL = 4


def frame(frame_type: int, payload: bytes) -> bytes:
    """Put a header before a payload.

    Raises:
        LocalProtocolError: The payload is too long for a frame, or the type is no byte.
    """
    if len(payload) > MAX_PAYLOAD or not 0 <= frame_type <= 255:
        raise LocalProtocolError(f"no frame can hold type {frame_type} with {len(payload)} bytes")
    return _HEADER.pack(frame_type << 24 | len(payload)) + payload


class FrameReader:
    """Cut a stream of bytes into frames.

    What is kept is copied, so the caller may reuse the buffer it has read into. Memory follows what has arrived, never
    what a header announces: otherwise 64 idle connections could claim a gigabyte with four bytes each.
    """

    __slots__ = ("_buffer", "_ready", "_start")

    def __init__(self) -> None:
        # A frame that came alone and whole, which is the usual case: it never sees the buffer.
        self._ready: tuple[int, bytes] | None = None
        # Bytes before _start are done with. They are dropped at the next read, not frame by frame: a read that holds
        # thousands of small frames would otherwise be moved thousands of times.
        self._buffer = bytearray()
        self._start = 0

    def receive_data(self, data: Buffer) -> None:
        """Take what one read brought."""
        if self._ready is None and not self._buffer:
            size = len(data)
            if size >= HEADER_SIZE:
                head: int = _HEADER.unpack_from(data)[0]
                if head & MAX_PAYLOAD == size - HEADER_SIZE:
                    self._ready = head >> 24, bytes(data[HEADER_SIZE:])
                    return
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def next_frame(self) -> tuple[int, bytes] | None:
        """Give the next whole frame as type and payload; None: more bytes are needed."""
        ready = self._ready
        if ready is not None:
            self._ready = None
            return ready
        buffer = self._buffer
        if not buffer:
            return None
        start = self._start
        available = len(buffer) - start - HEADER_SIZE
        if available < 0:
            return None
        head: int = _HEADER.unpack_from(buffer, start)[0]
        size = head & MAX_PAYLOAD
        if size > available:
            return None
        start += HEADER_SIZE
        # Through a memoryview, since slicing a bytearray would copy twice.
        with memoryview(buffer) as view:
            payload = bytes(view[start : start + size])
        if size == available:
            # A new one: clear() of a big buffer frees it as well, but a small one would keep its spare room.
            self._buffer = bytearray()
            self._start = 0
        else:
            self._start = start + size
        return head >> 24, payload

    @property
    def pending(self) -> int:
        """Number of bytes which have arrived and have not been given out as frames."""
        ready = self._ready
        return len(self._buffer) - self._start + (HEADER_SIZE + len(ready[1]) if ready is not None else 0)
