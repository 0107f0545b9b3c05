"""What the runner answers to all that a gateway may send, on both event loops."""

import asyncio
import contextlib
import functools
import inspect
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.server import Server, ServerState

from asgi_bridge import Bridge
from asgi_bridge.server.protocol import RunnerProtocol, runner_of
from asgi_bridge.server.runner import Runner
from asgi_bridge.wire import (
    MAX_PAYLOAD,
    ErrCode,
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    PrepareConfReq,
    PrepareConfResp,
    ReqBody,
    Role,
    Session,
    Var,
    frame,
)

from ..doubles.connection import BAD_REQUEST, HEADERS, NOT_FOUND, UNAVAILABLE, Connection, body_of, request
from ..doubles.runner_thread import ThreadRunner
from ..doubles.waiting import until
from ..loops import LOOPS, loop_factory
from . import sample

BODY = [*HEADERS, (b"content-length", b"5")]


# uvicorn's side


def test_uvicorn_builds_a_protocol_with_the_keywords_that_ours_takes() -> None:
    source = inspect.getsource(Server.startup)
    for keyword in ("config=config", "server_state=self.server_state", "app_state=self.lifespan.state", "_loop=_loop"):
        assert keyword in source
    assert list(inspect.signature(RunnerProtocol).parameters) == ["config", "server_state", "app_state", "_loop"]


def test_uvicorn_keeps_the_state_that_ours_fills() -> None:
    state = ServerState()
    assert (state.total_requests, state.connections, state.tasks) == (0, set(), set())
    assert "connection.shutdown()" in inspect.getsource(Server.shutdown)


def test_uvicorn_treats_its_servers_as_acceptors_can() -> None:
    source = inspect.getsource(Server.shutdown) + inspect.getsource(Server._wait_tasks_to_complete)
    assert "for server in self.servers:\n            server.close()" in source
    assert "await server.wait_closed()" in source
    assert "for sock in sockets:" in inspect.getsource(Server.startup)


def test_uvicorn_alone_can_use_the_protocol_class(path: str) -> None:
    config = uvicorn.Config(
        lambda: Runner(sample.bridge.plugins),
        factory=True,
        http=RunnerProtocol,
        uds=path,
        interface="asgi3",
        ws="none",
        proxy_headers=False,
        log_config=None,
    )
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        with Connection(path) as connection:
            assert body_of(connection.call(connection.token("hello"))) == b"hello"
    finally:
        server.should_exit = True
        thread.join()


def test_the_runner_is_found_inside_what_uvicorn_wraps_it_in_at_log_level_trace() -> None:
    runner = Runner(sample.bridge.plugins)
    wrapped = SimpleNamespace(app=SimpleNamespace(app=runner))
    assert runner_of(SimpleNamespace(loaded_app=wrapped)) is runner  # type: ignore[arg-type]


# frames


