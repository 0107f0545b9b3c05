"""How a runner ends: APISIX sends SIGTERM, and SIGKILL one second later.

The plugins here would run for minutes, so a process that ends was ended by the runner. No test measures how long that
takes, because a busy machine may take any time.
"""

import fcntl
import os
import signal
from collections.abc import Callable

import pytest

from asgi_bridge.plugins.build import SHUTDOWN_SECONDS
from asgi_bridge.server import process

from ..doubles.connection import UNAVAILABLE, Connection, body_of
from ..doubles.runner_process import RunnerProcess
from ..doubles.waiting import until

MINUTES = 600
PATIENT = 60.0
"""Seconds of a watchdog that is late enough for processes that end by themselves."""

Start = Callable[..., RunnerProcess]


def busy(runner: RunnerProcess, *calls: tuple[str, float]) -> list[Connection]:
    """Open connections, each with one running call."""
    connections = []
    for plugin, seconds in calls:
        connection = runner.connect()
        connection.begin(connection.token(plugin, seconds))
        connections.append(connection)
    return connections


def settle(runner: RunnerProcess) -> None:
    """Wait until the runner has read everything."""
    with runner.connect() as connection:
        connection.token("hello")


def stop(runner: RunnerProcess, sig: int) -> None:
    runner.stop(sig)
    assert not os.path.exists(runner.path)
    assert not runner.left()


def test_the_end_comes_within_four_fifths_of_the_second_that_the_gateway_leaves() -> None:
    assert process.GRACEFUL_SECONDS + process.WATCHDOG_SECONDS + process.LAST_WORDS_SECONDS < 0.8
    assert SHUTDOWN_SECONDS < process.WATCHDOG_SECONDS


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_idle_connections_and_long_calls(start: Start, sig: int) -> None:
    runner = start(watchdog=3.0)  # the watchdog, because the interpreter waits for threads
    idle = [runner.connect() for _ in range(32)]
    plugins = ("sleeping", "asyncio_thread", "anyio_thread", "stubborn")
    calls = busy(runner, *((plugin, MINUTES) for plugin in plugins))
    settle(runner)
    stop(runner, sig)
    assert [call.receive() for call in calls] == [UNAVAILABLE] * 4
    assert [connection.receive() for connection in idle] == [None] * 32
    assert "Traceback" not in runner.log
    for connection in idle + calls:
        connection.close()


def test_an_idle_runner_ends_cleanly(start: Start) -> None:
    runner = start(watchdog=PATIENT)
    settle(runner)
    stop(runner, signal.SIGINT)
    assert runner.process.returncode == 0
    assert "Traceback" not in runner.log and "Not stopped in time" not in runner.log


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_call_that_blocks_the_event_loop(start: Start, sig: int) -> None:
    runner = start()
    calls = busy(runner, ("sleeping", MINUTES))
    settle(runner)
    blocking = busy(runner, ("blocking", MINUTES))
    runner.logged("the event loop is blocked now")
    stop(runner, sig)
    assert [connection.receive() for connection in calls + blocking] == [None, None]
    runner.logged("Not stopped in time")
    assert runner.process.returncode == 128 + sig
    for connection in calls + blocking:
        connection.close()


def test_a_call_that_needs_a_little_is_answered(start: Start) -> None:
    runner = start("--timeout-graceful-shutdown", "60")
    (call,) = busy(runner, ("sleeping", 0.1))
    stop(runner, signal.SIGTERM)
    assert body_of(call.receive()) == b"slept"
    assert call.receive() is None
    call.close()


def test_a_longer_grace_is_kept(start: Start) -> None:
    runner = start("--timeout-graceful-shutdown", "30")
    (call,) = busy(runner, ("sleeping", 1.2))
    settle(runner)
    stop(runner, signal.SIGTERM)
    assert body_of(call.receive()) == b"slept"
    call.close()


def test_a_second_sigint_does_not_wait_for_calls(start: Start) -> None:
    runner = start("--timeout-graceful-shutdown", "60")
    (call,) = busy(runner, ("sleeping", 120))
    settle(runner)
    runner.process.send_signal(signal.SIGINT)
    runner.logged("Waiting for connections to close")
    stop(runner, signal.SIGINT)
    assert call.receive() == UNAVAILABLE
    assert runner.process.returncode == 0
    call.close()


def test_a_lifespan_shutdown_that_hangs(start: Start) -> None:
    runner = start(target="sample:hanging", watchdog=PATIENT)
    settle(runner)
    stop(runner, signal.SIGTERM)
    runner.logged("plugin hang: its lifespan shutdown took more than")
    assert "Not stopped in time" not in runner.log


def test_a_stop_while_modules_are_imported(start: Start, folder: object) -> None:
    with open(f"{folder}/slow.py", "w") as file:
        file.write(f"print('importing', flush=True)\nimport time\ntime.sleep({MINUTES})\n")
    runner = start(target="slow:bridge", app_dir=str(folder))
    assert runner.process.stdout is not None
    assert runner.process.stdout.readline() == b"importing\n"
    stop(runner, signal.SIGTERM)


def test_a_log_that_nobody_reads_does_not_keep_it_alive(start: Start, folder: object) -> None:
    """The event loop blocks in writing the log, and holds the lock of the log."""
    fifo = f"{folder}/log"
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    try:
        runner = start("--access-log", stderr=end)
        connection = runner.connect()
        token = connection.token("raising")
        until(lambda: unanswered(connection, token))
        stop(runner, signal.SIGTERM)
        connection.close()
    finally:
        os.close(end)


def unanswered(connection: Connection, token: int) -> bool:
    """Call once more, and return whether no answer comes."""
    connection.sock.settimeout(1)
    try:
        assert connection.call(token) == UNAVAILABLE
    except TimeoutError:
        return True
    return False
