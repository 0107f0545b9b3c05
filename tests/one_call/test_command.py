"""``asgi-bridge call`` as a command."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.cli import main
from asgi_bridge.one_call import Outcome, Request

from ..doubles.runner_process import BIN
from ..doubles.runner_thread import ThreadRunner
from .gate import bridge

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process. Returns its exit code, stdout and stderr."""
    monkeypatch.setattr("sys.path", [*sys.path])

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["asgi-bridge", "call", *arguments])
        code = 0
        try:
            main()
        except SystemExit as exc:
            code = int(exc.code or 0)
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Collect what would be called."""
    called: list[tuple[Any, ...]] = []

    def call(*arguments: Any) -> Outcome:
        called.append(arguments)
        return Outcome()

    monkeypatch.setattr("asgi_bridge.one_call.call_in_process", call)
    monkeypatch.setattr("asgi_bridge.one_call.call_over_socket", call)
    return called


@pytest.fixture(scope="module")
def runner() -> Iterator[ThreadRunner]:
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as folder:
        runner = ThreadRunner(f"{folder}/r.sock", "asyncio", bridge)
        yield runner
        runner.stop()


def test_all_options(command: Command, requests: list[tuple[Any, ...]], tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\xff")
    code, _, err = command(
        "a", "--conf", "1", "b", "--uds", "unix:/run/r.sock", "--phase", "response", "--method", "PUT",
        "--path", "/x?y=1",
        "--header", "A: b", "--header", "c:d", "--body", f"@{tmp_path}/body", "--var", "v=1=2", "--var", "w=",
        "--status", "404", "--response-header", "e: f", "--response-body", "gone", "--timeout", "3",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert requests == [
        (
            Request(
                [("a", "1"), ("b", "{}")], "response", "PUT", "/x", "y=1", (("A", "b"), ("c", "d")), b"\xff", 404,
                (("e", "f"),), b"gone", {"v": "1=2", "w": ""},
            ),
            "/run/r.sock",
            3.0,
        )
    ]  # fmt: skip


def test_the_plugins_come_from_the_target(command: Command, requests: list[tuple[Any, ...]]) -> None:
    assert command("cors", "--target", "tests.one_call.gate:bridge", "--path", "/a?b=1", "--query", "c=1")[0] == 0
    ((request, plugins),) = requests
    assert request == Request([("cors", "{}")], path="/a", query="c=1")
    assert plugins.keys() == bridge.plugins.keys()


def test_the_exit_code_says_whether_the_call_was_answered(command: Command) -> None:
    target = "--target", "tests.one_call.gate:bridge"
    code, out, err = command("api-key", "--conf", '{"key": "x"}', *target)
    assert (code, out.splitlines()[-3].split("  ")[0], err) == (0, "→ stop 401", "")
    code, out, _ = command("silent", *target, "--json")
    assert (code, json.loads(out)["error"]) == (1, "it ended without a complete response")
    assert command("nope", *target)[0] == 2


def test_a_running_runner(runner: ThreadRunner) -> None:
    done = subprocess.run(
        [BIN, "call", "asking", "--var", "consumer_name=jane", "--uds", runner.path, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)["answer"]
    assert (answer["status"], answer["body"].split()[0], done.stderr) == (200, "b'jane'", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "asgi-bridge call: name a plugin; asgi-bridge call --help says more"),
        (
            ["a", "--conf", "1", "--conf", "2"],
            "asgi-bridge call: --conf is given 2 times, and there are 1 plugins; asgi-bridge call --help says more",
        ),
        (
            ["a", "--header", "x"],
            "asgi-bridge call: Invalid value for '--header': 'x' is not of the form NAME:VALUE; "
            "asgi-bridge call --help says more",
        ),
        (
            ["a", "--var", "x"],
            "asgi-bridge call: Invalid value for '--var': 'x' is not of the form NAME=VALUE; "
            "asgi-bridge call --help says more",
        ),
        (
            ["a", "--uds", "/r", "--target", "x:y"],
            "asgi-bridge call: with --uds the runner has its plugins already: leave --target and --mount "
            "out; asgi-bridge call --help says more",
        ),
        (
            ["a", "--body", "@/nowhere", "--uds", "/r"],
            "asgi-bridge: /nowhere cannot be read: No such file or directory",
        ),
    ],
)
def test_what_cannot_be_called(command: Command, arguments: list[str], message: str) -> None:
    code, _, err = command(*arguments)
    assert (code, err.splitlines()[-1]) == (2, message)
