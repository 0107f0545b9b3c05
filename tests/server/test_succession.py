"""Reload and take-over: one runner hands over to the next, and no call is lost."""

import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asgi_bridge.server.control import connect, open_private
from asgi_bridge.server.succession import HELLO, LISTENER, READY, VERSION

from ..doubles.connection import Connection, body_of, request
from ..doubles.reloading_gateway import ReloadingGateway
from ..doubles.runner_process import RunnerProcess
from ..doubles.waiting import until
from . import HERE

Start = Callable[..., RunnerProcess]

RELOADS = int(os.environ.get("RELOADS", "2"))
TAKE_OVERS = int(os.environ.get("TAKE_OVERS", "3"))
CALLS = int(os.environ.get("HANDOVER_CALLS", "1000"))
"""Number of calls before and after each of these."""
SLOWNESS = float(os.environ.get("SLOWNESS", "5"))
"""The tests run beside others: a process may need a second to start."""

SLOW = """
import os, time
from asgi_bridge import Bridge

async def pid(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})

bridge = Bridge()
bridge.mount("pid", pid)
time.sleep(IMPORT_SECONDS)
"""

FAILING = """
import os, time
while not os.path.exists(os.path.join(os.path.dirname(__file__), "fail")):
    time.sleep(0.01)
raise ImportError("no such luck")
"""


@pytest.fixture
def gateway(folder: Path, path: str) -> Iterator[ReloadingGateway]:
    """A gateway with a runner whose plugins take 0.6 s to import."""
    (folder / "slow.py").write_text(SLOW.replace("IMPORT_SECONDS", "0.6"))
    (folder / "endless.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(600)\n")
    (folder / "failing.py").write_text(FAILING)
    with ReloadingGateway(path, "slow:bridge", str(folder), slowness=SLOWNESS) as gateway:
        yield gateway


def importing(runner: RunnerProcess) -> None:
    """Wait until the runner imports its plugins."""
    assert runner.process.stdout is not None
    assert runner.process.stdout.readline() == b"importing\n"


def test_reloads_lose_no_call(gateway: ReloadingGateway) -> None:
    gateway.await_calls(CALLS)
    for _ in range(RELOADS):
        old = gateway.reload()
        gateway.await_calls(CALLS, gateway.runner)
        assert old.wait() == -signal.SIGTERM, old.log
    assert gateway.lost == []
    print(f"{RELOADS} reloads, {gateway.calls} calls, longest {gateway.longest:.3f} s")


def test_take_overs_lose_no_call(gateway: ReloadingGateway) -> None:
    gateway.await_calls(CALLS)
    for _ in range(TAKE_OVERS):
        gateway.take_over()
        gateway.await_calls(CALLS, gateway.runner)
    assert gateway.lost == []
    assert len(gateway.answered_by) == TAKE_OVERS + 1
    print(f"{TAKE_OVERS} take-overs, {gateway.calls} calls, longest {gateway.longest:.3f} s")


def test_reloads_in_quick_succession_lose_no_call(gateway: ReloadingGateway) -> None:
    gateway.await_calls(100)
    for seconds in (0.1, 0.3, 0.6):
        gateway.reload()
        time.sleep(seconds)  # this is what is tested: at any time of the next runner's start
    gateway.reload()
    gateway.await_calls(100, gateway.runner)
    assert gateway.lost == []


def test_a_successor_that_does_not_come_up_costs_the_owner_nothing(gateway: ReloadingGateway, folder: Path) -> None:
    (folder / "fail").touch()
    owner = gateway.runner
    gateway.await_calls(10)
    assert gateway.start("failing:bridge").wait() != 0
    for sig in (signal.SIGKILL, signal.SIGTERM):
        successor = gateway.start("endless:bridge")
        importing(successor)
        successor.process.send_signal(sig)
        assert successor.wait() != 0
    owner.logged("This runner goes on")
    gateway.await_calls(100)
    assert gateway.lost == []
    assert {*gateway.answered_by} == {owner.pid}
    gateway.take_over()
    gateway.await_calls(100, gateway.runner)
    assert gateway.lost == []


def test_a_successor_that_fails_after_a_dying_owner_has_handed_over_says_so_and_removes_the_path(
    gateway: ReloadingGateway, path: str, folder: Path
) -> None:
    gateway.await_calls(10)
    old = gateway.reload("failing:bridge")
    assert old.wait() == -signal.SIGTERM
    assert gateway.lost == []  # the calls wait in the successor
    (folder / "fail").touch()
    assert gateway.runner.wait() == 2
    assert gateway.runner.log.splitlines()[-1].startswith("asgi-bridge: cannot import 'failing:bridge'")
    assert not os.path.exists(path)


# one owner and one successor, in detail


def test_a_busy_connection_goes_over_right_behind_its_answer(start: Start) -> None:
    owner = start()
    with owner.connect() as busy, owner.connect() as idle:
        token = idle.token("pid")
        busy.begin(busy.token("sleeping", 3))
        successor = start()
        until(lambda: body_of(idle.call(token)) == b"%d" % successor.pid)
        assert owner.process.poll() is None
        assert body_of(busy.receive()) == b"slept"
        assert body_of(busy.call(token)) == b"%d" % successor.pid
        assert owner.wait() == 0


def test_an_unfinished_frame_goes_along(start: Start) -> None:
    owner = start()
    with owner.connect() as connection, owner.connect() as other:
        token = other.token("pid")
        data = connection.session.send(request(token))
        connection.sock.sendall(data[:10])
        successor = start()
        assert owner.wait() == 0
        connection.sock.sendall(data[10:])
        assert body_of(connection.receive()) == b"%d" % successor.pid


