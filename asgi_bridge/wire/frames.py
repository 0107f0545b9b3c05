"""Frames: how the stream of a connection is divided.

A frame is ``type: u8``, ``length: u24`` (big endian), and a payload of ``length`` bytes. The reader does not look into
payloads. It accepts every type: the session refuses unknown ones.
"""

from enum import IntEnum
from struct import Struct
from typing import TypeAlias

from ..errors import LocalProtocolError

__all__ = ["HEADER_SIZE", "MAX_PAYLOAD", "Buffer", "FrameReader", "FrameType", "frame", "too_long"]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes of one read. A memoryview must have format "B" and one dimension."""

HEADER_SIZE = 4
"""Bytes of a frame's header."""

MAX_PAYLOAD = 2**24 - 1
"""Maximum length of a payload in bytes. The header has three bytes for it."""

_HEADER = Struct(">I")


class FrameType(IntEnum):
    """The first byte of a frame (``ext-plugin/init.lua``, ``RPC_*``)."""

    ERROR = 0
    PREPARE_CONF = 1
    HTTP_REQ_CALL = 2
    EXTRA_INFO = 3
    HTTP_RESP_CALL = 4


def frame(frame_type: int, payload: bytes) -> bytes:
    """Put the header of a frame before a payload.

    Args:
        frame_type: Type of the frame, 0 to 255.
        payload: At most `MAX_PAYLOAD` bytes.

    Returns:
        The frame.

    Raises:
        LocalProtocolError: The payload is too long, or the type does not fit into a byte.

    Example::

        >>> frame(FrameType.HTTP_REQ_CALL, b"abc")
        b'\\x02\\x00\\x00\\x03abc'
    """
    if len(payload) > MAX_PAYLOAD or not 0 <= frame_type <= 255:
        raise LocalProtocolError(f"no frame can hold type {frame_type} with {len(payload)} bytes")
    return _HEADER.pack(frame_type << 24 | len(payload)) + payload


def too_long(size: int) -> LocalProtocolError:
    """Return the error for a payload that no frame can hold.

    Args:
        size: Length of the payload in bytes, more than `MAX_PAYLOAD`.
    """
    return LocalProtocolError(f"a message of {size} bytes is too long for a frame ({MAX_PAYLOAD} at most)")


class FrameReader:
    """Divide a stream of bytes into frames.

    The reader copies what it keeps, so callers may reuse their buffer. It allocates memory for bytes that have arrived,
    never for the length that a header announces. Otherwise 64 idle connections could claim a gigabyte with four bytes
    each.

    Attributes:
        buffer: Bytes that have arrived, but for the next frame where it has arrived whole.
    """

    __slots__ = ("_ready", "_start", "buffer")

    def __init__(self) -> None:
        # The next frame, where it is known to have arrived whole. It mostly comes alone in one read, without a buffer.
        self._ready: tuple[int, bytes] | None = None
        # Bytes before _start have been returned as frames. The next read drops them. Dropping them after each frame
        # would move the buffer thousands of times, when one read brings thousands of small frames.
        self.buffer = bytearray()
        self._start = 0

    def receive_data(self, data: Buffer) -> None:
        """Add the bytes of one read.

        Args:
            data: The bytes. They are copied.
        """
        if self._ready is None:
            self._ready = self.receive(data)
        else:
            self._keep(data)

    def receive(self, data: Buffer) -> tuple[int, bytes] | None:
        """Do what `receive_data` and `next_frame` do, in one call."""
        if self._ready is None and not self.buffer:
            size = len(data)
            if size >= HEADER_SIZE:
                head: int = _HEADER.unpack_from(data)[0]
                if head & MAX_PAYLOAD == size - HEADER_SIZE:
                    return head >> 24, bytes(data[HEADER_SIZE:])
        self._keep(data)
        return self.next_frame()

    def _keep(self, data: Buffer) -> None:
        if self._start:
            del self.buffer[: self._start]
            self._start = 0
        self.buffer += data

    def next_frame(self) -> tuple[int, bytes] | None:
        """Return the type and payload of the next frame; None until it has arrived whole."""
        ready = self._ready
        if ready is not None:
            self._ready = None
            return ready
        buffer = self.buffer
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
        # Slicing the bytearray itself would copy twice.
        with memoryview(buffer) as view:
            payload = bytes(view[start : start + size])
        if size == available:
            # clear() would keep the spare memory of a small buffer.
            self.buffer = bytearray()
            self._start = 0
        else:
            self._start = start + size
        return head >> 24, payload

    def unread(self) -> bytes:
        """Return the bytes that have arrived and were not yet returned as frames. They stay."""
        ready = self._ready
        return (b"" if ready is None else frame(*ready)) + self.buffer[self._start :]

    @property
    def pending(self) -> int:
        """Number of bytes that have arrived and were not yet returned as frames."""
        ready = self._ready
        return len(self.buffer) - self._start + (HEADER_SIZE + len(ready[1]) if ready is not None else 0)
