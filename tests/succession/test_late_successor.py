"""An owner that APISIX ends holds its sockets to its end, for a successor that is late."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..doubles.connection import Connection, body_of
from ..doubles.runner_process import RunnerProcess, serving_alone
from ..server import HERE

Start = Callable[..., RunnerProcess]

SOON_TIRED = """
import asgi_bridge.succession.times as times
times.SUCCESSOR_SECONDS, times.END_SECONDS = 0.0, 60.0
from asgi_bridge.__main__ import main
main()
"""


@pytest.fixture(params=[False, True], ids=["supervisor", "alone"])
def code(request: pytest.FixtureRequest) -> str:
    """A runner that waits for no successor before it ends, and then has a long time for its end."""
    return serving_alone(SOON_TIRED) if request.param else SOON_TIRED


def start_owner(start: Start, path: str, code: str) -> RunnerProcess:
    """Start such a runner."""
    command = [sys.executable, "-c", code, "run", "sample:bridge", "--app-dir", str(HERE)]
    return start(command=command, env={**os.environ, "APISIX_LISTEN_ADDRESS": f"unix:{path}"})


def test_connections_and_calls_wait_for_a_successor_that_is_late(start: Start, code: str, path: str) -> None:
    owner = start_owner(start, path, code)
    with owner.connect() as idle, owner.connect() as called:
        token = idle.token("pid")
        called.token("pid")
        owner.process.send_signal(signal.SIGTERM)
        owner.logged("Shutting down")
        called.begin(token)
        with Connection(path) as fresh:
            fresh.begin(token)
            successor = start()
            for connection in (called, fresh):
                assert body_of(connection.receive()) == b"%d" % successor.pid
            assert body_of(idle.call(token)) == b"%d" % successor.pid
    assert owner.wait() == -signal.SIGTERM
    with Connection(path) as fresh:
        assert body_of(fresh.call(token)) == b"%d" % successor.pid


def test_a_call_that_is_running_is_refused_and_its_connection_goes_to_the_late_successor(
    start: Start, code: str, path: str
) -> None:
    owner = start_owner(start, path, code)
    with owner.connect() as busy, owner.connect() as other:
        token = other.token("pid")
        busy.begin(busy.token("sleeping", 100))
        other.call(token)
        owner.process.send_signal(signal.SIGTERM)
        assert type(busy.receive()).__name__ == "ErrResp"
        busy.begin(token)
        successor = start()
        assert body_of(busy.receive()) == b"%d" % successor.pid
    assert owner.wait() == -signal.SIGTERM


def test_a_late_successor_that_fails_leaves_nothing(start: Start, code: str, path: str, folder: Path) -> None:
    owner = start_owner(start, path, code)
    with owner.connect() as connection:
        connection.token("pid")  # it serves
    owner.process.send_signal(signal.SIGTERM)
    owner.logged("Shutting down")
    assert start(target="no_such_module").wait() == 2
    assert owner.wait() == -signal.SIGTERM
    assert not os.path.exists(path)