def test_a_call_is_answered(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        token = connection.token("hello")
        answer = connection.call(token, id=7)
        assert isinstance(answer, HTTPReqCallResp)
        assert answer.id == 7
        assert body_of(answer) == b"hello"


def test_request_id_0_is_one_like_any_other(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        answer = connection.call(connection.token("hello"), id=0)
        assert isinstance(answer, HTTPReqCallResp)
        assert answer.id == 0
        assert body_of(answer) == b"hello"


def test_frames_byte_by_byte(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        token = connection.token("hello")
        for byte in connection.session.send(request(token)):
            connection.sock.sendall(bytes([byte]))
        assert body_of(connection.receive()) == b"hello"


def test_several_answers_in_one_read(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        connection.begin(connection.token("asking", ["a", "b", "c"]))
        data = b""
        for name in (b"a", b"b", b"c"):
            assert connection.receive() == ExtraInfoReq(Var(name))
            data += connection.session.send(ExtraInfoResp(None if name == b"b" else name.upper()))
        connection.sock.sendall(data)
        assert json.loads(body_of(connection.receive())) == {"a": "A", "b": None, "c": "C"}


def test_the_longest_frame(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        connection.begin(connection.token("counting"), headers=BODY)
        assert connection.receive() == ExtraInfoReq(ReqBody())
        overhead = len(connection_bytes(ExtraInfoResp(b"12"))) - 4 - 2
        body = b"x" * ((MAX_PAYLOAD - overhead) & ~3)
        connection.send(ExtraInfoResp(body))
        assert body_of(connection.receive()) == b"%d" % len(body)


def connection_bytes(message: ExtraInfoResp) -> bytes:
    session = Session(Role.GATEWAY)
    runner = Session(Role.RUNNER)
    runner.receive_data(session.send(request(1)))
    runner.next_message()
    session.receive_data(runner.send(ExtraInfoReq(ReqBody())))
    session.next_message()
    return session.send(message)


def test_an_answer_over_16_mib_is_refused_and_the_connection_kept(
    runner: ThreadRunner, caplog: pytest.LogCaptureFixture
) -> None:
    with runner.connect() as connection:
        hello = connection.token("hello")
        big = connection.token("big", MAX_PAYLOAD)
        assert connection.call(big) == UNAVAILABLE
        assert connection.call(connection.token("big", MAX_PAYLOAD + 1)) == UNAVAILABLE
        assert body_of(connection.call(hello)) == b"hello"
    assert "plugin big: request refused" in caplog.text


def test_a_call_behind_an_open_one_loses_the_connection(runner: ThreadRunner, caplog: pytest.LogCaptureFixture) -> None:
    with runner.connect() as connection:
        token = connection.token("sleeping", 0.05)
        data = Session(Role.GATEWAY).send(request(token))
        connection.sock.sendall(data + data)
        assert connection.receive() is None
    assert "is the other side an APISIX gateway?" in caplog.text
    assert serves(runner)


@pytest.mark.parametrize(
    "data",
    [
        frame(7, b""),
        frame(3, b""),
        frame(0, b"\0" * 20),
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n" + b"x" * 0x455420,
    ],
    ids=["unknown type", "an answer to nothing", "an error for nothing", "HTTP"],
)
def test_a_frame_that_may_not_come_closes_the_connection(
    runner: ThreadRunner, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    with runner.connect() as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sock.sendall(data)
        assert connection.receive() is None
    assert "is the other side an APISIX gateway?" in caplog.text
    assert serves(runner)


@pytest.mark.parametrize("kind", [1, 2, 4])
@pytest.mark.parametrize(
    "payload", [b"", b"\xff" * 40, struct.pack("<I", 1 << 31)], ids=["empty", "garbage", "an offset beyond"]
)
def test_an_undecodable_call_is_a_bad_request_and_the_connection_kept(
    runner: ThreadRunner, kind: int, payload: bytes
) -> None:
    with runner.connect() as connection:
        sound = [request(1), PrepareConfReq(), HTTPRespCallReq(1)]
        # so that the session knows the open call
        connection.session.send({2: sound[0], 1: sound[1], 4: sound[2]}[kind])  # type: ignore[arg-type]
        connection.sock.sendall(frame(kind, payload))
        assert connection.receive() == BAD_REQUEST
        assert body_of(connection.call(connection.token("hello"))) == b"hello"


def test_a_frame_cut_off_by_the_end_of_the_connection(runner: ThreadRunner, caplog: pytest.LogCaptureFixture) -> None:
    with runner.connect() as connection:
        connection.token("hello")
        connection.sock.sendall(frame(2, b"\0" * 100)[:50])
    until(lambda: runner.connections == 0)
    assert "the stream ended after 50 bytes of an unfinished frame" in caplog.text
    assert serves(runner)


def serves(runner: ThreadRunner) -> bool:
    with runner.connect() as connection:
        return body_of(connection.call(connection.token("hello"))) == b"hello"


# preparing


def test_an_unknown_token(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        assert connection.call(4711) == NOT_FOUND
        assert connection.call(0) == NOT_FOUND
        assert body_of(connection.call(connection.token("hello"))) == b"hello"


def test_a_configuration_that_does_not_check_is_a_bad_request(
    runner: ThreadRunner, caplog: pytest.LogCaptureFixture
) -> None:
    with runner.connect() as connection:
        assert connection.prepare(("nobody", {})) == BAD_REQUEST
        assert body_of(connection.call(connection.token("hello"))) == b"hello"
    assert "plugin nobody is not mounted" in caplog.text


def test_many_preparations_of_one_key_at_once_are_one(runner: ThreadRunner) -> None:
    before = len(sample.built)
    connections = [runner.connect() for _ in range(50)]
    message = PrepareConfReq([(b"built", b'{"seconds": 0.2}')], b"route#many#ext-plugin-pre-req#1")
    for connection in connections:
        connection.send(message)
    answers = {connection.receive() for connection in connections}
    assert len(answers) == 1
    (answer,) = answers
    assert isinstance(answer, PrepareConfResp)
    assert len(sample.built) == before + 1
    for connection in connections:
        connection.close()


def test_a_chain_that_was_evicted_is_built_again(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        token = connection.token("built", {}, key="route#evicted#ext-plugin-pre-req#1")
        first = body_of(connection.call(token))
        evict(runner)
        assert int(body_of(connection.call(token))) == int(first) + 1


def evict(runner: ThreadRunner) -> None:
    runner.runner.store._prepared.clear()
    runner.runner.store._instances._instances.clear()


def test_a_chain_that_cannot_be_built_again_refuses(runner: ThreadRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    with runner.connect() as connection:
        token = connection.token("pid", key="route#refused#ext-plugin-pre-req#1")
        evict(runner)
        monkeypatch.delitem(sample.bridge.plugins, "pid")
        assert connection.call(token) == UNAVAILABLE


def test_a_gateway_that_went_away_while_a_chain_was_rebuilt(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        token = connection.token("built", {"seconds": 0.1}, key="route#slow#ext-plugin-pre-req#1")
        evict(runner)
        requests = runner.server.server_state.total_requests
        connection.begin(token)
        until(lambda: runner.server.server_state.total_requests > requests)
    until(lambda: runner.connections == 0)
    until(lambda: not runner.server.server_state.tasks)
    assert runner.runner.calls == set()


def test_a_response_call(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        token = connection.token("hello", key="route#1#ext-plugin-post-resp#1")
        connection.send(HTTPRespCallReq(3, 200, [(b"server", b"upstream")], token))
        while isinstance(answer := connection.receive(), ExtraInfoReq):
            connection.send(ExtraInfoResp(None))
        assert isinstance(answer, HTTPRespCallResp)
        assert (answer.id, answer.body) == (3, b"hello")
        assert connection.say(HTTPRespCallReq(3, 200, [], 4711)) == NOT_FOUND


# asking


@pytest.mark.parametrize(
    "bad",
    [frame(0, b""), frame(3, b""), frame(3, b"\xff" * 12)],
    ids=["an error that cannot be read", "an empty frame", "garbage"],
)
def test_an_answer_that_cannot_be_read_refuses_the_call(runner: ThreadRunner, bad: bytes) -> None:
    with runner.connect() as connection:
        token = connection.token("asking", ["a", "b"])
        connection.begin(token)
        assert connection.receive() == ExtraInfoReq(Var(b"a"))
        connection.session.send(ExtraInfoResp(b""))
        assert connection.receive() == ExtraInfoReq(Var(b"b"))
        connection.session.send(ExtraInfoResp(b""))
        connection.sock.sendall(bad + bad)
        assert connection.receive() == UNAVAILABLE
        assert body_of(connection.call(connection.token("hello"))) == b"hello"


def test_an_error_in_place_of_an_answer_refuses_the_call(
    runner: ThreadRunner, caplog: pytest.LogCaptureFixture
) -> None:
    with runner.connect() as connection:
        connection.begin(connection.token("asking", ["a", "b"]))
        for _ in range(2):
            assert isinstance(connection.receive(), ExtraInfoReq)
            connection.send(ErrResp(ErrCode.SERVICE_UNAVAILABLE))
        assert connection.receive() == UNAVAILABLE
        assert body_of(connection.call(connection.token("hello"))) == b"hello"
    assert "the gateway did not give what it was asked for: error SERVICE_UNAVAILABLE" in caplog.text


def test_another_type_in_place_of_an_answer_loses_the_connection(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        connection.begin(connection.token("asking", ["a"]))
        assert isinstance(connection.receive(), ExtraInfoReq)
        connection.sock.sendall(frame(2, b""))
        assert connection.receive() is None
    until(lambda: not runner.runner.calls)
    assert serves(runner)


def test_the_gateway_closes_in_the_middle_of_an_ask(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        connection.begin(connection.token("asking", ["a"]))
        assert isinstance(connection.receive(), ExtraInfoReq)
    until(lambda: not runner.runner.calls and not runner.server.server_state.tasks)
    assert runner.connections == 0


def test_the_gateway_closes_in_the_middle_of_a_call(runner: ThreadRunner, folder: Path) -> None:
    mark = folder / "disconnected"
    with runner.connect() as connection:
        token = connection.token("waiting", str(mark))
        connection.begin(token, headers=[*HEADERS, (b"content-length", b"0")])
        until(lambda: runner.runner.calls)
    until(mark.exists)
    until(lambda: not runner.runner.calls and not runner.server.server_state.tasks)


def test_an_ask_that_an_answer_has_overtaken(runner: ThreadRunner) -> None:
    del sample.told[:]
    with runner.connect() as connection:
        connection.begin(connection.token("asking_behind"))
        assert connection.receive() == ExtraInfoReq(Var(b"a"))
        until(lambda: sample.told == ["the call has been answered: the gateway cannot be asked any more"])
        # the gateway answers the ask all the same, and only then reads the answer to the call
        connection.send(ExtraInfoResp(b"x"))
        assert body_of(connection.receive()) == b"done"
        assert body_of(connection.call(connection.token("hello"))) == b"hello"


@pytest.mark.parametrize("answer", [ExtraInfoResp(b"x"), ErrResp(), None], ids=["told", "error", "closed"])
def test_an_ask_that_nobody_waits_for(runner: ThreadRunner, answer: ExtraInfoResp | ErrResp | None) -> None:
    with runner.connect() as connection:
        connection.begin(connection.token("impatient"))
        assert connection.receive() == ExtraInfoReq(Var(b"a"))
        time.sleep(0.05)  # until the plugin has given up
        if answer is not None:
            connection.send(answer)
            assert body_of(connection.receive()) == b"done"
    until(lambda: not runner.server.server_state.tasks)


def test_a_half_closed_connection_is_a_closed_one(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        connection.begin(connection.token("sleeping", 60))
        connection.sock.shutdown(socket.SHUT_WR)
        assert connection.receive() is None
        until(lambda: runner.connections == 0)
        assert len(runner.runner.calls) == 1
        for task in list(runner.server.server_state.tasks):
            task.get_loop().call_soon_threadsafe(task.cancel)
        until(lambda: not runner.runner.calls)


def test_context_variables_of_one_call_are_not_seen_by_the_next(runner: ThreadRunner) -> None:
    with runner.connect() as connection:
        token = connection.token("remembering")
        assert [body_of(connection.call(token)) for _ in range(3)] == [b"", b"", b""]
    assert serves(runner)


def test_a_gateway_that_does_not_read_may_not_go_on(runner: ThreadRunner) -> None:
    """Otherwise the answers would fill our memory."""
    with runner.connect() as connection:
        token = connection.token("big", 2**20)
        before = runner.server.server_state.total_requests
        for _ in range(2):
            # as if each call had been answered
            connection.sock.sendall(Session(Role.GATEWAY).send(request(token)))
            settled(runner)
        assert runner.server.server_state.total_requests - before == 1
        for _ in range(2):
            connection.session.send(request(token))
            assert len(body_of(connection.receive())) == 2**20
        assert body_of(connection.call(connection.token("hello"))) == b"hello"


def settled(runner: ThreadRunner) -> None:
    """Wait until the runner has read everything that was sent before."""
    with runner.connect() as connection:
        connection.token("hello")


# stopping, step by step


def in_loop(
    script: Callable[[RunnerProtocol, Connection, Runner], Any],
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> None:
    """Run `script` in the event loop of a protocol. The loop reads only while the script awaits."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        runner = Runner(sample.bridge.plugins)
        await runner.start()
        config = SimpleNamespace(loaded_app=runner)
        made = RunnerProtocol(config, ServerState())  # type: ignore[arg-type]
        await loop.connect_accepted_socket(lambda: made, ours)
        connection = Connection.__new__(Connection)
        connection.session, connection.sock = Session(Role.GATEWAY), theirs
        theirs.settimeout(60)
        try:
            await script(made, connection, runner)
        finally:
            theirs.close()
            await runner.stop()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=factory) as loop:
        loop.run(main())


def test_an_idle_connection_is_never_closed_first() -> None:
    """APISIX keeps it for 180 s, and its next call would fail if we had closed it."""
    hours = 0.0

    def loop_with_a_clock() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        time = loop.time
        loop.time = lambda: time() + 3600 * hours  # type: ignore[method-assign]
        return loop

    async def script(made: RunnerProtocol, connection: Connection, runner: Runner) -> None:
        nonlocal hours
        in_thread = functools.partial(asyncio.get_running_loop().run_in_executor, None)
        token = await in_thread(connection.token, "hello")
        for _ in range(3):
            assert body_of(await in_thread(connection.call, token)) == b"hello"
            hours += 1.0
            for _ in range(20):  # run the timers of the next hour, and what they start
                await asyncio.sleep(0)
        assert not made._transport.is_closing()
        assert body_of(await in_thread(connection.call, token)) == b"hello"

    in_loop(script, loop_with_a_clock)


each_loop = pytest.mark.parametrize("loop", LOOPS)


@each_loop
def test_each_loop_reads_in_the_way_that_is_quicker_for_it(loop: str) -> None:
    buffered: list[int] = []

    class Noting(RunnerProtocol):
        __slots__ = ()

        def buffer_updated(self, nbytes: int) -> None:
            buffered.append(nbytes)
            super().buffer_updated(nbytes)

    async def script(made: RunnerProtocol, connection: Connection, runner: Runner) -> None:
        made.__class__ = Noting
        made._transport.set_protocol(made)  # event loops look up the methods once
        loop = asyncio.get_running_loop()
        token = await loop.run_in_executor(None, connection.token, "hello")
        assert body_of(await loop.run_in_executor(None, connection.call, token)) == b"hello"

    in_loop(script, loop_factory(loop))
    assert bool(buffered) is (loop == "asyncio")


@each_loop
def test_an_answer_that_is_read_late_is_whole_at_a_stop(loop: str) -> None:
    async def script(made: RunnerProtocol, connection: Connection, runner: Runner) -> None:
        token = await asyncio.to_thread(connection.token, "big", 2**22)
        for _ in range(2):
            connection.sock.sendall(Session(Role.GATEWAY).send(request(token)))
            await asyncio.sleep(0.05)
        made.shutdown()
        connection.session.send(request(token))
        assert len(body_of(await asyncio.to_thread(connection.receive))) == 2**22

    in_loop(script, loop_factory(loop))


@each_loop
def test_a_connection_that_is_closing_already_at_a_stop(loop: str) -> None:
    async def script(made: RunnerProtocol, connection: Connection, runner: Runner) -> None:
        made._transport.close()
        made.shutdown()
        assert await asyncio.to_thread(connection.receive) is None

    in_loop(script, loop_factory(loop))


def test_a_call_that_was_not_read_yet_is_answered_before_a_stop() -> None:
    async def script(made: RunnerProtocol, connection: Connection, runner: Runner) -> None:
        token = await asyncio.to_thread(connection.token, "hello")
        connection.begin(token)
        made.shutdown()
        assert body_of(await asyncio.to_thread(connection.receive)) == b"hello"
        assert await asyncio.to_thread(connection.receive) is None

    in_loop(script)


def test_an_idle_connection_is_closed_at_a_stop() -> None:
    async def script(made: RunnerProtocol, connection: Connection, runner: Runner) -> None:
        made.shutdown()
        assert await asyncio.to_thread(connection.receive) is None

    in_loop(script)


def test_a_connection_accepted_during_a_stop() -> None:
    async def script(made: RunnerProtocol, connection: Connection, runner: Runner) -> None:
        runner.stopping = True
        ours, theirs = socket.socketpair()
        late = RunnerProtocol(SimpleNamespace(loaded_app=runner), ServerState())  # type: ignore[arg-type]
        await asyncio.get_running_loop().connect_accepted_socket(lambda: late, ours)
        with theirs:
            theirs.settimeout(60)
            assert await asyncio.to_thread(theirs.recv, 1) == b""

    in_loop(script)


def test_asking_a_gateway_that_is_gone() -> None:
    async def script(made: RunnerProtocol, connection: Connection, runner: Runner) -> None:
        made._transport.close()
        future = made.ask([Var(b"a")])
        with pytest.raises(Exception, match="has closed the connection"):
            await future

    in_loop(script)


@pytest.mark.parametrize("turns", [0, 3], ids=["before they begin", "while they run"])
def test_calls_that_ignore_their_end_are_refused_at_a_stop(turns: int) -> None:
    async def script(made: RunnerProtocol, connection: Connection, runner: Runner) -> None:
        token = await asyncio.to_thread(connection.token, "stubborn", 0.5)
        data = connection.session.send(request(token))
        made.get_buffer(-1)[: len(data)] = data
        made.buffer_updated(len(data))
        for _ in range(turns):
            await asyncio.sleep(0)
        tasks = list(made._server_state.tasks)
        assert len(tasks) == (turns > 0)
        for task in tasks:
            task.cancel()
        await runner.stop()
        assert await asyncio.to_thread(connection.receive) == UNAVAILABLE
        if tasks:
            await asyncio.wait(tasks)

    in_loop(script)


def test_bridges_are_served_as_they_are(serving: Callable[..., ThreadRunner]) -> None:
    bridge = Bridge()
    bridge.mount("one", sample.hello)
    with serving(bridge=bridge).connect() as connection:
        assert body_of(connection.call(connection.token("one"))) == b"hello"
