"""One worker, as its supervisor sees it: the process, its channel, and its connections."""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from .channel import MAX_CONNECTIONS, Table, Word, receive, send

__all__ = ["State", "WorkerHandle"]

ENTRY = "from asgi_bridge.cli.worker import main; main()"
"""What a worker's interpreter runs. ``python -P`` keeps the working directory out of ``sys.path`` meanwhile."""


class State(Enum):
    """State of a worker."""

    LOADING = "it loads the plugins"
    READY = "it serves"
    RETIRING = "it gives its connections back, and ends"


class WorkerHandle:
    """Starts a worker.

    Args:
        message: What the worker is told at its start, plain data.
        shared: Descriptors of the two memories that all workers share: what plugins count, and where parked calls are.
            A child process may inherit them.

    Attributes:
        pid: Process id.
        channel: Our end of the channel.
        state: State of the worker.
        connections: Slot → our descriptor of the connection.
        recalled: Slots of the connections that the worker was asked to give back.
        stalled: Number of looks in a row that found the event loop where it was.
        retire_by: When a retiring worker gets SIGTERM, in monotonic seconds.
    """

    def __init__(self, message: Mapping[str, Any], shared: Sequence[int]) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = Table.create()
        try:
            self._table = Table(memory)
            for descriptor in (theirs.fileno(), memory, *shared):
                os.set_inheritable(descriptor, True)
            flags = [f"-W{option}" for option in sys.warnoptions]
            flags += [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]  # noqa: SLF001  # documented
            arguments = [str(number) for number in (theirs.fileno(), memory, *shared, os.getpid())]
            self.channel.send(json.dumps(message).encode())
            self.pid = os.posix_spawn(
                sys.executable, [sys.executable, *flags, "-P", "-c", ENTRY, *arguments], os.environ
            )
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()
            os.close(memory)
        self.channel.setblocking(False)
        self.state = State.LOADING
        self.connections: dict[int, socket.socket] = {}
        self.recalled: set[int] = set()
        self.stalled = 0
        self.retire_by = float("inf")
        self._turns = 0
        self._free: list[int] = []
        self._next = 0

    def take(self, sock: socket.socket, call: bytes = b"") -> bool:
        """Hand a connection to the worker.

        Args:
            sock: The connection.
            call: The call that it is in, as another worker has read it; empty: it is in none.

        Returns:
            False: the worker cannot take one now.
        """
        if self._free:
            slot = self._free.pop()
        elif self._next < MAX_CONNECTIONS:
            slot = self._next
            self._next += 1
        else:
            return False
        self._table.busy[slot] = bool(call)
        try:
            send(self.channel, Word.CONNECTION, slot, call, sock.fileno())
        except OSError:  # it has much unread, or has just ended
            self._free.append(slot)
            return False
        self.connections[slot] = sock
        return True

    def give_up(self, slot: int) -> socket.socket:
        """Return our descriptor of a connection that the worker does not have any more."""
        self._free.append(slot)
        self.recalled.discard(slot)
        return self.connections.pop(slot)

    def recall(self, number: int) -> None:
        """Ask the worker to give connections back, idle ones first. A busy one comes back after its answer."""
        slots = [slot for slot in self.connections if slot not in self.recalled]
        slots.sort(key=lambda slot: self._table.busy[slot])
        for slot in slots[:number]:
            if not self.tell(Word.GIVE_BACK, slot):
                return
            self.recalled.add(slot)

    def tell(self, word: Word, number: int = 0) -> bool:
        """Send a message without a descriptor. Returns False if it cannot be sent now."""
        try:
            send(self.channel, word, number)
        except OSError:
            return False
        return True

    def next_message(self) -> tuple[Word, int, bytes, int | None] | None:
        """Return the next message of the worker, as :func:`.receive` does; None: there is none now."""
        with contextlib.suppress(BlockingIOError):
            return receive(self.channel)
        return None

    def name_socket(self, name: tuple[int, int]) -> None:
        """Tell the worker by which device and inode it recognizes the socket at its path; zeros: there is none."""
        self._table.socket = name

    def look(self) -> None:
        """Note whether the event loop has turned since the last look."""
        turns = self._table.turns
        self.stalled = self.stalled + 1 if turns == self._turns else 0
        self._turns = turns

    def is_busy(self, slot: int) -> bool:
        """Whether the worker has, or had at its end, read something of a call that it has not answered."""
        return bool(self._table.busy[slot])

    def kill(self, sig: int) -> None:
        """Send a signal. The process was not waited for, so its id is still its own."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, sig)

    def wait(self) -> None:
        """Wait for the end of the process."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def ended(self) -> int | None:
        """Return the exit code of the process, or minus the signal that ended it; None: it runs."""
        try:
            process, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else has waited for it
            return -signal.SIGKILL
        return os.waitstatus_to_exitcode(status) if process else None
