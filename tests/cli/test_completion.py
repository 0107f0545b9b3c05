"""``asgi-bridge completion``: the scripts are good ones, and the shells get the right answers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent

BASH = """
set -u
source "$1"
complete -p asgi-bridge
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMPREPLY=()
_asgi_bridge_completion asgi-bridge
printf '%s\\n' "${COMPREPLY[@]}"
"""
"""Completes the last of the words that it gets after the path of the script."""


def run(*command: str, **variables: str) -> str:
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **variables}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def script_of(shell: str, folder: Path) -> str:
    path = folder / f"asgi-bridge.{shell}"
    path.write_text(run("asgi-bridge", "completion", shell))
    return str(path)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_read_its_script(tmp_path: Path, shell: str) -> None:
    script = script_of(shell, tmp_path)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert run(shell, "-n", script) == ""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["pl"], ["plugins"]),
        (["com"], ["compat", "completion"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["run", "gate:bridge", "--forwarded-headers", ""], ["trust", "ask"]),
        (["run", "gate:bridge", "--limit-con"], ["--limit-concurrency", "--limit-configuration-size"]),
    ],
)
def test_bash_completes_commands_options_and_values(tmp_path: Path, words: list[str], completed: list[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    printed = run(bash, "-c", BASH, "bash", script_of("bash", tmp_path), "asgi-bridge", *words).splitlines()
    assert printed == ["complete -o nosort -F _asgi_bridge_completion asgi-bridge", *completed]


def test_fish_completes_and_tells_what_a_command_is_for(tmp_path: Path) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not installed")
    code = f"source {script_of('fish', tmp_path)}; complete -C 'asgi-bridge com'"
    printed = run(fish, "--no-config", "-c", code, HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path))
    completed = [line.partition("\t")[::2] for line in printed.splitlines()]
    assert [word for word, _ in completed] == ["compat", "completion"]
    assert all(meaning for _, meaning in completed)


@pytest.mark.parametrize("command", ["run", "dev", "plugins", "compat"])
def test_a_target_may_be_a_file(command: str) -> None:
    asked = {"COMP_WORDS": f"asgi-bridge {command} ga", "COMP_CWORD": "2", "_ASGI_BRIDGE_COMPLETE": "bash_complete"}
    assert run("asgi-bridge", **asked) == "file,ga\n"


def test_another_shell_is_an_error() -> None:
    done = subprocess.run([str(BIN / "asgi-bridge"), "completion", "csh"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in done.stderr
