"""The gateway's master process, where it has started this runner: the runner ends when the master has gone.

APISIX ends its runner itself when it stops or reloads. If its master is killed, nobody does.
"""

import contextlib
import os
import re

__all__ = ["OF_APISIX", "master_of", "open_master"]

OF_APISIX = re.compile(r"apisix-([0-9]{1,9})\.sock")
"""Name of the socket that APISIX chooses for a runner that it starts. The number is the process id of its master."""


def master_of(socket_path: str) -> int | None:
    """Return the process id of the master that has started this process; None: no master has.

    Args:
        socket_path: Path of the runner's socket. Its name has the master's id, and the master must be an ancestor of
            this process: the same number may be another process, where the runner has a container of its own.
    """
    found = OF_APISIX.fullmatch(os.path.basename(socket_path))
    process = os.getpid()
    while found is not None and process > 1:
        process = _parent(process)
        if process == int(found[1]):
            return process
    return None


def open_master(socket_path: str) -> int | None:
    """Return a descriptor that is readable once the master has ended; None: no master has started this process.

    Args:
        socket_path: Path of the runner's socket.
    """
    master = master_of(socket_path)
    if master is not None:
        with contextlib.suppress(OSError):  # it has just ended, or the system has no such descriptors
            return os.pidfd_open(master)
    return None


def _parent(process: int) -> int:
    """Return the id of the parent of a process; 0: there is no such process."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            # the name before the last parenthesis may have anything in it
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
