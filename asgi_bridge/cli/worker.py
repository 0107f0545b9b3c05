"""What a worker process runs. The supervisor of ``asgi-bridge run`` starts it; it is no command."""

import ctypes
import gc
import json
import os
import signal
import socket
import sys

import click

from ..errors import BridgeError
from ..tracebacks import own_lines
from .options import make_source

__all__ = ["main"]

MAX_MESSAGE = 1 << 20
"""Bytes of the supervisor's first message, at most."""
PR_SET_PDEATHSIG = 1
"""Number of the operation in ``prctl`` (linux/prctl.h)."""


def main() -> None:
    """Serve as a worker.

    The arguments are the descriptors of the channel and of three memories, and the supervisor's process id.

    An error of this package is printed to stderr as the command line prints it, and ends the process with exit code 2.
    """
    channel, memory, numbers, parked, supervisor = (int(number) for number in sys.argv[1:6])
    del sys.argv[1:]
    _die_with(supervisor)
    gc.disable()  # what is imported stays: a search for garbage in it finds nothing
    from ..plugins.shared_numbers import SharedTable, share
    from ..server.serve import serve
    from ..server.worker import WorkerEnds
    from ..supervisor.channel import Table

    gc.enable()
    sock = socket.socket(fileno=channel)
    sock.set_inheritable(False)
    message = json.loads(sock.recv(MAX_MESSAGE))
    sock.setblocking(False)
    table = Table(memory)
    os.close(memory)
    for descriptor in (numbers, parked):
        os.set_inheritable(descriptor, False)
    share(numbers)
    told = {name: message[name] for name in ("folder", "first", "record_key", "limit_max_requests")}
    ends = WorkerEnds(sock, table, SharedTable(parked), **told)
    try:
        serve(make_source(**message["source"]), **message["options"], ends=ends)
    except BridgeError as exc:
        click.echo(f"{own_lines(exc)}asgi-bridge: {exc}", err=True)
        sys.exit(2)


def _die_with(supervisor: int) -> None:
    """Let the system kill this process when its supervisor ends, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it has ended already
        sys.exit(1)
    for sig in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the supervisor too, which decides
        signal.signal(sig, lambda sig, frame: None)
