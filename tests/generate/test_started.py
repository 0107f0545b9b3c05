"""The generated commands start a runner: the real program, on the socket that the other files name."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_bridge.generate.runner import Deployed
from asgi_bridge.generate.systemd import systemd_unit
from asgi_bridge.loading import Source
from asgi_bridge.wire import HTTPReqCallResp, Stop
from tests.doubles.runner_process import RunnerProcess
from tests.doubles.waiting import until

GATE = """
from asgi_bridge import Bridge
from starlette.responses import PlainTextResponse

bridge = Bridge()
bridge.mount("hello", PlainTextResponse("from the gate"))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of deployed code, with a virtual environment."""
    home = tmp_path / "gate"
    home.mkdir()
    (home / "gate.py").write_text(GATE)
    (home / ".venv").symlink_to(sys.prefix)
    return home


@pytest.fixture
def started(request: pytest.FixtureRequest, tmp_path: Path, home: Path) -> Iterator[RunnerProcess]:
    path = str(tmp_path / "runner.sock")
    is_sidecar = request.param == "sidecar"
    deployed = Deployed(Source("gate:bridge"), str(home), path if is_sidecar else None, private=is_sidecar, workers="2")
    env = {"PATH": os.environ["PATH"]} | ({} if is_sidecar else {"APISIX_LISTEN_ADDRESS": f"unix:{path}"})
    # APISIX starts it in a folder of its own
    process = RunnerProcess(path, command=deployed.command, env=env, cwd="/")
    try:
        yield process
    finally:
        process.end()


@pytest.mark.parametrize(("started", "mode"), [("sidecar", 0o600), ("spawned", 0o666)], indirect=["started"])
def test_the_command_starts_a_runner(started: RunnerProcess, mode: int) -> None:
    with started.connect() as gateway:
        answer = gateway.call(gateway.token("hello"))
    assert isinstance(answer, HTTPReqCallResp) and isinstance(answer.action, Stop)
    assert answer.action.body == b"from the gate"
    assert os.stat(started.path).st_mode & 0o777 == mode
    for _ in range(2):
        started.line_with("takes calls")


def test_the_reload_of_the_unit_takes_new_code(tmp_path: Path, home: Path) -> None:
    path = str(tmp_path / "runner.sock")
    unit = systemd_unit("gate", Deployed(Source("gate:bridge"), str(home), path, workers="1")).replace("\\\n", "")
    lines = dict(line.split("=", 1) for line in unit.splitlines() if line.startswith("Exec"))
    runner = RunnerProcess(path, command=shlex.split(lines["ExecStart"]), env={"PATH": os.environ["PATH"]}, cwd="/")
    try:
        runner.line_with("takes calls")
        first = runner.worker
        (home / "gate.py").write_text(GATE.replace("the gate", "code that is new"))
        words = lines["ExecReload"].replace("$MAINPID", str(runner.pid))
        assert os.spawnv(os.P_WAIT, "/bin/kill", words.split()) == 0
        until(lambda: len(found := runner.workers) == 1 and found != [first])
        with runner.connect() as gateway:
            answer = gateway.call(gateway.token("hello"))
        runner.stop(signal.SIGTERM)
    finally:
        runner.end()
    assert isinstance(answer, HTTPReqCallResp) and isinstance(answer.action, Stop)
    assert answer.action.body == b"from code that is new"
