"""The probe of ``asgi-bridge health``: what it asks a runner, and what it says of each that does not answer."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_bridge.health import CALL, probe
from asgi_bridge.wire import ErrCode, ErrResp, HTTPReqCallReq, HTTPReqCallResp, PrepareConfResp, Role, decode, encode

from .doubles.runner_double import running
from .doubles.runner_process import BIN
from .doubles.runner_thread import ThreadRunner
from .doubles.waiting import SECONDS
from .server import sample

LOADED = """
import json, sys
sys.argv[1:] = {arguments}
from asgi_bridge.cli import main
try:
    main()
except SystemExit as exit:
    print(json.dumps([exit.code or 0, sorted(set(sys.modules) & {heavy})]))
"""
HEAVY = {
    "asgi_bridge.wire", "asgi_bridge.plugins", "asgi_bridge.server", "asyncio", "flatbuffers", "pydantic", "ssl",
    "starlette", "uvicorn", "yaml",
}  # fmt: skip


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as folder:
        yield f"{folder}/r.sock"


@pytest.fixture(scope="module")
def runner() -> Iterator[ThreadRunner]:
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as folder:
        runner = ThreadRunner(f"{folder}/r.sock", "asyncio", sample.bridge)
        yield runner
        runner.stop()


def test_the_frame_is_a_call_without_a_token() -> None:
    assert decode(CALL[0], CALL[4:], Role.RUNNER) == HTTPReqCallReq()
    assert (int.from_bytes(CALL[1:4]), HTTPReqCallReq().conf_token) == (len(CALL) - 4, 0)


def test_a_runner_that_answers_is_healthy(runner: ThreadRunner) -> None:
    assert [probe(runner.path, SECONDS) for _ in range(3)] == [None, None, None]


@pytest.mark.parametrize(
    "answer",
    [
        encode(ErrResp(ErrCode.CONF_TOKEN_NOT_FOUND)),
        encode(ErrResp(ErrCode.SERVICE_UNAVAILABLE)),
        encode(HTTPReqCallResp()),
    ],
)
def test_every_answer_of_a_call_is_one(path: str, answer: bytes) -> None:
    with running(path) as double:
        double.calls(lambda message, ask: answer)
        assert probe(path, SECONDS) is None
        assert double.got == [HTTPReqCallReq()]


@pytest.mark.parametrize("answer", [encode(PrepareConfResp(1)), b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_is_no_answer_of_a_call_is_no_runner(path: str, answer: bytes) -> None:
    with running(path) as double:
        double.calls(lambda message, ask: answer)
        assert probe(path, SECONDS) == "what listens there is no plugin runner"


def test_a_runner_that_hangs_up(path: str) -> None:
    with running(path) as double:
        double.calls(lambda message, ask: None)
        assert probe(path, SECONDS) == "the runner has closed the connection without an answer"


def test_a_runner_that_does_not_answer(path: str) -> None:
    with running(path) as double:
        asked = threading.Event()
        double.calls(lambda message, ask: asked.wait(SECONDS) and None)
        assert probe(path, 0.05) == "no answer within 0.05 s"
        asked.set()


def test_a_runner_that_accepts_nothing(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        assert probe(path, 0.05) in (
            "the runner accepts no connection within 0.05 s",
            "too many connections wait to be accepted",
        )


def test_a_path_without_a_socket(path: str) -> None:
    assert probe(path, SECONDS) == "cannot connect: no such file or directory; does a runner listen there?"
    Path(path).touch()
    assert probe(path, SECONDS) == "cannot connect: connection refused; does a runner listen there?"
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    assert probe(path, SECONDS) == "cannot connect: connection refused; does a runner listen there?"
    assert probe("/" + "x" * 200, SECONDS) == "cannot connect: af_unix path too long; does a runner listen there?"


def health(*arguments: str, **env: str) -> tuple[int, str]:
    done = subprocess.run(
        [BIN, "health", *arguments], capture_output=True, text=True, check=False, env={**os.environ, **env}
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_the_exit_code_says_it(runner: ThreadRunner, path: str) -> None:
    assert health("--uds", runner.path, "--timeout", "60") == (0, "")
    assert health("--timeout", "60", APISIX_LISTEN_ADDRESS=f"unix:{runner.path}") == (0, "")
    assert health("--uds", path) == (
        1,
        f"asgi-bridge: {path}: cannot connect: no such file or directory; does a runner listen there?\n",
    )
    code, text = health()
    assert (code, text.splitlines()[-1]) == (
        2,
        "asgi-bridge health: no socket: give --uds PATH; asgi-bridge health --help says more",
    )


def test_a_probe_loads_next_to_nothing(runner: ThreadRunner) -> None:
    code = LOADED.format(arguments=["health", "--uds", runner.path, "--timeout", "60"], heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, []]
