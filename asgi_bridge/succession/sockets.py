"""The runner's unix socket, and its path.

A new socket is created under another name and then renamed onto the path, so the path always has a socket. A runner
that takes over from another one gets that one's socket instead (see :mod:`.succession`). A runner that stops removes
the path only if it still leads to its own socket.

Other users may be able to write to the folder, as to /tmp. So nothing here follows a symbolic link in it, and no mode
is changed where somebody else could exchange the file.
"""

import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import ConfigurationError

__all__ = ["RunnerSocket", "SocketName", "bind", "check_path", "has_owner", "move_aside", "socket_path"]

logger = logging.getLogger("asgi_bridge.server")

MAX_PATH = 107
"""Bytes of ``sockaddr_un.sun_path`` without its final NUL (unix(7))."""
BACKLOG = 2048
"""Maximum number of connections that wait to be accepted."""
DEFAULT_PERMISSIONS = 0o666
"""nginx's workers have to be able to connect. They run as nobody, and the runner as the user of the nginx master."""
_NAME = "socket"
"""Name of the socket in the private folder where it is created."""


def socket_path(uds: str | None) -> str:
    """Return the path to listen on.

    Args:
        uds: Path of the socket, with or without ``unix:``; None: the environment variable ``APISIX_LISTEN_ADDRESS``.

    Raises:
        ConfigurationError: There is neither.
    """
    address = uds or os.environ.get("APISIX_LISTEN_ADDRESS", "")
    path = address.removeprefix("unix:")
    if not path:
        raise ConfigurationError(
            "no socket to listen on: give --uds PATH (APISIX's ext-plugin.path_for_test), or let APISIX start the "
            "runner (ext-plugin.cmd), which sets APISIX_LISTEN_ADDRESS"
        )
    return os.path.abspath(path)


class SocketName(NamedTuple):
    """The path of a socket, and what recognizes it there. It is plain data.

    Attributes:
        path: Absolute path.
        device: Number of the file system.
        inode: Number of the file.
    """

    path: str
    device: int
    inode: int

    def is_there(self) -> bool:
        """Whether the path still leads to this socket."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return False
        return self.is_of(found)

    def is_of(self, found: os.stat_result) -> bool:
        """Whether a file is this socket's.

        Args:
            found: What the system says of the file.
        """
        return (found.st_dev, found.st_ino) == (self.device, self.inode)


class RunnerSocket:
    """A listening socket and its path.

    Args:
        sock: The socket.
        name: By which the socket is recognized there.

    Attributes:
        name: The same.
    """

    def __init__(self, sock: socket.socket, name: SocketName) -> None:
        self.sock = sock
        self.name = name
        self._unlinked = False

    def set_mode(self, permissions: int) -> None:
        """Set the mode of the socket file, if it is this socket's and belongs to this user.

        Args:
            permissions: The mode.
        """
        with contextlib.suppress(OSError):
            # through a descriptor, so that nobody can exchange the file meanwhile
            descriptor = os.open(self.name.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = os.fstat(descriptor)
                if self.name.is_of(found) and stat.S_IMODE(found.st_mode) != permissions:
                    os.chmod(f"/proc/self/fd/{descriptor}", permissions)
            finally:
                os.close(descriptor)

    def unlink(self) -> None:
        """Remove the path, unless another runner has put its own socket there.

        Only the first call does anything: once this socket is closed, a new socket may have the same inode.
        """
        unlinked, self._unlinked = self._unlinked, True
        with contextlib.suppress(OSError):
            if not unlinked and self.name.is_there():
                os.unlink(self.name.path)


def bind(path: str, permissions: int = DEFAULT_PERMISSIONS) -> RunnerSocket:
    """Listen on `path`. A socket that is there is replaced.

    Args:
        path: Absolute path; its folder must exist.
        permissions: Mode of the socket file, whatever the process's umask is.

    Raises:
        ConfigurationError: The folder is missing or cannot be written to, the path is too long, or there is a file that
            is not a socket.
    """
    folder_fd = _open_folder(path)
    name = os.path.basename(path)
    owner: str | None = None
    try:
        owner = _look(path)
        return _take(folder_fd, name, path, permissions)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        if exc.errno == errno.EPERM and owner is not None:  # in a folder as /tmp only the owner may replace a file
            reason += f"; the file there belongs to {owner}: remove it, or give another path"
        raise ConfigurationError(f"cannot listen on {path}: {reason}") from None
    finally:
        os.close(folder_fd)


def move_aside(path: str) -> str | None:
    """Give another name to what somebody has put in a socket's place, unless it is a socket itself.

    Args:
        path: Absolute path of the socket.

    Returns:
        The new path; None: there is nothing, or a socket, which :func:`bind` replaces.

    Raises:
        OSError: It cannot be renamed.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISSOCK(mode):
        return None
    moved = f"{path}.{os.urandom(4).hex()}.moved"
    os.rename(path, moved)
    return moved


def check_path(path: str) -> None:
    """Check whether a socket can have this path.

    Args:
        path: Absolute path of the socket.

    Raises:
        ConfigurationError: The folder is missing, the path is too long, or there is something else than a socket.
    """
    os.close(_open_folder(path))
    has_owner(path)


def _open_folder(path: str) -> int:
    """Open the folder of a socket, and check the length of the path. Raises ConfigurationError."""
    if len(os.fsencode(path)) > MAX_PATH:
        raise ConfigurationError(
            f"the socket's path has {len(os.fsencode(path))} bytes, a unix socket's may have {MAX_PATH}: {path}"
        )
    folder = os.path.dirname(path)
    try:
        return os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except OSError as exc:
        raise ConfigurationError(f"the socket's folder {folder}: {exc.strerror}; create it first") from None


def has_owner(path: str) -> bool | None:
    """Whether a process listens on `path`.

    Args:
        path: Absolute path of the socket.

    Returns:
        None where that is unknown: the socket belongs to another user, and its mode does not let this one connect.

    Raises:
        ConfigurationError: There is something else than a stream socket.
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
            # Linux checks the permission first, so the error does not say whether somebody listens
            return None
    return True


def _look(path: str) -> str | None:
    """Log which socket is there now. Returns its owner; None: there is none. Raises ConfigurationError for a file."""
    alive = has_owner(path)
    try:
        uid = os.lstat(path).st_uid
    except OSError:
        return None
    import pwd

    try:
        owner = f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        owner = f"user {uid}"
    if alive:
        logger.warning("Another runner listens on %s: new connections are taken over from it", path)
    elif alive is None:
        logger.warning(
            "The socket of %s at %s is replaced. It is unknown whether a runner still listens there, because this user "
            "may not connect to it",
            owner,
            path,
        )
    else:
        logger.info("A stale socket at %s is replaced", path)
    return owner


def _take(folder_fd: int, name: str, path: str, permissions: int) -> RunnerSocket:
    """Bind a socket in a private folder beside the path, set its mode there, and rename it onto the path.

    A umask could set the mode at once. But all threads share it, so other users could then open their new files. And a
    default ACL of the folder overrides it.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _private_folder(folder_fd) as private_fd:
            # through /proc, because the name in the private folder is longer than the path, and may be too long
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
    return RunnerSocket(sock, SocketName(path, found.st_dev, found.st_ino))


@contextlib.contextmanager
def _private_folder(folder_fd: int) -> Iterator[int]:
    """Create a folder for this user alone in the folder, yield its descriptor, and remove it afterwards."""
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
