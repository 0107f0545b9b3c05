"""The worker's side of the channel, in this process."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from asgi_bridge import Bridge, apisix
from asgi_bridge.plugins.shared_numbers import SharedTable
from asgi_bridge.server import worker as worker_module
from asgi_bridge.server.process import runner_config
from asgi_bridge.server.runner import Runner
from asgi_bridge.server.worker import WorkerEnds, WorkerServer
from asgi_bridge.supervisor.channel import Table, Word, receive, send
from asgi_bridge.wire import (
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallResp,
    PrepareConfReq,
    PrepareConfResp,
    Role,
    Session,
)

from ..doubles.connection import request

bridge = Bridge()


async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
    """Asks for something, and does not wait for the answer."""
    asking = asyncio.ensure_future(apisix(scope).var("uri"))
    await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
    asking.cancel()


bridge.mount("hasty", hasty)


class Stage:
    """A worker's link, and the supervisor's ends of channel and memory."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.channel, theirs):
            end.setblocking(False)
        memory, self.parked = Table.create(), os.memfd_create("parked")
        self.table, own = Table(memory), Table(memory)
        os.close(memory)
        self.theirs = theirs
        ends = WorkerEnds(theirs, own, SharedTable(self.parked), None, True, "00", 3)
        config = runner_config(lambda: Runner(bridge.plugins))
        config.load()
        self.server = WorkerServer(config, "/nowhere", ends)
        self.server.servers = []  # uvicorn sets it when it starts
        self.server.accept([])

    async def hear(self) -> Any:
        """Return the next message of the worker."""
        while True:
            try:
                return receive(self.channel)
            except BlockingIOError:
                await asyncio.sleep(0.001)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.theirs)
        for end in (self.channel, self.theirs):
            end.close()
        os.close(self.parked)


def staged(test: Callable[[Stage], Awaitable[None]]) -> None:
    async def main() -> None:
        stage = Stage()
        assert await stage.hear() == (Word.READY, 0, b"", None)
        try:
            async with asyncio.timeout(60):
                await test(stage)
        finally:
            stage.close()

    asyncio.run(main())


def test_a_connection_that_is_asked_back_at_once_comes_back() -> None:
    async def test(stage: Stage) -> None:
        ours, gateway = socket.socketpair()
        with ours, gateway:
            send(stage.channel, Word.CONNECTION, 4, b"", ours.fileno())
            send(stage.channel, Word.GIVE_BACK, 4)
            assert await stage.hear() == (Word.RETURNED, 4, b"", None)

    staged(test)


def test_a_connection_is_idle_again_when_the_last_answer_to_an_ask_has_come() -> None:
    async def test(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        session = Session(Role.GATEWAY)
        ours, gateway = socket.socketpair()

        async def next_message() -> Any:
            while (message := session.next_message()) is None:
                session.receive_data(await loop.sock_recv(gateway, 1 << 16))
            return message

        with ours, gateway:
            gateway.setblocking(False)
            send(stage.channel, Word.CONNECTION, 0, b"", ours.fileno())
            await loop.sock_sendall(gateway, session.send(PrepareConfReq([(b"hasty", b"{}")], b"route#1#x#1")))
            prepared = await next_message()
            assert isinstance(prepared, PrepareConfResp)
            await loop.sock_sendall(gateway, session.send(request(prepared.conf_token)))
            assert isinstance(await next_message(), ExtraInfoReq)
            while stage.server.server_state.tasks:  # noqa: ASYNC110  # nothing says so
                await asyncio.sleep(0.001)
            assert stage.table.busy[0] == 1
            await loop.sock_sendall(gateway, session.send(ExtraInfoResp(b"/")))
            assert isinstance(await next_message(), HTTPReqCallResp)
            while stage.table.busy[0]:  # noqa: ASYNC110  # nothing says so
                await asyncio.sleep(0.001)
        assert await stage.hear() == (Word.CLOSED, 0, b"", None)

    staged(test)


def test_a_worn_worker_says_so_again_if_nobody_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "BEAT_SECONDS", 0.001)

    async def test(stage: Stage) -> None:
        for calls in (3, 6):
            stage.server.server_state.total_requests = calls
            assert await stage.hear() == (Word.WORN, 0, b"", None)

    staged(test)


def test_a_supervisor_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "REPORT_SECONDS", 0.01)

    async def test(stage: Stage) -> None:
        with pytest.raises(HTTPException) as caught:
            await stage.server._reports()  # the admin application calls it
        assert (caught.value.status_code, caught.value.detail) == (503, "The supervisor does not answer")

    staged(test)
