"""The packets between the processes of one socket path: the table is in :mod:`.succession`."""

import struct

__all__ = [
    "CONNECTIONS",
    "DONE",
    "HELLO",
    "IDENTITY",
    "LISTENER",
    "MAX_PACKETS",
    "PREDECESSOR",
    "READY",
    "REFUSED",
    "VERSION",
]

HELLO, READY, LISTENER, CONNECTIONS, PREDECESSOR, DONE, REFUSED = range(1, 8)
VERSION = b"1"
"""Data of HELLO."""
IDENTITY = struct.Struct("QQ")
"""Data of LISTENER: device and inode of the socket file."""
MAX_PACKETS = 100
"""Maximum number of packets that are read in one turn, so that nobody who floods us keeps the process from its work."""
