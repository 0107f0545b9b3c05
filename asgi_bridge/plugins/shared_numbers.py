"""Two numbers of a plugin that all workers of a runner share: what a rate limiter has counted.

The supervisor makes one memory for all of its workers, and the memory outlives each of them. It is a table of groups of
entries. A digest of the instance's key says which group an entry is in. A lock of the kernel guards each group: a
worker that dies gives its locks back. Where there is one process, the numbers are that process's own.
"""

import fcntl
import hashlib
import mmap
import os
import struct
import threading
import time

from .memory import recalled_key, remembered

__all__ = ["Numbers", "SharedTable", "share", "shared_numbers"]

GROUPS = 32_768
"""Number of groups in the table."""
ENTRIES = 8
"""Number of entries in a group. If a group is full, the entry that was unused for longest goes. With as many instances
as a process remembers (100,000), fewer than one in a thousand groups is full."""
SECRET_BYTES = 16
"""The memory begins with so many random bytes. Without them, nobody can choose keys that share a group."""

_ENTRY = struct.Struct("=16sddd")
"""Digest, monotonic time of the last use (0: the entry is free), and the two numbers."""
_HEAD = mmap.PAGESIZE
_SIZE = _HEAD + GROUPS * ENTRIES * _ENTRY.size


class Numbers:
    """Two numbers, both 0 at first. Use them in a ``with`` block without ``await``.

    Example::

        with numbers as pair:
            pair[0] += 1
    """

    def __init__(self) -> None:
        self._pair = [0.0, 0.0]

    def __enter__(self) -> list[float]:
        return self._pair

    def __exit__(self, *args: object) -> None:
        pass


class SharedNumbers(Numbers):
    """Two numbers in a table. In the ``with`` block no other process changes them.

    Args:
        table: The table.
        key: What identifies them, the same in all processes.
    """

    def __init__(self, table: "SharedTable", key: object) -> None:
        super().__init__()
        self._table = table
        self._digest = table.digest(key)

    def __enter__(self) -> list[float]:
        self._pair = self._table.take(self._digest)
        return self._pair

    def __exit__(self, *args: object) -> None:
        self._table.put(self._digest, self._pair)


class SharedTable:
    """The table of all workers.

    Args:
        descriptor: Of a ``memfd`` that begins with SECRET_BYTES random bytes. It has to stay open.
    """

    def __init__(self, descriptor: int) -> None:
        if os.fstat(descriptor).st_size < _SIZE:
            os.ftruncate(descriptor, _SIZE)  # pages that nobody writes to take no memory
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _SIZE)
        self._secret = self._memory[:SECRET_BYTES]
        self._threads = threading.Lock()  # the kernel's lock belongs to the whole process

    def digest(self, key: object) -> bytes:
        """Return the digest of a key. Keys with the same ``repr`` are the same key."""
        return hashlib.blake2b(repr(key).encode(), digest_size=16, key=self._secret).digest()

    def take(self, digest: bytes) -> list[float]:
        """Lock the group of an entry, and return the entry's numbers. :meth:`put` has to follow."""
        self._threads.acquire()
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, _group(digest))
            _, _, first, second = _ENTRY.unpack_from(self._memory, self._place(digest))
        except BaseException:
            self._threads.release()
            raise
        return [first, second]

    def put(self, digest: bytes, pair: list[float]) -> None:
        """Write the numbers of an entry, and unlock its group. An entry with two zeros is free again."""
        try:
            used = time.monotonic() if any(pair) else 0.0
            _ENTRY.pack_into(self._memory, self._place(digest), digest, used, *pair)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _group(digest))
            self._threads.release()

    def _place(self, digest: bytes) -> int:
        """Return the offset of an entry. If it is not there, it takes the place of the one unused for longest."""
        start = _HEAD + _group(digest) * ENTRIES * _ENTRY.size
        oldest, place = float("inf"), start
        for offset in range(start, start + ENTRIES * _ENTRY.size, _ENTRY.size):
            found, used, _, _ = _ENTRY.unpack_from(self._memory, offset)
            if used and found == digest:
                return offset
            if used < oldest:
                oldest, place = used, offset
        _ENTRY.pack_into(self._memory, place, digest, time.monotonic(), 0.0, 0.0)
        return place


def _group(digest: bytes) -> int:
    return int.from_bytes(digest[:4], "big") % GROUPS


_table: SharedTable | None = None


def share(descriptor: int) -> None:
    """Let :func:`shared_numbers` use a table from now on. A worker calls this at its start.

    Args:
        descriptor: As :class:`SharedTable` takes it.
    """
    global _table  # one for the process
    _table = SharedTable(descriptor)


def shared_numbers() -> Numbers:
    """Return two numbers of the same plugin, route and configuration, the same in all workers.

    A factory calls this while it builds. The numbers are kept as :func:`~asgi_bridge.plugins.memory.remembered` keeps
    objects; in several workers, as long as the runner has room for them. Outside of a build, or if the gateway does not
    say which route it is for, they are new ones.

    Example::

        def limit(conf: LimitConf) -> ASGIApp:
            counted = shared_numbers()
            ...
    """
    table, key = _table, recalled_key()
    if table is None or key is None:
        return remembered(Numbers)
    return remembered(lambda: SharedNumbers(table, key))
