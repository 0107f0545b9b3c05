"""How a runner ends: APISIX sends SIGTERM, and SIGKILL one second later."""

import fcntl
import os
import signal
import time
from collections.abc import Callable

import pytest

from .client import UNAVAILABLE, Connection, body_of, until
from .processes import Runner, two_of_three

BOUND = 0.8
"""Seconds from the signal to the end of the process, as the project promises."""

Start = Callable[..., Runner]


def busy(runner: Runner, *calls: tuple[str, float]) -> list[Connection]:
    """Connections, each with one call that runs."""
    connections = []
    for plugin, seconds in calls:
        connection = runner.connect()
        connection.begin(connection.token(plugin, seconds))
        connections.append(connection)
    return connections


def settle(runner: Runner) -> None:
    """Waits until the runner has read everything."""
    with runner.connect() as connection:
        connection.token("hello")


def stop(runner: Runner, sig: int) -> float:
    seconds = runner.stop(sig)
    assert runner.path is not None and not os.path.exists(runner.path)
    assert not runner.left()
    return seconds


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_idle_connections_and_long_calls(start: Start, sig: int) -> None:
    def trial() -> float:
        runner = start()
        idle = [runner.connect() for _ in range(32)]
        calls = busy(runner, ("sleeping", 5), ("asyncio_thread", 5), ("anyio_thread", 5), ("stubborn", 5))
        settle(runner)
        seconds = stop(runner, sig)
        assert [call.receive() for call in calls] == [UNAVAILABLE] * 4
        assert [connection.receive() for connection in idle] == [None] * 32
        assert "Traceback" not in runner.log
        for connection in idle + calls:
            connection.close()
        return seconds

    two_of_three(trial, BOUND)


def test_an_idle_runner_ends_soon_and_cleanly(start: Start) -> None:
    def trial() -> float:
        runner = start()
        settle(runner)
        seconds = stop(runner, signal.SIGINT)
        assert runner.process.returncode == 0
        assert "Traceback" not in runner.log and "Not stopped in time" not in runner.log
        return seconds

    two_of_three(trial, 0.7)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_call_that_blocks_the_event_loop(start: Start, sig: int) -> None:
    def trial() -> float:
        runner = start()
        calls = busy(runner, ("sleeping", 5))
        settle(runner)
        blocking = busy(runner, ("blocking", 5))
        # it is blocked once nobody answers
        time.sleep(0.2)
        seconds = stop(runner, sig)
        assert [connection.receive() for connection in calls + blocking] == [None, None]
        runner.logged("Not stopped in time")
        assert runner.process.returncode == 128 + sig
        for connection in calls + blocking:
            connection.close()
        return seconds

    two_of_three(trial, BOUND)


def test_a_call_that_needs_a_little_is_answered(start: Start) -> None:
    def trial() -> float:
        runner = start()
        (call,) = busy(runner, ("sleeping", 0.1))
        seconds = stop(runner, signal.SIGTERM)
        assert body_of(call.receive()) == b"slept"
        assert call.receive() is None
        call.close()
        return seconds

    two_of_three(trial, BOUND)


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
    def trial() -> float:
        runner = start(target="sample:hanging")
        settle(runner)
        seconds = stop(runner, signal.SIGTERM)
        runner.logged("plugin hang: its lifespan shutdown took more than")
        return seconds

    two_of_three(trial, BOUND)


def test_a_stop_while_modules_are_imported(start: Start, folder: object) -> None:
    def trial() -> float:
        with open(f"{folder}/slow.py", "w") as file:
            file.write("print('importing', flush=True)\nimport time\ntime.sleep(60)\n")
        runner = start(target="slow:bridge", app_dir=str(folder))
        assert runner.process.stdout is not None
        assert runner.process.stdout.readline() == b"importing\n"
        return stop(runner, signal.SIGTERM)

    two_of_three(trial, BOUND)


def test_a_log_that_nobody_reads_does_not_keep_it_alive(start: Start, folder: object) -> None:
    """The event loop is blocked in writing the log, and holds its lock."""

    def trial() -> float:
        fifo = f"{folder}/{time.monotonic_ns()}"
        os.mkfifo(fifo)
        end = os.open(fifo, os.O_RDWR)
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
        try:
            runner = start("--access-log", stderr=end)
            connection = runner.connect()
            token = connection.token("raising")
            until(lambda: unanswered(connection, token))
            seconds = stop(runner, signal.SIGTERM)
            connection.close()
            return seconds
        finally:
            os.close(end)

    two_of_three(trial, BOUND + 0.1)


def unanswered(connection: Connection, token: int) -> bool:
    """Calls once more; whether no answer comes."""
    connection.sock.settimeout(1)
    try:
        assert connection.call(token) == UNAVAILABLE
    except TimeoutError:
        return True
    return False