def test_the_mode_is_the_successors(start: Start, path: str) -> None:
    owner = start()
    owner.connect().close()
    inode = os.stat(path).st_ino
    start("--uds-permissions", "600")
    assert owner.wait() == 0
    found = os.stat(path)
    assert (found.st_ino, stat.S_IMODE(found.st_mode)) == (inode, 0o600)


@pytest.mark.parametrize("receives", [False, True])
def test_a_successor_that_dies_with_what_it_was_sent_costs_the_owner_nothing(
    start: Start, path: str, receives: bool
) -> None:
    owner = start()
    with owner.connect() as idle, owner.connect() as busy:
        token = idle.token("pid")
        busy.begin(busy.token("sleeping", 1))
        folder = open_private(f"{path}.d")
        assert folder is not None
        successor = connect(folder)
        os.close(folder)
        assert successor is not None
        successor.send(HELLO, VERSION)
        successor.send(READY)
        owner.logged("The successor takes over")
        if receives:
            until(lambda: os.stat(path))
            packet = None
            while packet is None:
                packet = successor.receive()
            assert (packet.kind, len(packet.handed)) == (LISTENER, 1)
            os.close(packet.handed[0].descriptor)
        successor.close()
        assert body_of(busy.receive()) == b"slept"
        for connection in (idle, busy):
            assert body_of(connection.call(token)) == b"%d" % owner.pid
        with Connection(path) as fresh:
            assert body_of(fresh.call(token)) == b"%d" % owner.pid
        # and the next one takes over as if nothing had been
        successor_process = start()
        assert owner.wait() == 0
        assert body_of(idle.call(token)) == b"%d" % successor_process.pid


@pytest.mark.parametrize("what", ["removed", "renamed", "replaced by a socket", "replaced by a file"])
def test_an_owner_whose_path_somebody_takes_binds_it_anew(start: Start, path: str, folder: Path, what: str) -> None:
    owner = start()
    with owner.connect() as old:
        token = old.token("pid")
        if what == "renamed":
            os.rename(path, f"{path}.moved")
        elif what == "removed":
            os.unlink(path)
        else:
            other = f"{folder}/other"
            if what == "replaced by a file":
                Path(other).touch()
            with socket.socket(socket.AF_UNIX) as sock:
                if what == "replaced by a socket":
                    sock.bind(other)
                    sock.listen()
                os.rename(other, path)
                if what == "replaced by a file":
                    owner.logged("cannot be bound anew")
                    os.unlink(path)
                else:
                    owner.logged("It is bound anew")
        owner.logged("It is bound anew")
        with Connection(path) as fresh:
            assert body_of(fresh.call(token)) == b"%d" % owner.pid
        assert body_of(old.call(token)) == b"%d" % owner.pid
        # a successor gets the new one
        successor = start()
        assert owner.wait() == 0
        assert body_of(old.call(token)) == b"%d" % successor.pid


def test_an_owner_that_cannot_hand_over_is_replaced(start: Start, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        runner = start()
        runner.line_with("Runner listens on")
        with Connection(path) as connection:
            assert body_of(connection.call(connection.token("pid"))) == b"%d" % runner.pid


IMPATIENT = """
import asgi_bridge.server.succession as s
s.OWNER_SECONDS = 0.2
from asgi_bridge.cli import main
main()
"""


def test_an_owner_that_hangs_is_replaced_and_hands_over_when_it_goes_on(start: Start, path: str, folder: Path) -> None:
    owner = start()
    with owner.connect() as old:
        token = old.token("pid")
        owner.process.send_signal(signal.SIGSTOP)
        with Connection(path) as waiting:
            waiting.begin(token)
            command = [sys.executable, "-c", IMPATIENT, "run", "sample:bridge", "--app-dir", str(HERE), "--uds", path]
            successor = start(command=command)
            successor.line_with("does not hand over")
            with Connection(path) as fresh:
                assert body_of(fresh.call(token)) == b"%d" % successor.pid
            owner.process.send_signal(signal.SIGCONT)
            assert body_of(waiting.receive()) in (b"%d" % successor.pid, b"%d" % owner.pid)
            assert body_of(old.call(token)) == b"%d" % successor.pid
        assert owner.wait() == 0
        with Connection(path) as fresh:
            assert body_of(fresh.call(token)) == b"%d" % successor.pid
    successor.stop()
    assert os.listdir(folder) == ["r.sock.d"]


def test_a_runner_with_reload_takes_over_too(start: Start, path: str) -> None:
    owner = start()
    with owner.connect() as connection:
        connection.token("pid")
    successor = start("--reload")
    assert owner.wait() == 0
    successor.line_with("Runner listens on")
    with Connection(path) as connection:
        pid = int(body_of(connection.call(connection.token("pid"))))
    assert os.getpgid(pid) == successor.pid
    successor.stop()
    assert not os.path.exists(path)


# SIGTERM without a successor


def test_a_runner_that_apisix_stops_answers_and_removes_its_path(start: Start, path: str) -> None:
    runner = start(watchdog=60.0, env={**os.environ, "APISIX_LISTEN_ADDRESS": f"unix:{path}"})
    with runner.connect() as connection, runner.connect() as other:
        token = other.token("pid")
        connection.begin(connection.token("sleeping", 0.1))
        other.call(token)
        runner.process.send_signal(signal.SIGTERM)
        assert body_of(connection.receive()) == b"slept"
        assert runner.wait() == -signal.SIGTERM
        assert other.receive() is None
    assert not os.path.exists(path)
    assert "control" not in os.listdir(f"{path}.d")
