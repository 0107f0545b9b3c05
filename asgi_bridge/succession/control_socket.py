"""The place where the processes of one socket path find each other: a control socket in the private folder.

The one in place is that of the process which has come last. Who changes it, or who has the path, holds the lock on the
folder.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .control import NAME, Control, accept, connect, identity, listen, open_private
from .private import PrivateFolder

if TYPE_CHECKING:
    import socket

__all__ = ["ControlSocket"]

logger = logging.getLogger("asgi_bridge.server")


class ControlSocket:
    """Our control socket, and the lock.

    Args:
        private: The private folder.
        closing: Called with a descriptor before it is closed.
    """

    def __init__(self, private: PrivateFolder, closing: Callable[[int], object]) -> None:
        self._private = private
        self._closing = closing
        self._sock: socket.socket | None = None
        self._name: tuple[int, int] | None = None
        self._folder: int | None = None
        self._open()

    def _open(self) -> None:
        if not self._private.temporary and self._private.path is not None:
            self._folder = open_private(self._private.path)

    @property
    def is_shared(self) -> bool:
        """Whether there is a folder where other processes find the control socket."""
        return self._folder is not None

    @property
    def is_in_place(self) -> bool:
        """Whether who connects now connects to us."""
        return self._folder is not None and self._name is not None and identity(self._folder) == self._name

    @property
    def descriptor(self) -> int | None:
        """The descriptor, which is readable when somebody has connected; None: there is no control socket."""
        return None if self._sock is None else self._sock.fileno()

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the lock, where it is free. Without a private folder there is nobody to share it with."""
        folder = self._folder
        if folder is None:
            yield True
            return
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(folder, fcntl.LOCK_UN)

    def find_other(self) -> Control | None:
        """Connect to the process whose control socket is in place; None: it is ours, or that process has ended."""
        return None if self._folder is None or self.is_in_place else connect(self._folder)

    def put(self) -> None:
        """Put our control socket in its place, unless it is there."""
        if self._folder is None or self.is_in_place:
            return
        self.drop()
        try:
            self._sock, self._name = listen(self._folder)
        except OSError as exc:
            logger.warning(
                "There is no control socket in %s (%s): no other runner can take over without loss",
                self._private.path,
                exc.strerror,
            )

    def keep_folder(self) -> None:
        """Take the private folder anew, if somebody has removed or renamed it. Not while the lock is held."""
        if self._folder is None or self._private.path is None or self._private.is_of(self._folder):
            return
        if self._private.take_again():
            os.close(self._folder)
            self._folder = None
            self._open()

    def accept(self) -> Control | None:
        """Accept a connection; None: none waits, or another user has connected."""
        return None if self._sock is None else accept(self._sock)

    def remove(self) -> None:
        """Remove it from its place, if it is there."""
        if self.is_in_place and self._folder is not None:
            with contextlib.suppress(OSError):
                os.unlink(NAME, dir_fd=self._folder)

    def drop(self) -> None:
        """Close it. Nobody can connect to it any more."""
        sock, self._sock, self._name = self._sock, None, None
        if sock is not None:
            self._closing(sock.fileno())
            sock.close()
