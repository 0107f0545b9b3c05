"""The runner's unix socket: taken over, never fought for.

The new socket is made under another name and renamed onto the path, so a runner that takes over from a live one leaves
no moment without a socket. At a gateway reload the predecessor stops while its successor still starts, and removes the
path: calls fail until the successor listens. A runner that stops removes the path only if it is still its own.

The folder may be one that others can write to, such as /tmp. So nothing here follows a symbolic link that somebody puts
there, and no mode is changed where somebody else could exchange the file.
"""

import contextlib
import errno
import logging
import os
import pwd
import socket
import stat
from collections.abc import Iterator

from ..errors import ConfigurationError

__all__ = ["RunnerSocket", "bind", "has_owner", "socket_path"]

logger = logging.getLogger("asgi_bridge.server")

MAX_PATH = 107
"""Bytes of ``sockaddr_un.sun_path`` without its final NUL (unix(7))."""
BACKLOG = 2048
DEFAULT_PERMISSIONS = 0o666
"""nginx's workers run as nobody, the runner as the user of the nginx master: they must be able to connect."""
_NAME = "socket"
"""Of the socket in its private folder."""


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
        """Removes the path, if it is still this socket's: a successor's may be there already.

        Only the first call does: once this socket is closed, its successor's may have the same inode.
        """
        identity, self._identity = self._identity, None
        with contextlib.suppress(OSError):
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == identity:
                os.unlink(self.path)


def bind(path: str, permissions: int = DEFAULT_PERMISSIONS) -> RunnerSocket:
    """Listens on `path`, whatever was there, but for what is no socket.

    Args:
        path: absolute path; its folder must exist.
        permissions: mode of the socket file, whatever the process's umask is.

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
    owner: str | None = None
    try:
        owner = _look(path)
        return _take(folder_fd, name, path, permissions)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        if exc.errno == errno.EPERM and owner is not None:  # a folder as /tmp, where only owners may replace files
            reason += f"; the file there belongs to {owner}: remove it, or give another path"
        raise ConfigurationError(f"cannot listen on {path}: {reason}") from None
    finally:
        os.close(folder_fd)


def has_owner(path: str) -> bool | None:
    """Whether somebody listens on `path`; None: another user's socket is there, and its mode keeps us from asking.

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
        except BlockingIOError:
            return True  # its backlog is full
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as exc:
            if exc.errno == errno.EPROTOTYPE:
                raise ConfigurationError(f"{path} is another program's datagram socket; give another path") from None
            # Linux looks at the permission first, so this is no sign of life
            return None
    return True


def _look(path: str) -> str | None:
    """Says what is there now, and refuses to replace what is no socket. Returns its owner; None: nothing is there."""
    alive = has_owner(path)
    try:
        uid = os.lstat(path).st_uid
    except OSError:
        return None
    try:
        owner = f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        owner = f"user {uid}"
    if alive:
        logger.warning("Another runner listens on %s: new connections are taken over from it", path)
    elif alive is None:
        logger.warning(
            "A socket of %s at %s is replaced; whether a runner still listens there cannot be told: this user may not "
            "connect to it",
            owner,
            path,
        )
    else:
        logger.info("A stale socket at %s is replaced", path)
    return owner


def _take(folder_fd: int, name: str, path: str, permissions: int) -> RunnerSocket:
    """Binds a socket in a private folder beside the path, gives it its mode there, and renames it onto the path.

    A umask would give it its mode at once, but belongs to all threads, whose own new files would then be open to
    others; and a default ACL of the folder puts it out of force.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _private_folder(folder_fd) as private_fd:
            # through /proc, since the whole name may be longer than the path itself, which may be at its limit
            sock.bind(f"/proc/self/fd/{private_fd}/{_NAME}")
            try:
                os.chmod(_NAME, permissions, dir_fd=private_fd)
                sock.listen(BACKLOG)
                found = os.lstat(_NAME, dir_fd=private_fd)
                os.rename(_NAME, name, src_dir_fd=private_fd, dst_dir_fd=folder_fd)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(_NAME, dir_fd=private_fd)
                raise
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return RunnerSocket(sock, path, found)


@contextlib.contextmanager
def _private_folder(folder_fd: int) -> Iterator[int]:
    """A descriptor of a new folder in the folder, for its owner alone, and removed afterwards."""
    temporary = f".{os.getpid()}.{os.urandom(4).hex()}"
    os.mkdir(temporary, 0o700, dir_fd=folder_fd)
    try:
        private_fd = os.open(temporary, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder_fd)
        try:
            made = os.fstat(private_fd)
            if made.st_uid != os.geteuid() or made.st_mode & 0o077:
                raise PermissionError(errno.EACCES, "somebody else exchanges files in its folder")
            yield private_fd
        finally:
            os.close(private_fd)
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(temporary, dir_fd=folder_fd)
