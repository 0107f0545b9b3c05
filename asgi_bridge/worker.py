"""What a worker process runs. The supervisor of ``asgi-bridge run`` starts it; it is no command."""

import ctypes
import gc
import json
import os
import signal
import socket
import sys

from .errors import BridgeError
from .supervisor.files import raise_limit

__all__ = ["main", "serve_supervisor"]

MAX_MESSAGE = 1 << 20
"""Bytes of the supervisor's first message, at most."""
MEMORIES = 3
"""Number of the descriptors that come with it: the memory that both share, and the two that all workers share."""
PR_SET_PDEATHSIG = 1
"""Number of the operation in ``prctl`` (linux/prctl.h)."""


def main() -> None:
    """Serve as a worker. The arguments are the descriptor of the channel, and the supervisor's process id."""
    channel, supervisor = map(int, sys.argv[1:3])
    del sys.argv[1:]
    sock = socket.socket(fileno=channel)
    sock.set_inheritable(False)
    serve_supervisor(sock, supervisor)


def serve_supervisor(channel: socket.socket, supervisor: int) -> None:
    """Serve as a worker, until the supervisor ends this process.

    What every worker needs is imported before the supervisor says what to serve. If it ends without a word, so does
    this process.

    An error of this package is printed to stderr as the command line prints it, and ends the process with exit code 2.

    Args:
        channel: This side of the channel.
        supervisor: Process id of the supervisor.
    """
    _die_with(supervisor)
    raise_limit()  # a worker that has begun ahead inherits none
    gc.disable()  # what is imported stays: a search for garbage in it finds nothing
    from .loading import make_source
    from .plugins.shared_numbers import SharedTable, share
    from .server.serve import serve
    from .server.worker import WorkerEnds
    from .supervisor.channel import Table

    gc.freeze()
    gc.unfreeze()  # both together make it old, so that the next search does not look at it
    gc.enable()
    data, memories, _, _ = socket.recv_fds(channel, MAX_MESSAGE, MEMORIES, socket.MSG_CMSG_CLOEXEC)
    if not data:
        sys.exit(1)
    message = json.loads(data)
    memory, numbers, parked = memories
    channel.setblocking(False)
    table = Table(memory)
    os.close(memory)
    share(numbers)
    told = {name: message[name] for name in ("folder", "first", "record_key", "limit_max_requests")}
    ends = WorkerEnds(channel, table, SharedTable(parked), **told)
    try:
        serve(make_source(**message["source"]), **message["options"], ends=ends)
    except BridgeError as exc:
        from .tracebacks import own_lines

        print(f"{own_lines(exc)}asgi-bridge: {exc}", file=sys.stderr, flush=True)
        sys.exit(2)


def _die_with(supervisor: int) -> None:
    """Let the system kill this process when its supervisor ends, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it has ended already
        sys.exit(1)
    for sig in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the supervisor too, which decides
        signal.signal(sig, lambda sig, frame: None)
