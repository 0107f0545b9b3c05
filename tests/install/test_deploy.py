"""The Dockerfile of examples/deploy, without Docker: its instructions work in a folder that stands for the image.

``make test-install`` runs it, with the other tests that fetch packages.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asgi_bridge.wire import HTTPReqCallResp, Stop
from tests.doubles.runner_process import RunnerProcess
from tests.generate.test_files import instructions

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
SECONDS = 900.0
"""What anything may take on a slow machine."""

pytestmark = pytest.mark.install


def run(command: str, folder: Path) -> None:
    # the wheel may be pure Python here, whatever the other tests demand
    environment = {name: value for name, value in os.environ.items() if name != "ASGI_BRIDGE_COMPILED"}
    done = subprocess.run(
        ["bash", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_instructions_install_and_start_the_runner(tmp_path: Path) -> None:
    image, context = tmp_path / "image", tmp_path / "try"
    context.mkdir()
    for name in ("gate.py", "requirements.txt", "compose/Dockerfile"):
        shutil.copy(DEPLOY / name, context)
    ((variables, command),) = re.findall(r"^\$ (.*)pip (wheel .*)$", (DEPLOY / "README.md").read_text(), re.MULTILINE)
    run(
        f"{variables}{sys.executable} -m pip {command.replace('try/', f'{context}/').replace('../..', str(ROOT))}",
        tmp_path,
    )

    def inside(text: str) -> str:
        return re.sub(r"(?<![\w.])/(opt|tmp|run)/", rf"{image}/\1/", text)

    (image / "tmp").mkdir(parents=True)
    (image / "run/gate").mkdir(parents=True)
    for line in instructions((context / "Dockerfile").read_text()):
        word, _, rest = line.partition(" ")
        if word == "COPY" and not rest.startswith("--from"):
            source, target = rest.split()
            run(f"cp -r {source} {inside(target)}", context)
            if source == "requirements.txt":
                text = (image / "tmp/requirements.txt").read_text()
                (image / "tmp/requirements.txt").write_text(text.replace("file:///", f"file://{image}/"))
        elif word == "RUN" and "useradd" not in rest:
            run(inside(rest).replace("python -m", f"{sys.executable} -m"), context)
        elif word == "CMD":
            started = json.loads(inside(rest))

    runner = RunnerProcess(str(image / "run/gate/runner.sock"), command=started, env={"PATH": "/usr/bin"}, cwd="/")
    try:
        with runner.connect() as gateway:
            answer = gateway.call(gateway.token("mark", {"x-gate": "1"}), path=b"/gate")
    finally:
        runner.end()
    assert isinstance(answer, HTTPReqCallResp) and isinstance(answer.action, Stop)
    assert json.loads(answer.action.body or b"") == {"status": "ok"}
    assert (b"x-gate", b"1") in (answer.action.headers or [])
