"""A runner as APISIX starts it: an almost empty environment, another working directory, umask 0, an empty stdin."""

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ..doubles.connection import Connection, body_of
from ..doubles.runner_process import BIN, RunnerProcess
from ..doubles.waiting import SECONDS, until
from . import HERE


@pytest.mark.parametrize("prefix", ["unix:", ""])
@pytest.mark.parametrize("umask", [0, 0o077])
def test_as_apisix_starts_it(
    start: Callable[..., RunnerProcess], folder: Path, path: str, umask: int, prefix: str
) -> None:
    env = {"PATH": os.environ["PATH"], "APISIX_LISTEN_ADDRESS": prefix + path, "APISIX_CONF_EXPIRE_TIME": "3600"}
    runner = start(path=None, env=env, cwd=folder, umask=umask)
    with Connection(path, patient=True) as connection:
        assert body_of(connection.call(connection.token("hello"))) == b"hello"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
    runner.stop()
    assert os.listdir(folder) == ["r.sock.d"]


def test_permissions_that_were_asked_for(start: Callable[..., RunnerProcess], path: str) -> None:
    start("--uds-permissions", "620", umask=0o077).connect().close()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o620


def test_stdin_may_be_a_pipe_that_ends(path: str) -> None:
    process = subprocess.Popen(
        [BIN, "run", "sample:bridge", "--app-dir", str(HERE), "--uds", path],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdin is not None
        process.stdin.close()
        with Connection(path, patient=True) as connection:
            assert body_of(connection.call(connection.token("hello"))) == b"hello"
    finally:
        process.terminate()
        process.wait(SECONDS)


@pytest.mark.parametrize("closed", [">&- 2>&-", "<&- >&- 2>&-", "<&-", "2>&-", "<&- 2>&-"])
def test_stdin_stdout_and_stderr_may_be_closed(path: str, closed: str) -> None:
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {closed}', "sh", BIN, "run", "sample:bridge", "--app-dir", str(HERE), "--uds", path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: os.path.exists(path) or process.poll() is not None)
        assert process.poll() is None
        with Connection(path, patient=True) as connection:
            assert body_of(connection.call(connection.token("hello"))) == b"hello"
        numbers = {number: os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)}
        assert all(name == "/dev/null" for name in numbers.values()), numbers
    finally:
        process.terminate()
        process.wait(SECONDS)


def test_the_command_line_beats_the_environment(start: Callable[..., RunnerProcess], folder: Path, path: str) -> None:
    runner = start(env={**os.environ, "APISIX_LISTEN_ADDRESS": f"unix:{folder}/other.sock"})
    runner.logged("Runner listens")
    assert sorted(os.listdir(folder)) == ["r.sock", "r.sock.d"]


def test_an_address_relative_to_the_working_directory(
    start: Callable[..., RunnerProcess], folder: Path, path: str
) -> None:
    start(path="r.sock", cwd=folder)
    Connection(path, patient=True).close()
