"""The packets between the processes of one socket path: the table is in :mod:`.succession`."""

import struct

__all__ = [
    "CALL",
    "CONNECTIONS",
    "DONE",
    "HELLO",
    "IDENTITY",
    "LISTENER",
    "MAX_PACKETS",
    "PREDECESSOR",
    "PROCESS",
    "READY",
    "REFUSED",
    "SHARED",
    "VERSION",
]

HELLO, READY, LISTENER, CONNECTIONS, PREDECESSOR, DONE, REFUSED, SHARED, CALL = range(1, 10)
VERSION = b"1"
"""Data of HELLO."""
IDENTITY = struct.Struct("QQ")
"""Data of LISTENER: device and inode of the socket file."""
PROCESS = struct.Struct("I")
"""Data of CALL: the process id of the worker."""
MAX_PACKETS = 100
"""Maximum number of packets that are read in one turn, so that nobody who floods us keeps the process from its work."""
