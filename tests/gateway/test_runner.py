"""Connections, the pool, tokens and the lock, without a gateway around them."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asgi_bridge.gateway.nginx.headers import LuaError
from asgi_bridge.gateway.pool import Pool
from asgi_bridge.gateway.runner.client import RunnerClient
from asgi_bridge.gateway.runner.connection import Limits, RunnerError, TokenNotFound
from asgi_bridge.wire import encode
from asgi_bridge.wire.messages import (
    ErrCode,
    ErrResp,
    ExtraInfoReq,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallResp,
    PrepareConfReq,
    PrepareConfResp,
    UnknownUnion,
)
from tests.doubles.runner_double import RunnerDouble


async def nothing(asked: ExtraInfoReq) -> bytes | None:
    return None


async def call(client: RunnerClient, key: str = "k", tell: Any = nothing) -> Any:
    async with client.call(key, [(b"a", b"{}")]) as (connection, number, token):
        return await connection.ask(HTTPReqCallReq(number, conf_token=token), tell)


def run(work: Callable[[RunnerClient], Awaitable[Any]], path: str, **limits: Any) -> Any:
    async def main() -> Any:
        client = RunnerClient(path, Limits(**limits), Pool())
        client._pool.start()
        try:
            async with asyncio.timeout(60):
                return await work(client)
        finally:
            await client._pool.stop()

    return asyncio.run(main())


def test_ids_begin_at_zero_and_again(runner: RunnerDouble) -> None:
    async def work(client: RunnerClient) -> None:
        assert await call(client) == HTTPReqCallResp(0)
        client.next_id = (1 << 22) - 1
        assert await call(client) == HTTPReqCallResp((1 << 22) - 1)
        assert await call(client) == HTTPReqCallResp(0)

    run(work, runner.path)
    assert [type(message) for message in runner.got] == [PrepareConfReq] + [HTTPReqCallReq] * 3


def test_one_connection_for_each_concurrent_call(runner: RunnerDouble) -> None:
    async def work(client: RunnerClient) -> int:
        await call(client)
        await asyncio.gather(*[call(client) for _ in range(8)])
        return len(client._pool)

    idle: int = run(work, runner.path, pool=3)
    assert idle == 3
    assert len([message for message in runner.got if isinstance(message, PrepareConfReq)]) == 1


def test_concurrent_calls_prepare_once(runner: RunnerDouble) -> None:
    async def work(client: RunnerClient) -> None:
        await asyncio.gather(*[call(client) for _ in range(8)])

    run(work, runner.path)
    assert len([message for message in runner.got if isinstance(message, PrepareConfReq)]) == 1


def test_idle_connections_have_an_age(runner: RunnerDouble) -> None:
    async def work(client: RunnerClient) -> None:
        await call(client)
        await call(client)

    run(work, runner.path, idle=0.0)
    assert runner.accepted == 3


def test_tokens_have_an_age_and_can_be_flushed(runner: RunnerDouble) -> None:
    async def work(client: RunnerClient) -> None:
        await call(client)
        client.flush_tokens()
        await call(client)

    run(work, runner.path)
    run(work, runner.path, token=0.0)
    assert len([message for message in runner.got if isinstance(message, PrepareConfReq)]) == 4


def test_bytes_on_an_idle_connection_end_it(runner: RunnerDouble) -> None:
    async def work(client: RunnerClient) -> None:
        await call(client)
        assert len(client._pool) == 2
        loop = asyncio.get_running_loop()
        for connection in runner.connections:
            connection.sendall(b"\x02\0\0\0")
        for _ in runner.connections:
            await loop.run_in_executor(None, runner.closed.acquire)
        await call(client)

    run(work, runner.path)
    assert runner.accepted == 3


def test_connection_that_the_runner_closed_is_not_used(runner: RunnerDouble) -> None:
    runner.calls(lambda message, ask: HTTPReqCallResp(message.id))

    async def work(client: RunnerClient) -> None:
        await call(client)
        loop = asyncio.get_running_loop()
        for connection in runner.connections:
            connection.shutdown(socket.SHUT_RDWR)
            await loop.run_in_executor(None, runner.closed.acquire)
        await asyncio.sleep(0.01)
        await call(client)

    run(work, runner.path)
    assert runner.accepted == 3


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (ErrResp(ErrCode.BAD_REQUEST), RunnerError, "failed to receive RPC_HTTP_REQ_CALL: bad request"),
        (ErrResp(ErrCode.CONF_TOKEN_NOT_FOUND), TokenNotFound, "conf token not found"),
        (ErrResp(9), RunnerError, "unknown err 9"),
        (None, RunnerError, "failed to receive RPC_HTTP_REQ_CALL: closed"),
        (b"\x02\0\0\1\0", LuaError, "undecodable payload of a frame of type 2"),
        (b"\0\0\0\0", LuaError, "undecodable payload of a frame of type 0"),
        (HTTPRespCallResp(0), RunnerError, "failed to receive RPC_HTTP_REQ_CALL: unexpected type 4"),
        (b"\x09\0\0\0", RunnerError, "failed to receive RPC_HTTP_REQ_CALL: unexpected type 9"),
        (ExtraInfoReq(None), RunnerError, "unsupported info type: 0"),
        (ExtraInfoReq(UnknownUnion(7)), RunnerError, "unsupported info type: 7"),
    ],
)
def test_faults(runner: RunnerDouble, answer: Any, error: type[Exception], text: str) -> None:
    runner.calls(lambda message, ask: answer)

    async def work(client: RunnerClient) -> int:
        with pytest.raises(error, match=text):
            await call(client)
        return len(client._pool)

    # the connection that failed is closed, that of PrepareConf is kept
    assert run(work, runner.path) == 1


def test_apply_that_raises_closes_the_connection(runner: RunnerDouble) -> None:
    async def work(client: RunnerClient) -> int:
        with pytest.raises(LuaError):
            async with client.call("k", None) as (connection, number, _):
                await connection.ask(HTTPReqCallReq(number), nothing)
                raise LuaError("bad")
        return len(client._pool)

    assert run(work, runner.path) == 1


def test_prepare_that_fails_frees_the_lock(runner: RunnerDouble) -> None:
    answers: list[Any] = [ErrResp(ErrCode.BAD_REQUEST), HTTPReqCallResp(1), PrepareConfResp(3), HTTPReqCallResp(0)]
    runner.answer = lambda message, ask: answers.pop(0)

    async def work(client: RunnerClient) -> None:
        with pytest.raises(RunnerError, match="failed to receive RPC_PREPARE_CONF: bad request"):
            await call(client)
        with pytest.raises(RunnerError, match="failed to receive RPC_PREPARE_CONF: unexpected type 2"):
            await call(client)
        await call(client)

    run(work, runner.path)
    last = runner.got[-1]
    assert isinstance(last, HTTPReqCallReq) and last.conf_token == 3


def test_garbage_for_prepare_holds_the_lock(runner: RunnerDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [b"\x01\0\0\1\0", PrepareConfResp(3), HTTPReqCallResp(0)]
    runner.answer = lambda message, ask: answers.pop(0)

    async def work(client: RunnerClient) -> None:
        with pytest.raises(LuaError):
            await call(client)
        with pytest.raises(RunnerError, match="failed to acquire the lock: timeout"):
            await call(client, "other")
        # until nobody respects it any more
        later = time.monotonic() + 601
        monkeypatch.setattr("asgi_bridge.gateway.runner.client.time", SimpleNamespace(monotonic=lambda: later))
        await call(client, "other")

    run(work, runner.path, lock=0.05, lock_held=600.0)


def test_answers_have_a_time(runner: RunnerDouble) -> None:
    stop = asyncio.Event()

    def hang(message: Any, ask: Any) -> None:
        asyncio.run_coroutine_threadsafe(stop.wait(), loops[0]).result(60)

    loops: list[asyncio.AbstractEventLoop] = []

    async def work(client: RunnerClient) -> None:
        loops.append(asyncio.get_running_loop())
        await call(client)
        runner.calls(hang)
        await client._pool.stop()
        client.limits = Limits(exchange=0.05)
        with pytest.raises(RunnerError, match="failed to receive RPC_HTTP_REQ_CALL: timeout"):
            await call(client)
        stop.set()

    run(work, runner.path)


def test_answer_to_extra_info_that_fits_no_frame(runner: RunnerDouble) -> None:
    async def tell(asked: ExtraInfoReq) -> bytes | None:
        return bytes(1 << 24)

    from asgi_bridge.wire.messages import ReqBody

    runner.calls(lambda message, ask: ask(ReqBody()))

    async def work(client: RunnerClient) -> None:
        with pytest.raises(RunnerError, match="failed to reply RPC_EXTRA_INFO"):
            await call(client, tell=tell)

    run(work, runner.path)


def test_runner_that_does_not_read(tmp_path: Path) -> None:
    path = str(tmp_path / "deaf.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(2)

    async def work(client: RunnerClient) -> None:
        with pytest.raises(RunnerError, match="timeout"):
            async with client.call("k", [(b"a", b"x" * (1 << 23))]) as (connection, _, _):
                await connection.ask(HTTPReqCallReq(), nothing)

    run(work, path, exchange=0.05)
    listener.close()


def test_runner_that_hangs_up_before_the_answer_to_extra_info(runner: RunnerDouble) -> None:
    from asgi_bridge.wire.messages import Var

    hung_up = asyncio.Event()

    def answer(message: Any, ask: Any) -> None:
        connection = runner.connections[0]
        connection.sendall(encode(ExtraInfoReq(Var(b"uri"))))
        connection.shutdown(socket.SHUT_RDWR)
        loops[0].call_soon_threadsafe(hung_up.set)

    loops: list[asyncio.AbstractEventLoop] = []
    runner.calls(answer)

    async def tell(asked: ExtraInfoReq) -> bytes | None:
        await hung_up.wait()
        await asyncio.sleep(0.02)
        return b"/x"

    async def work(client: RunnerClient) -> None:
        loops.append(asyncio.get_running_loop())
        with pytest.raises(RunnerError, match="failed to reply RPC_EXTRA_INFO: closed"):
            await call(client, tell=tell)

    run(work, runner.path)


def test_socket_that_cannot_be_reached(tmp_path: Path, runner: RunnerDouble) -> None:
    async def work(client: RunnerClient) -> None:
        await call(client)

    with pytest.raises(RunnerError, match="failed to connect to the unix socket unix:.*: no such file or directory"):
        run(work, str(tmp_path / "nobody.sock"))
    with pytest.raises(RunnerError, match="failed to connect to the unix socket unix:.*: timeout"):
        run(work, runner.path, connect=-1.0)
