"""Runners of one path, as objects of this process: who finds whom, and what others who connect can do."""

import logging
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from asgi_bridge.succession.callers import MAX_CALLERS
from asgi_bridge.succession.control import Control, Handed, Packet, close_all, connect, open_private
from asgi_bridge.succession.packets import (
    CONNECTIONS,
    DONE,
    HELLO,
    IDENTITY,
    LISTENER,
    MAX_PACKETS,
    PREDECESSOR,
    READY,
    REFUSED,
    VERSION,
)
from asgi_bridge.succession.succession import Succession

Make = Callable[[], Succession]


@pytest.fixture
def make(path: str) -> Iterator[Make]:
    """Make runners that have begun."""
    made: list[Succession] = []

    def make() -> Succession:
        runner = Succession(path)
        made.append(runner)
        runner.begin()
        return runner

    yield make
    for each in made:
        end(each)


def end(runner: Succession) -> None:
    """Close what the end of its process would close."""
    runner.is_over = True
    for control in [*runner.callers.controls, *filter(None, [runner.predecessors.current])]:
        for handed in control.close():
            os.close(handed.descriptor)
    runner.callers.successor = runner.predecessors.current = None
    runner.callers._silent.clear()
    runner.close()
    if runner.listening is not None:
        runner.listening.sock.close()
    if runner.control._folder is not None:
        os.close(runner.control._folder)
        runner.control._folder = None


def call(path: str) -> Control:
    """Connect to the control socket in place."""
    folder = open_private(f"{path}.d")
    assert folder is not None
    found = connect(folder)
    os.close(folder)
    assert found is not None
    return found


def turn(*runners: Succession) -> None:
    for _ in range(4):
        for each in runners:
            each.step()


def inode(path: str) -> int:
    return os.stat(path).st_ino


def packets_of(control: Control) -> list[Packet]:
    return list(iter(control.receive, None))


# who finds whom


def test_each_runner_is_the_successor_of_the_one_before(make: Make, path: str) -> None:
    first, second, third = make(), make(), make()
    before = inode(path)
    turn(first, second, third)
    for giver, taker in ((first, second), (second, third)):
        giver.pass_on()
        turn(taker, giver)
        assert taker.listening is not None and taker.listening.name.inode == before == inode(path)
        assert giver.successor is None or giver.successor.settled
    assert third.listening is not None and third.listening.name.is_there()


