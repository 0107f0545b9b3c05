"""One worker, as its supervisor sees it: the process, its channel, and its connections."""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from .ahead import Ahead, take_ahead
from .channel import MAX_CONNECTIONS, Table, Word, receive, send

__all__ = ["State", "WorkerHandle"]

ENTRY = "from asgi_bridge.worker import main; main()"
"""What a worker's interpreter runs. ``python -P`` keeps the working directory out of ``sys.path`` meanwhile."""


class State(Enum):
    """State of a worker."""

    LOADING = "it loads the plugins"
    READY = "it serves"
    RETIRING = "it gives its connections back, and ends"
    ENDED = "the process has ended"


class WorkerHandle:
    """Starts a worker, or takes the one that has begun ahead.

    Args:
        message: What the worker is told at its start, plain data.
        shared: Descriptors of the two memories that all workers share: what plugins count, and where parked calls are.

    Attributes:
        pid: Process id.
        channel: Our end of the channel.
        state: State of the worker.
        connections: Slot → our descriptor of the connection.
        recalled: Slots of the connections that the worker was asked to give back.
        stalled: Number of looks in a row that found the event loop where it was.
        end_by: When it gets the next signal that ends it, in monotonic seconds: see :meth:`end`.
        is_told: False: it is to be told that it retires, and the channel was full.
        is_mute: True: it has closed its end of the channel, so it has ended or is about to.
    """

    def __init__(self, message: Mapping[str, Any], shared: Sequence[int]) -> None:
        memory = Table.create()
        try:
            self._table = Table(memory)
            told = [json.dumps(message).encode()], [memory, *shared]
            self.pid, self.channel = _begun_ahead(*told) or _spawned(*told)
        finally:
            os.close(memory)
        self.channel.setblocking(False)
        self.state = State.LOADING
        self.connections: dict[int, socket.socket] = {}
        self.recalled: set[int] = set()
        self.stalled = 0
        self.end_by = float("inf")
        self.is_told = True
        self.is_mute = False
        self._signal = signal.SIGTERM
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
        try:
            message = receive(self.channel)
        except BlockingIOError:
            return None
        self.is_mute = message is None
        return message

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

    def retire(self, seconds: float) -> None:
        """Let it give its connections back, and end.

        Args:
            seconds: How long it may take for that.
        """
        self.state = State.RETIRING
        self.end_by = time.monotonic() + seconds
        self.is_told = self.tell(Word.RETIRE)

    def end(self, seconds: float) -> None:
        """Send SIGTERM, or SIGKILL if it has got SIGTERM and goes on: a plugin may have blocked that.

        Args:
            seconds: How long it may take to end after SIGTERM.
        """
        self.end_by = time.monotonic() + seconds
        sig, self._signal = self._signal, signal.SIGKILL
        self.kill(sig)

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


def _begun_ahead(told: list[bytes], memories: list[int]) -> Ahead | None:
    """Tell the worker that has begun ahead what to serve; None: there is none, or it has ended.

    Args:
        told: The message.
        memories: Descriptors that go with it.
    """
    ahead = take_ahead()
    if ahead is None:
        return None
    try:
        socket.send_fds(ahead.channel, told, memories)
    except OSError:  # a new one says why
        ahead.channel.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(ahead.pid, signal.SIGKILL)
            os.waitpid(ahead.pid, 0)
        return None
    return ahead


def _spawned(told: list[bytes], memories: list[int]) -> tuple[int, socket.socket]:
    """Start a worker in a new interpreter. Return its process id, and our end of the channel.

    Args:
        told: The message.
        memories: Descriptors that go with it.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        socket.send_fds(ours, told, memories)
        theirs.set_inheritable(True)
        flags = [f"-W{option}" for option in sys.warnoptions]
        flags += [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]  # noqa: SLF001  # documented
        arguments = [sys.executable, *flags, "-P", "-c", ENTRY, str(theirs.fileno()), str(os.getpid())]
        return os.posix_spawn(sys.executable, arguments, os.environ), ours
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
