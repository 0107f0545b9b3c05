"""What the doctor finds when it calls a runner, as APISIX does."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_bridge.doctor import Finding
from asgi_bridge.doctor.findings import error, warning
from asgi_bridge.wire import (
    ErrCode,
    ErrResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    PrepareConfReq,
    Stop,
    Var,
    encode,
)

from ..doubles.runner_double import RunnerDouble, running
from ..doubles.runner_thread import ThreadRunner
from ..doubles.waiting import SECONDS
from ..server import sample
from .conftest import Look

SOCKET = "HOME/r.sock"
LOG = "the runner's log says why"


@pytest.fixture
def double(home: Path) -> Iterator[RunnerDouble]:
    with running(str(home / "r.sock")) as double:
        (home / "r.sock").chmod(0o666)
        yield double


@pytest.fixture
def runner(home: Path) -> Iterator[ThreadRunner]:
    runner = ThreadRunner(str(home / "r.sock"), "asyncio", sample.bridge)
    yield runner
    runner.stop()


def last(look: Look, double: RunnerDouble, seconds: float = SECONDS) -> Finding:
    """The finding of the handshake, which comes behind the one of who listens."""
    listens, found = look(socket=double.path, seconds=seconds)
    assert listens.severity == "ok"
    return found


def test_a_runner_that_answers(look: Look, runner: ThreadRunner) -> None:
    listens, found = look(socket=runner.path)
    assert (listens.severity, found.severity, found.where) == ("ok", "ok", SOCKET)
    assert found.what.startswith("a handshake works: a list is prepared, and a call is answered (")


def test_what_is_asked(look: Look, double: RunnerDouble) -> None:
    assert last(look, double).severity == "ok"
    assert double.got == [
        PrepareConfReq([], b"route#asgi-bridge-doctor#nothing#1"),
        HTTPReqCallReq(0, b"\x7f\0\0\1", "GET", b"/", [], [(b"host", b"localhost")], 7),
    ]


def test_plugins_are_prepared_and_not_called(look: Look, runner: ThreadRunner) -> None:
    plugins = [("hello", "{}"), ("sleeping", "3600"), ("helo", "{}")]
    found = look(socket=runner.path, plugins=plugins)[2:]
    assert [(each.severity, each.what) for each in found] == [
        ("ok", "plugin hello is there, and takes the configuration {}"),
        ("ok", "plugin sleeping is there, and takes the configuration 3600"),
        ("error", "the runner does not prepare plugin helo with the configuration {}"),
    ]
    assert found[2].remedy == (
        "the runner's log says why: it is not mounted there, or it refuses the configuration; --conf gives another one"
    )


def test_a_runner_that_prepares_nothing(look: Look, double: RunnerDouble) -> None:
    double.answer = lambda message, ask: ErrResp(ErrCode.BAD_REQUEST)
    what = "a handshake fails: failed to receive RPC_PREPARE_CONF: bad request"
    assert last(look, double) == error(SOCKET, what, LOG)


def test_a_runner_that_refuses_calls(look: Look, double: RunnerDouble) -> None:
    double.calls(lambda message, ask: ErrResp(ErrCode.SERVICE_UNAVAILABLE))
    what = "a handshake fails: failed to receive RPC_HTTP_REQ_CALL: service unavailable"
    assert last(look, double) == error(SOCKET, what, LOG)


def test_a_runner_that_hangs_up(look: Look, double: RunnerDouble) -> None:
    double.answer = lambda message, ask: None
    what = "a handshake fails: failed to receive RPC_PREPARE_CONF: closed"
    assert last(look, double) == error(SOCKET, what, LOG)


def test_a_runner_that_does_not_answer(look: Look, double: RunnerDouble) -> None:
    ended = threading.Event()
    double.answer = lambda message, ask: ended.wait(SECONDS) and None
    assert last(look, double, 0.05) == error(
        SOCKET,
        "a handshake fails: failed to receive RPC_PREPARE_CONF: timeout (0.05 s)",
        "the runner is still loading its plugins, or a plugin blocks its event loop: its log says which",
    )
    ended.set()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(6 << 20),
            "failed to receive RPC_PREPARE_CONF: unexpected type 72",
        ),
        (encode(HTTPReqCallResp()), "failed to receive RPC_PREPARE_CONF: unexpected type 2"),
        (b"\1\0\0\4\xff\xff\xff\xff", "undecodable payload of a frame of type 1: "),
    ],
)
def test_what_listens_is_no_runner(look: Look, double: RunnerDouble, answer: bytes, reason: str) -> None:
    double.answer = lambda message, ask: answer
    found = last(look, double)
    assert found == error(SOCKET, found.what, "what listens there is no plugin runner: give another path")
    assert found.what.startswith(f"a handshake fails: {reason}")


def test_a_runner_that_changes_a_call_without_plugins(look: Look, double: RunnerDouble) -> None:
    double.calls(lambda message, ask: HTTPReqCallResp(message.id, Stop(403)))
    assert last(look, double) == warning(
        SOCKET,
        "a call without any plugin is answered with a change of the request",
        "is this the runner that you mean? One of asgi_bridge changes nothing there",
    )


def test_a_runner_may_ask_in_between(look: Look, double: RunnerDouble) -> None:
    def answer(message: HTTPReqCallReq, ask: object) -> HTTPReqCallResp:
        assert callable(ask)
        assert ask(Var(b"request_id")) is None
        return HTTPReqCallResp(message.id)

    double.calls(answer)
    assert last(look, double).severity == "ok"
