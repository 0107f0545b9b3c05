"""The first worker begins before its supervisor does anything else. Both then start at the same time.

A worker needs a fresh interpreter, and most of its start is imports. At its very beginning the supervisor's own process
is such an interpreter: it has no threads, no open files and no handlers of signals. So it forks then, which saves the
start of another one. Later workers are new processes, since the supervisor has become something else by then, and its
code may have been replaced on the disk.
"""

import os
import socket
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple, NoReturn

from ..streams import open_streams

__all__ = ["Ahead", "start_ahead", "take_ahead"]

_OPTIONS = {"--reload", "--env-file", "--help", "-h"}
"""Options of ``run`` with which no worker begins ahead: there is none, or its environment is not known yet."""
_VARIABLES = ("ASGI_BRIDGE_RUN_RELOAD", "ASGI_BRIDGE_RUN_ENV_FILE")
"""Environment variables that click takes for these options."""


class Ahead(NamedTuple):
    """A worker that does not know yet what to serve."""

    pid: int
    channel: socket.socket


_ahead: Ahead | None = None


def start_ahead(arguments: Sequence[str], serve: Callable[[socket.socket, int], object]) -> None:
    """Start the first worker, if this process is going to supervise workers and is still as good as new.

    It ends by itself if this process ends before it says what to serve. In the worker this does not return.

    Args:
        arguments: The command line, without the command's own name.
        serve: What the worker runs, with its end of the channel and the supervisor's process id.
    """
    global _ahead
    given = {each.partition("=")[0] for each in arguments}
    if arguments[:1] != ["run"] or given & _OPTIONS or any(map(os.environ.get, _VARIABLES)) or not _is_new():
        return
    open_streams()  # before anything else is opened
    supervisor = os.getpid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = os.fork()
    except OSError:  # it will be tried again, and then the log says why
        ours.close()
        theirs.close()
        return
    if not pid:
        ours.close()
        _serve(serve, theirs, supervisor)
    theirs.close()
    _ahead = Ahead(pid, ours)


def take_ahead() -> Ahead | None:
    """Return the worker that has begun ahead, once; None: there is none."""
    global _ahead
    ahead, _ahead = _ahead, None
    return ahead


def _is_new() -> bool:
    """Whether this process has one thread, also of those that Python does not know, and nobody traces it."""
    if sys.gettrace() is not None or sys.getprofile() is not None:
        return False
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _serve(serve: Callable[[socket.socket, int], object], channel: socket.socket, supervisor: int) -> NoReturn:
    """Make this process what ``python -P -c`` would be, and serve."""
    if not sys.flags.safe_path:
        del sys.path[0]
    sys.argv[:] = ["-c"]
    sys.modules["__main__"] = ModuleType("__main__")
    serve(channel, supervisor)
    sys.exit()
