"""The generated commands start a runner: the real program, on the socket that the other files name."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_bridge.generate.runner import Deployed
from asgi_bridge.loading import Source
from asgi_bridge.wire import HTTPReqCallResp, Stop
from tests.doubles.runner_process import RunnerProcess

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
    deployed = Deployed(Source("gate:bridge"), str(home), path if is_sidecar else None, private=is_sidecar)
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
