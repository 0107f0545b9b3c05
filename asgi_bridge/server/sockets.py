"""The runner's unix socket: taken over, never fought for.

At a gateway reload the successor starts on the same path while its predecessor still stops. So the new socket is
made under another name and renamed onto the path: there is no moment without a socket, and a runner that stops
removes the path only if it is still its own.
"""

import contextlib
import errno
import logging
import os
import socket
import stat

from ..errors import ConfigurationError

__all__ = ["RunnerSocket", "bind", "has_owner", "socket_path"]

logger = logging.getLogger("asgi_bridge.server")

MAX_PATH = 107
"""Bytes of ``sockaddr_un.sun_path`` without its final NUL (unix(7))."""
BACKLOG = 2048
DEFAULT_PERMISSIONS = 0o666
"""nginx's workers run as nobody, the runner as the user of the nginx master: they must be able to connect."""


def socket_path(uds: str | None) -> str:
    """The path to listen on: `uds`, else ``APISIX_LISTEN_ADDRESS``; with or without ``unix:``.

    Raises:
        ConfigurationError: neither is given.
    """
    address = uds or os.environ.get("APISIX_LISTEN_ADDRESS", "")
    path = address.removeprefix("unix:")
    if not path:
        raise ConfigurationError(
            "no socket to listen on: give --uds PATH (APISIX's ext-plugin.path_for_test), or let APISIX start the "
            "runner (ext-plugin.cmd), which sets APISIX_LISTEN_ADDRESS"
        )
    return os.path.abspath(path)


class RunnerSocket:
    """A listening socket and the path that it stands under."""

    def __init__(self, sock: socket.socket, path: str, found: os.stat_result) -> None:
        self.sock = sock
        self.path = path
        self._identity: tuple[int, int] | None = (found.st_dev, found.st_ino)

    def unlink(self) -> None:
        """Removes the path, if it is still this socket's: at a gateway reload the successor's is there already.

        Only the first call does: once this socket is closed, its successor's may have the same inode.
        """
        identity, self._identity = self._identity, None
        with contextlib.suppress(OSError):
            found = os.stat(self.path)
            if (found.st_dev, found.st_ino) == identity:
                os.unlink(self.path)


def bind(path: str, permissions: int = DEFAULT_PERMISSIONS) -> RunnerSocket:
    """Listens on `path`, whatever was there, but for what is no socket.

    Args:
        path: absolute path; its folder must exist.
        permissions: mode of the socket file.

    Raises:
        ConfigurationError: the folder is missing or not ours to write, the path is too long for the gateway, or
            there is a file that is no socket.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise ConfigurationError(
            f"the socket's path has {len(os.fsencode(path))} bytes, a unix socket's may have {MAX_PATH}: {path}"
        )
    folder, name = os.path.split(path)
    try:
        folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except OSError as exc:
        raise ConfigurationError(f"the socket's folder {folder}: {exc.strerror}; create it first") from None
    try:
        _look(path)
        return _take(folder_fd, name, path, permissions)
    except OSError as exc:
        raise ConfigurationError(f"cannot listen on {path}: {exc.strerror or exc}") from None
    finally:
        os.close(folder_fd)


def has_owner(path: str) -> bool:
    """Whether somebody listens on `path`.

    Raises:
        ConfigurationError: there is something else than a stream socket.
    """
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(f"{path} exists and is no socket; remove it, or give another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as exc:
            if exc.errno == errno.EPROTOTYPE:
                raise ConfigurationError(f"{path} is another program's datagram socket; give another path") from None
            # with a full backlog, or not for us to connect to: alive
    return True


def _look(path: str) -> None:
    """Says what is there now, and refuses to replace what is no socket."""
    if has_owner(path):
        logger.warning("Another runner listens on %s: new connections are taken over from it", path)
    elif os.path.exists(path):
        logger.info("A stale socket at %s is replaced", path)


def _take(folder_fd: int, name: str, path: str, permissions: int) -> RunnerSocket:
    temporary = f".{os.getpid()}.{os.urandom(4).hex()}"
    # through /proc, since the temporary name may be longer than the path itself, which may be at its limit
    beside = f"/proc/self/fd/{folder_fd}/{temporary}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(beside)
        try:
            os.chmod(temporary, permissions, dir_fd=folder_fd)
            sock.listen(BACKLOG)
            found = os.stat(temporary, dir_fd=folder_fd)
            os.rename(temporary, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder_fd)
            raise
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return RunnerSocket(sock, path, found)
