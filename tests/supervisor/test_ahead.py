"""The first worker, which begins before its supervisor does anything else."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.supervisor import ahead as ahead_module
from asgi_bridge.supervisor import handle as handle_module
from asgi_bridge.supervisor.ahead import Ahead, start_ahead, take_ahead
from asgi_bridge.supervisor.channel import Word

from ..doubles.connection import body_of
from ..doubles.runner_process import BIN, RunnerProcess
from ..doubles.untraced import untraced
from ..doubles.waiting import until
from .test_crew import Stage, stage

__all__ = ["stage"]

Start = Callable[..., RunnerProcess]

PLUGIN = """
import gc, json, os, re, resource, signal, sys, threading
from asgi_bridge import Bridge

def files():
    for number in os.listdir("/proc/self/fd"):
        try:
            yield re.sub(r"\\d+", "N", os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            pass

async def state(scope, receive, send):
    found = {
        "arguments": sys.argv,
        "path": sys.path,
        "main": [vars(sys.modules["__main__"]).get(name) for name in ("__file__", "__spec__")],
        "files": sorted(files()),
        "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
        "signals": [repr(signal.getsignal(number)).split(" at ")[0] for number in (1, 2, 10, 13, 14, 15, 17)],
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "threads": sorted(each.name for each in threading.enumerate()),
        "garbage": [gc.isenabled(), gc.get_threshold()],
        "warnings": sys.warnoptions,
    }
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(found).encode()})

bridge = Bridge()
bridge.mount("state", state)
"""


def command_of(pid: int) -> list[str]:
    """The command line of a process, without the interpreter."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[1:-1]


def is_ahead(runner: RunnerProcess) -> bool:
    """Whether the only worker is a copy of its supervisor. Others have a command line of their own."""
    return command_of(runner.worker) == command_of(runner.pid)


@pytest.mark.parametrize("command", [[BIN], [sys.executable, "-m", "asgi_bridge"], [sys.executable, "-P", BIN]])
def test_the_first_worker_is_what_every_later_one_is(start: Start, path: str, folder: Path, command: list[str]) -> None:
    (folder / "same.py").write_text(PLUGIN)
    arguments = ["run", "same:bridge", "--app-dir", str(folder), "--uds", path]
    states = []
    runner = start(command=[*command, *arguments], cwd=folder, env=untraced())
    for ahead in (True, False):
        runner.line_with("takes calls")
        until(lambda: len(runner.workers) == 1)
        assert is_ahead(runner) == ahead
        connection = runner.connect()
        states.append(json.loads(body_of(connection.call(connection.token("state", {})))))
        connection.close()
        runner.process.send_signal(signal.SIGHUP)
    assert states[0] == states[1]
    assert str(folder) in states[0]["path"]


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["--env-file", "settings"], {}),
        (["--env-file=settings"], {}),
        ([], {"ASGI_BRIDGE_RUN_ENV_FILE": "settings"}),
    ],
)
def test_a_worker_begins_once_its_environment_is_known(
    start: Start, folder: Path, path: str, options: list[str], env: dict[str, str]
) -> None:
    (folder / "same.py").write_text(PLUGIN)
    (folder / "settings").write_text("PYTHONWARNINGS=ignore::ImportWarning\n")
    command = [BIN, "run", "same:bridge", "--uds", path, *options]
    runner = start(command=command, cwd=folder, env={**untraced(), **env})
    runner.line_with("takes calls")
    assert not is_ahead(runner)
    connection = runner.connect()
    state = json.loads(body_of(connection.call(connection.token("state", {}))))
    connection.close()
    assert "ignore::ImportWarning" in state["warnings"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--no-such-option"], 2),
        (["--workers", "none"], 2),
        (["--uds", "/nonexistent/folder/socket"], 2),
        (["--log-config", "/nonexistent"], 2),
    ],
)
def test_a_worker_that_is_told_nothing_ends(arguments: list[str], code: int) -> None:
    # who still has stderr open has not ended
    done = subprocess.run([BIN, "run", *arguments], stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr


def test_a_worker_whose_supervisor_is_killed_ends(start: Start, folder: Path, path: str) -> None:
    (folder / "same.py").write_text("import time; time.sleep(600)")
    runner = start("--app-dir", str(folder), target="same:bridge")
    until(lambda: runner.workers)
    runner.stop(signal.SIGKILL)
    until(lambda: not runner.left())


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """What is appended to at each fork. The fork fails."""
    forks: list[None] = []

    def fork() -> int:
        forks.append(None)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(ahead_module, "_is_new", lambda: True)
    return forks


def never(channel: socket.socket, supervisor: int) -> None:
    raise AssertionError("this process has not forked")


@pytest.mark.parametrize(
    ("arguments", "env", "forked"),
    [
        (["run"], {}, True),
        (["run", "gate:bridge", "--uds", "s", "--workers", "4"], {}, True),
        (["run", "gate:bridge", "--reload-dir", "x"], {}, True),
        (["run", "--reload"], {}, False),
        (["run"], {"ASGI_BRIDGE_RUN_RELOAD": "1"}, False),
        (["run", "--help"], {}, False),
        (["run", "-h"], {}, False),
        (["check", "run"], {}, False),
        (["--version"], {}, False),
        ([], {}, False),
    ],
)
def test_a_worker_begins_ahead_where_one_will_be_needed(
    arguments: list[str], env: dict[str, str], forked: bool, forks: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    before = sorted(os.listdir("/proc/self/fd"))
    start_ahead(arguments, never)
    assert (len(forks), take_ahead(), sorted(os.listdir("/proc/self/fd"))) == (forked, None, before)


def test_a_process_with_threads_does_not_fork(forks: list[None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("it forks"))
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        start_ahead(["run"], never)
    finally:
        end.set()
        thread.join()


def test_a_worker_that_has_ended_meanwhile_is_started_anew(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = stage()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    theirs.close()
    ahead: list[Any] = [Ahead(dead.pid, ours)]
    monkeypatch.setattr(handle_module, "take_ahead", lambda: ahead.pop() if ahead else None)
    worker = found.crew.start()
    dead.returncode = 0  # the crew has waited for it
    assert worker is not None
    found.until(found.pids)
    assert found.pids() == [worker.pid] != [dead.pid]
    assert ours.fileno() == -1 and worker.tell(Word.RETIRE)
