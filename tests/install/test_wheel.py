"""The wheels, and an installation from source, where there is no C compiler."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .test_install import ROOT, SECONDS
from .test_install import test_the_runner_answers_without_extras as the_runner_answers

pytestmark = pytest.mark.install


@pytest.fixture(autouse=True)
def any_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner may be pure Python here, whatever the other tests demand."""
    monkeypatch.delenv("ASGI_BRIDGE_COMPILED", raising=False)


GATE = """
from asgi_bridge import Bridge
from starlette.responses import PlainTextResponse

bridge = Bridge()
bridge.mount("hello", PlainTextResponse("hello"))
"""


def run(*command: str, folder: Path, **variables: str) -> str:
    """Run a command. Returns its output."""
    dropped = ("VIRTUAL_ENV", "PYTHONPATH", "ASGI_BRIDGE_COMPILED")
    environment = {**{name: value for name, value in os.environ.items() if name not in dropped}, **variables}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_wheel(folder: Path, **variables: str) -> Path:
    """Build a wheel as ``make wheel`` does."""
    run("make", "wheel", f"PYTHON={sys.executable}", f"DIST={folder}", folder=ROOT, **variables)
    (wheel,) = folder.glob("*.whl")
    return wheel


def installed(what: Path, folder: Path) -> str:
    """Install into a new environment, with a compiler that always fails. Returns what the command says of itself."""
    run(sys.executable, "-m", "venv", ".venv", folder=folder)
    run(".venv/bin/python", "-m", "pip", "install", "--quiet", str(what), folder=folder, CC="false")
    (folder / "gate.py").write_text(GATE)
    return run(".venv/bin/asgi-bridge", "--version", folder=folder).rstrip()


def test_a_wheel_brings_the_compiled_core(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    assert re.fullmatch(r"asgi_bridge-[0-9.]+-(cp3\d+)-\1-linux_\w+\.whl", wheel.name)
    assert re.fullmatch(r"asgi-bridge, version [0-9.]+, core: compiled", installed(wheel, tmp_path))
    run(".venv/bin/python", "-c", "import asgi_bridge.adapter", folder=tmp_path, ASGI_BRIDGE_COMPILED="1")
    the_runner_answers(tmp_path)


def test_the_pure_wheel_is_for_every_platform(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, ASGI_BRIDGE_PURE="1")
    assert re.fullmatch(r"asgi_bridge-[0-9.]+-py3-none-any\.whl", wheel.name)
    said = installed(wheel, tmp_path)
    assert ", core: pure Python: asgi_bridge.wire._decode is not built; " in said
    the_runner_answers(tmp_path)


def test_without_a_compiler_the_source_becomes_pure_python(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", str(ROOT), str(clone), folder=tmp_path)
    assert ", core: pure Python: asgi_bridge.wire._decode is not built; " in installed(clone, tmp_path)
    the_runner_answers(tmp_path)