def test_runners_that_start_at_one_moment_stand_in_one_line(make: Make, path: str) -> None:
    owner = make()
    found: list[Succession] = []
    threads = [threading.Thread(target=lambda: found.append(make())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = inode(path)
    turn(owner, *found)
    last = [each for each in found if each.successor is None]
    assert len(last) == 1 and owner.successor is not None
    for _ in found:  # in any order: each gives what it has as soon as it has it
        for each in [owner, *found]:
            if each.listening is not None and each.successor is not None:
                each.pass_on()
        turn(*found)
    assert last[0].listening is not None and last[0].listening.name.is_there() and inode(path) == before


def test_the_third_of_three_finds_the_owner_if_the_second_is_killed(make: Make, path: str) -> None:
    first, second, third = make(), make(), make()
    turn(first, second, third)
    end(second)
    turn(first, third)
    first.pass_on()
    turn(third)
    assert third.listening is not None and third.listening.name.is_there()


@pytest.mark.parametrize("ready", [False, True])
def test_the_third_of_three_gets_the_owner_if_the_second_ends_while_it_loads(
    make: Make, path: str, ready: bool
) -> None:
    first, second, third = make(), make(), make()
    if ready:
        third.say_ready()
    turn(first, second, third)
    second.pass_on()
    turn(third, first)
    assert first.successor is not None and first.is_wanted is ready
    first.pass_on()
    turn(third)
    assert third.listening is not None and third.listening.name.is_there()


def test_an_owner_whose_private_folder_somebody_removes_makes_it_anew(make: Make, path: str) -> None:
    owner = make()
    shutil.rmtree(f"{path}.d")
    turn(owner)
    successor = make()
    turn(owner, successor)
    assert owner.successor is not None and successor.predecessors.current is not None


def test_an_owner_takes_no_folder_of_others_as_its_own(make: Make, path: str) -> None:
    owner = make()
    before = inode(path)
    os.rename(f"{path}.d", f"{path}.away")
    os.mkdir(f"{path}.d", 0o777)
    os.chmod(f"{path}.d", 0o777)
    turn(owner)
    assert os.listdir(f"{path}.d") == []
    assert inode(path) == before and owner.control.is_in_place


# another version


@pytest.fixture
def versions(make: Make, path: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Succession, Succession]:
    """An owner, and a runner of another version that has taken the path from it."""
    owner = make()
    with monkeypatch.context() as patch:
        patch.setattr("asgi_bridge.succession.predecessors.VERSION", b"2")
        other = make()
    before = inode(path)
    turn(owner, other)
    assert other.predecessors.is_refused and owner.successor is None and owner.control.is_in_place
    assert inode(path) == before and other.listening is None
    other.say_ready()
    other.replace_silent()
    return owner, other


def test_a_runner_of_another_version_takes_the_path_and_keeps_it(
    versions: tuple[Succession, Succession], path: str, caplog: pytest.LogCaptureFixture
) -> None:
    owner, other = versions
    before = inode(path)
    for _ in range(10):
        turn(owner, other)
    assert other.listening is not None and other.listening.name.is_there() and inode(path) == before
    assert other.control.is_in_place
    said = [each.getMessage() for each in caplog.records]
    assert said.count(f"Another runner has taken {path}. This one keeps its connections") == 1


@pytest.mark.parametrize("killed", [False, True])
def test_the_path_is_the_owners_again_if_that_runner_ends(
    versions: tuple[Succession, Succession], path: str, killed: bool
) -> None:
    owner, other = versions
    turn(owner, other)
    if not killed:
        other.remove_path()
    end(other)
    assert owner.listening is not None
    with owner.listening.sock:  # the event loop closes it when it accepts on the new one
        turn(owner)
    assert owner.listening is not None and owner.listening.name.is_there() and owner.control.is_in_place


def test_a_hello_of_another_version_is_refused(make: Make, path: str) -> None:
    owner = make()
    for version in (b"", b"0", VERSION + VERSION, b"x" * 1000):
        caller = call(path)
        caller.send(HELLO, version)
        turn(owner)
        assert [each.kind for each in packets_of(caller)] == [REFUSED]
        assert caller.ended and owner.callers.controls == []
        caller.close()


# others who connect


def test_rubbish_ends_the_connection_and_nothing_else(make: Make, path: str) -> None:
    owner = make()
    for data in (b"x", b"\1" * 7, b"\xff" * 5000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
            caller.connect(f"{path}.d/control")
            caller.send(data)
            turn(owner)
            assert caller.recv(10) == b""
    for kind in (READY, LISTENER, CONNECTIONS, PREDECESSOR, DONE, 99):
        control = call(path)
        read, write = os.pipe()
        control.send(kind, b"rubbish", [Handed(read)])
        turn(owner)
        packets_of(control)
        assert control.ended
        control.close()
        with pytest.raises(BrokenPipeError):
            os.write(write, b"x")  # the owner has kept no descriptor
        os.close(write)
    assert owner.successor is None and owner.listening is not None and owner.listening.name.is_there()


def test_a_flood_of_packets_takes_no_more_of_a_turn_than_a_hundred(make: Make, path: str) -> None:
    owner = make()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
        raw.connect(f"{path}.d/control")
        caller = Control(raw)
        for kind in [HELLO] * 200 + [READY]:
            caller.send(kind, VERSION)
        assert caller.settled
        owner.step()
        assert owner.successor is not None and not owner.is_wanted
        assert len(packets_of(owner.successor)) == 200 - MAX_PACKETS


def test_silent_callers_are_sent_away_and_a_successor_still_gets_in(make: Make, path: str) -> None:
    owner = make()
    callers = [call(path) for _ in range(3 * MAX_CALLERS)]
    turn(owner)
    assert len(owner.callers.controls) == MAX_CALLERS
    successor = make()
    turn(owner, successor)
    assert owner.successor is not None
    for each in callers:
        each.close()
    turn(owner)
    assert owner.callers.controls == [owner.successor]


def test_the_last_of_many_hellos_counts(make: Make, path: str) -> None:
    owner = make()
    callers = [call(path) for _ in range(5)]
    for each in callers:
        each.send(HELLO, VERSION)
        each.send(READY)
    turn(owner)
    owner.pass_on()
    packets = [packets_of(each) for each in callers]
    assert [[packet.kind for packet in each] for each in packets] == [[], [], [], [], [LISTENER, DONE]]
    close_all(packets[-1][0].handed)
    for each in callers:
        each.close()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (LISTENER, b""),
        (LISTENER, IDENTITY.pack(1, 2)),
        (LISTENER, b"x" * 16),
        (PREDECESSOR, b""),
        (CONNECTIONS, b""),
        (99, b""),
    ],
)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_predecessor_that_sends_rubbish_leaves_no_descriptor(
    make: Make, path: str, kind: int, data: bytes, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    make()
    runner = make()
    owner = Control(socket.socket())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    owner.close()
    current = runner.predecessors.current
    assert current is not None
    current.close()
    runner.predecessors.current = Control(ours)
    sender = Control(theirs)
    read, write = os.pipe()
    sender.send(kind, data, [Handed(os.dup(read)) for _ in range(number)])
    os.close(read)
    with caplog.at_level(logging.CRITICAL):
        turn(runner)
    sender.receive()
    for each in runner.connections:  # these it serves, and then it closes them
        os.close(each.descriptor)
    runner.connections = []
    for each in sender.close():
        os.close(each.descriptor)
    with pytest.raises(BrokenPipeError):
        os.write(write, b"x")
    os.close(write)
    assert runner.listening is None
