"""The runner's private folder: ``PATH.d/`` beside the socket.

It holds the file of tokens, which outlives the process, and which nobody else may read. The runner creates the folder
with mode 0700. It never uses one that is not private, because another user created it or its mode lets others in. It
then creates a temporary folder, and removes that at its end.
"""

import contextlib
import logging
import os
import re
import shutil
import stat
import tempfile

__all__ = ["PrivateFolder"]

logger = logging.getLogger("asgi_bridge.server")

SUFFIX = ".d"
_OF_APISIX = re.compile(r"apisix-([0-9]{1,10})\.sock")
"""Name of the socket that APISIX chooses for a runner that it starts. The number is the process id of its master."""


class PrivateFolder:
    """The private folder of one socket path.

    Args:
        socket_path: absolute path of the socket.

    Attributes:
        path: path of the folder.
        temporary: True: the folder is removed when this process ends.
    """

    def __init__(self, socket_path: str) -> None:
        self.path = socket_path + SUFFIX
        self.temporary = False
        reason = _take(self.path)
        if reason is not None:
            wanted, self.path = self.path, tempfile.mkdtemp(prefix="asgi_bridge-")
            self.temporary = True
            logger.warning(
                "The private folder %s cannot be used: %s. Tokens are kept in %s, until this runner ends. Remove the "
                "folder, or give the runner's user the right to make it",
                wanted,
                reason,
                self.path,
            )
        _remove_dead(socket_path)

    def close(self) -> None:
        """Remove the folder if it is temporary. Otherwise it stays, because tokens outlive the process."""
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)


def _take(path: str) -> str | None:
    """Create the folder, or check the one that is there. Returns why it cannot be used; None: it can."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
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
    if _OF_APISIX.fullmatch(name) is None:
        return
    with contextlib.suppress(OSError):
        for other in os.listdir(folder):
            found = _OF_APISIX.fullmatch(other.removesuffix(SUFFIX))
            if found is not None and other.endswith(SUFFIX) and other != name + SUFFIX and not _lives(int(found[1])):
                dead = os.path.join(folder, other)
                if _is_own_folder(dead):
                    shutil.rmtree(dead, ignore_errors=True)  # follows no links


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs as another user
        return True
    return True


def _is_own_folder(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
