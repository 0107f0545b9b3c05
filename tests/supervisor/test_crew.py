"""The supervisor's side of its workers, with workers that misbehave. Each is a small real process."""

import contextlib
import json
import logging
import os
import resource
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from asgi_bridge.insight.tally import Tally
from asgi_bridge.succession.sockets import RunnerSocket, bind
from asgi_bridge.supervisor import crew as crew_module
from asgi_bridge.supervisor import door as door_module
from asgi_bridge.supervisor import handle as handle_module
from asgi_bridge.supervisor.channel import Word, pack, receive, send, unpack
from asgi_bridge.supervisor.connections import Connections
from asgi_bridge.supervisor.crew import EXIT_CODE, Crew
from asgi_bridge.supervisor.door import Door
from asgi_bridge.supervisor.handle import State, WorkerHandle
from asgi_bridge.supervisor.reports import Reports

from ..doubles.waiting import until

ENTRY = """
import os, signal, socket, struct, sys
channel = socket.socket(fileno=int(sys.argv[1]))
channel.recv(1 << 20)
def say(word, number=0, *descriptors):
    socket.send_fds(channel, [struct.pack("<BI", word, number)], descriptors)
def hear(word):
    while channel.recv(1 << 16)[0] != word:
        pass
"""
"""What a worker of these tests begins with."""
SERVING = f"say({Word.READY:d}); hear({Word.RETIRE:d})"
"""A worker that does as it is told."""


