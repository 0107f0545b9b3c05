"""The runner's private folder: ``PATH.d/`` beside the socket.

It holds the control socket, and the file of tokens, which outlives the process. Nobody else may read or use them. The
runner creates the folder with mode 0700. It never uses one that is not private, because another user created it or its
mode lets others in. It then creates a temporary folder, and removes that at its end.
"""

import contextlib
import logging
import os
import stat

from .control import NAME as CONTROL
from .gateway_master import OF_APISIX

__all__ = ["PrivateFolder"]

logger = logging.getLogger("asgi_bridge.server")

SUFFIX = ".d"
"""What the folder's name has in addition to the socket's."""
TOKEN_FILES = tuple(f"tokens.sqlite{suffix}" for suffix in ("", "-wal", "-shm", "-journal"))
"""Names of the file of tokens, and of those that SQLite keeps beside it."""


class PrivateFolder:
    """The private folder of one socket path.

    Args:
        socket_path: Absolute path of the socket.

    Attributes:
        path: Path of the folder; None: there is none at all.
        temporary: True: the folder is removed when this process ends.
    """

    def __init__(self, socket_path: str) -> None:
        wanted = socket_path + SUFFIX
        self.path: str | None = wanted
        self.temporary = False
        reason = _take(wanted)
        if reason is not None:
            self.temporary = True
            self.path = _temporary()
            logger.warning(
                "The private folder %s cannot be used: %s. Tokens are kept in %s, until this runner ends. Remove the "
                "folder, or give the runner's user the right to create it",
                wanted,
                reason,
                self.path or "a temporary file",
            )
        _remove_dead(socket_path)

    def is_of(self, folder: int) -> bool:
        """Whether the path leads to this folder.

        Args:
            folder: Its descriptor.
        """
        if self.path is None:
            return False
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(folder))
        except OSError:
            return False

    def take_again(self) -> bool:
        """Create the folder anew, after somebody has removed it. Returns whether the path has a private folder now."""
        return self.path is not None and _take(self.path) is None

    def close(self) -> None:
        """Remove the folder if it is temporary. Otherwise it stays, because tokens outlive the process."""
        if self.temporary and self.path is not None:
            import shutil  # takes long, and this is rare

            shutil.rmtree(self.path, ignore_errors=True)


def _temporary() -> str | None:
    """Create a temporary folder, and return its path; None: it cannot be created."""
    import tempfile  # takes long, and this is rare

    try:
        path = tempfile.mkdtemp(prefix="asgi_bridge-")
    except OSError:
        return None
    with contextlib.suppress(OSError):
        _make_usable(path)
    return path


def _make_usable(path: str) -> None:
    """Set the mode of our new folder, because the process's umask may have removed bits of it."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():  # otherwise somebody has exchanged it
            os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        os.close(descriptor)


def _take(path: str) -> str | None:
    """Create the folder, or check the one that is there. Return why it cannot be used; None if it can."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
            _make_usable(path)
        # check it through a descriptor, which follows no link, and which nobody can exchange meanwhile
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        if os.path.islink(path):
            return "it is a link"
        return "it is no folder" if isinstance(exc, NotADirectoryError) else exc.strerror or str(exc)
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if found.st_uid != os.geteuid():
        return f"it belongs to the user with id {found.st_uid}"
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return f"others may use it (its mode is {mode:o}, and 700 is wanted)"
    if mode & 0o700 != 0o700 or not os.access(path, os.W_OK):
        return "it cannot be written to"
    return None


def _remove_dead(socket_path: str) -> None:
    """Remove the folders of runners whose APISIX does not run any more.

    The socket's name that APISIX chooses has its process id, so each start of APISIX brings another folder.
    """
    folder, name = os.path.split(socket_path)
    if OF_APISIX.fullmatch(name) is None:
        return
    with contextlib.suppress(OSError):
        for other in os.listdir(folder):
            found = OF_APISIX.fullmatch(other.removesuffix(SUFFIX))
            if found is not None and other.endswith(SUFFIX) and other != name + SUFFIX and not _lives(int(found[1])):
                with contextlib.suppress(OSError):  # one that is not like ours stays
                    _remove_files(os.path.join(folder, other))


def _remove_files(dead: str) -> None:
    """Remove a folder of ours, its file of tokens and its control socket. A folder with anything else in it stays."""
    descriptor = os.open(dead, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            return
        for name in (*TOKEN_FILES, CONTROL):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    os.rmdir(dead)


def _lives(process: int) -> bool:
    """Whether a process with this id runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs as another user
        return True
    return True