class Stage:
    """A crew whose workers run some lines of code.

    Args:
        wanted: number of workers.
    """

    def __init__(self, wanted: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.connections = Connections()
        self.crew = Crew(self.selector, wanted, self.connections, [])

    def turn(self) -> None:
        """Do what the supervisor does in one turn."""
        for key, _ in self.selector.select(0.01):
            key.data()
        self.crew.reap()

    def until(self, condition: Callable[[], object]) -> None:
        """Take turns until the condition is true."""

        def turned() -> object:
            self.turn()
            return condition()

        until(turned)

    def pids(self, state: State = State.READY) -> list[int]:
        return [each.pid for each in self.crew.workers if each.state is state]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []
    monkeypatch.setattr(crew_module, "HANG_LOOKS", 1_000_000)  # these workers have no event loop

    def stage(code: str = SERVING, wanted: int = 1) -> Stage:
        monkeypatch.setattr(handle_module, "ENTRY", ENTRY + code)
        stages.append(Stage(wanted))
        return stages[-1]

    yield stage
    for each in stages:
        each.crew.complete()
        each.crew.kill_all()
        each.crew.reap()
        each.selector.close()


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


# what is said


def test_a_report_that_has_lost_its_memory_takes_no_connection_away(stage: Callable[..., Stage]) -> None:
    """The system drops a descriptor where none is free. Nothing else may be read into such a message."""
    words = (Word.REPORT, Word.REPORTS, Word.CONNECTION, Word.GIVE_BACK, Word.RETIRE)
    told = "; ".join(f"say({word:d})" for word in words)
    found = stage(f"say({Word.READY:d}); hear({Word.CONNECTION:d}); {told}; say({Word.WORN:d}); hear(99)")
    worker = found.crew.start()
    assert worker is not None
    found.until(found.pids)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found.connections.hand_out(ours)
        found.until(lambda: len(found.crew.workers) == 2)  # it has said WORN
        assert worker.connections == {0: ours}


@pytest.mark.parametrize("said", [b"", b"\x07", struct.pack("<BI", 0, 0), struct.pack("<BI", 200, 1) + b"x"])
def test_what_nobody_says_counts_as_the_end(said: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(theirs, [said], [0] if said else [])
        before = os.listdir("/proc/self/fd")
        assert receive(ours) is None
        assert os.listdir("/proc/self/fd") == before


def test_a_message_brings_one_descriptor_at_most() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(theirs, [struct.pack("<BI", Word.REPORT, 0)], [0, 0])
        before = len(os.listdir("/proc/self/fd"))
        message = receive(ours)
        assert message is not None and message[3] is not None
        assert len(os.listdir("/proc/self/fd")) == before + 1
        os.close(message[3])


def test_what_a_side_has_said_last_is_heard_though_it_left_messages_unread() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            send(ours, Word.GIVE_BACK, 1)
            send(theirs, Word.CLOSED, 7)
        assert receive(ours) == (Word.CLOSED, 7, b"", None)
        assert receive(ours) is None


def memory(data: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, data)
    return descriptor


def pipe() -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


GOOD = {"worker": {"pid": 1}, "tally": Tally().dump(), "lines": []}
BAD: dict[str, Callable[[], int]] = {
    "nothing": lambda: memory(b""),
    "no JSON": lambda: memory(b"\xff{"),
    "no object": lambda: memory(b"[1]"),
    "deep": lambda: memory(b"[" * 200_000),
    "no tally": lambda: pack({**GOOD, "tally": {"calls": 1}}),
    "other counts": lambda: pack({**GOOD, "tally": {**Tally().dump(), "calls": [["a", "b", "c"]]}}),
    "no lines": lambda: pack({"worker": {}, "tally": Tally().dump()}),
    "a pipe": pipe,
    "a folder": lambda: os.open("/", os.O_RDONLY),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_report_that_cannot_be_read_does_not_count(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        asking: Any = SimpleNamespace(pid=1, channel=theirs)
        other: Any = SimpleNamespace(pid=2)
        reports = Reports([])
        bad = BAD[kind]()
        reports.take(other, bad)
        assert not is_open(bad)
        assert "Worker 2: its report cannot be read" in caplog.text
        reports.bury(other)
        reports.ask(asking, pack(GOOD))
        message = receive(ours)
        assert message is not None and message[3] is not None
        assert unpack(message[3]) == [GOOD, {"worker": {}, "tally": Tally().dump(), "lines": []}]


def test_who_asks_for_reports_gets_an_answer_though_a_worker_does_not_report(stage: Callable[..., Stage]) -> None:
    found = stage(wanted=2)
    found.crew.start()
    found.until(lambda: len(found.pids()) == 2)
    told = json.dumps(GOOD).encode()
    asks = f"memory = os.memfd_create('m'); os.write(memory, {told!r}); say({Word.REPORTS:d}, 0, memory)"
    stage(f"say({Word.READY:d}); {asks}; hear({Word.REPORTS:d}); sys.exit(7)")
    found.crew.resize(1)
    found.until(lambda: len(found.pids()) == 3)
    found.crew.complete()

    def looked() -> bool:
        found.crew.look(0.5, 1.0)
        return found.crew.failed == 7

    found.until(looked)


# who does not listen


def test_a_worker_that_has_closed_its_channel_is_killed_though_it_ignores_sigterm(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crew_module, "MUTE_SECONDS", 0.0)
    ignoring = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})"
    found = stage(f"{ignoring}; say({Word.READY:d}); channel.close(); signal.pause()")
    worker = found.crew.start()
    assert worker is not None
    found.until(lambda: worker.is_mute)
    assert found.selector.select(0) == []  # nothing wakes the supervisor again and again
    assert worker.state is State.READY

    def looked() -> bool:
        found.crew.look(0.5, 0.0)
        return worker not in found.crew.workers

    found.until(looked)
    assert f"Worker {worker.pid} has closed its channel to the supervisor; it is replaced" in caplog.text
    assert f"Worker {worker.pid} ended by signal 9" in caplog.text


def test_a_worker_whose_channel_is_full_is_told_later_that_it_retires(stage: Callable[..., Stage]) -> None:
    waiting = f"say({Word.READY:d}); signal.sigwait({{signal.SIGUSR1}}); hear({Word.RETIRE:d})"
    found = stage(f"signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1}}); {waiting}")
    worker = found.crew.start()
    assert worker is not None
    found.until(found.pids)
    while worker.tell(Word.ASK):
        pass
    found.crew.complete()
    found.crew.retire(worker)
    found.crew.look(0.5, 0.0)
    assert not worker.is_told
    worker.kill(signal.SIGUSR1)

    def looked() -> bool:
        found.crew.look(0.5, 0.0)
        return not found.crew.workers

    found.until(looked)
    assert found.crew.failed == 0  # no signal has ended it, so it has kept its connections until it gave them back


def test_a_worker_that_floods_its_channel_does_not_hold_up_the_others(stage: Callable[..., Stage]) -> None:
    found = stage(f"say({Word.READY:d})\nwhile True: say({Word.CLOSED:d}, 5)")
    found.crew.start()
    found.until(found.pids)
    for _ in range(5):
        found.turn()  # each of them ends


def test_a_worker_that_has_ended_before_it_was_heard_is_not_ready(stage: Callable[..., Stage]) -> None:
    found = stage(f"say({Word.READY:d}); os._exit(0)")
    worker = found.crew.start()
    assert worker is not None
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    found.crew.reap()
    assert found.crew.is_over and not found.crew.has_served
    assert found.crew.failed == EXIT_CODE


# how many


def test_one_worker_less_is_wanted_while_one_is_replaced(stage: Callable[..., Stage]) -> None:
    found = stage(wanted=2)
    found.crew.start()
    found.until(lambda: len(found.pids()) == 2)
    before = found.pids()
    found.crew.roll()
    found.crew.resize(-1)
    found.until(lambda: len(found.crew.workers) == 1 and not {*found.pids()} & {*before})
    found.crew.resize(1)
    found.crew.resize(-1)  # the one that still loads goes, and not the one that serves
    (serving,) = found.pids()
    found.until(lambda: len(found.crew.workers) == 1)
    assert found.pids() == [serving]


def test_a_worker_that_loads_when_all_are_replaced_is_replaced_too(stage: Callable[..., Stage]) -> None:
    found = stage()
    first = found.crew.start()
    assert first is not None
    found.crew.roll()  # it may have read the old code already
    found.until(lambda: found.pids() and first.pid not in found.pids() and len(found.crew.workers) == 1)


# descriptors


@contextlib.contextmanager
def few_descriptors(number: int) -> Iterator[None]:
    """Let this process open so many further descriptors."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + number, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_worker_that_cannot_be_started_is_tried_again(
    stage: Callable[..., Stage], number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crew_module, "RETRY_SECONDS", (0.0, 0.0))
    found = stage()
    first = found.crew.start()
    assert first is not None
    found.until(found.pids)
    with few_descriptors(number):
        found.crew.roll()
        assert "A worker cannot be started (Too many open files); the next attempt is in 0 s" in caplog.text
        assert found.pids() == [first.pid]
    found.crew.look(0.5, 1.0)
    found.until(lambda: found.pids() and first.pid not in found.pids())


def test_connections_leave_descriptors_for_a_new_worker(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    selector = selectors.DefaultSelector()
    taken: list[socket.socket] = []
    door = Door(selector, taken.append)
    listening: RunnerSocket = bind(path)
    door.exchange(listening)
    clients = []
    for _ in range(5):
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(path)
    with few_descriptors(door_module.SPARE + 3):
        door.open()
        for key, _ in selector.select(0):
            key.data()
        assert len(taken) == 3
        assert "(Too many open files); they wait" in caplog.text
        time.sleep(door_module.REST_SECONDS)
        door.open()
        for key, _ in selector.select(0):
            key.data()
        assert len(taken) == 3
        door.empty()  # at the end there is nothing to spare for
        assert len(taken) == 5
    door.close()
    selector.close()
    for each in (*clients, *taken):
        each.close()


def test_a_descriptor_of_a_dead_worker_is_closed(stage: Callable[..., Stage]) -> None:
    found = stage("os._exit(1)")
    before = sorted(os.listdir("/proc/self/fd"))
    worker = found.crew.start()
    assert isinstance(worker, WorkerHandle)
    found.until(lambda: not found.crew.workers)
    del worker
    assert sorted(os.listdir("/proc/self/fd")) == before
