"""Too many calls, connections, file descriptors and announced bytes, and calls that take too long."""

import asyncio
import contextlib
import errno
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.server import ServerState

from asgi_bridge.server.accept import TURN_ACCEPTS, Acceptor
from asgi_bridge.server.protocol import RunnerProtocol
from asgi_bridge.server.runner import Runner as BridgeRunner
from asgi_bridge.server.runner import RunnerOptions
from asgi_bridge.wire import MAX_PAYLOAD, ExtraInfoReq, ExtraInfoResp, Role, Session

from ..doubles.connection import UNAVAILABLE, Connection, body_of, request
from ..doubles.runner_process import BIN, RunnerProcess
from ..doubles.runner_thread import ThreadRunner
from ..doubles.waiting import until
from ..loops import LOOPS, loop_factory
from . import HERE, sample


def test_more_calls_than_may_run_at_once(
    serving: Callable[..., ThreadRunner], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    runner = serving(limit_concurrency=100, access_log=True)
    with runner.connect() as connection:
        token = connection.token("asking", ["a"])
    connections = [runner.connect() for _ in range(400)]
    for connection in connections:
        connection.begin(token)
    # a running call asks the gateway, and stays open until the answer
    first = [connection.receive() for connection in connections]
    served = [connection for connection, answer in zip(connections, first, strict=True) if answer != UNAVAILABLE]
    assert len(served) == 100
    assert first.count(UNAVAILABLE) == 300
    for connection in served:
        connection.send(ExtraInfoResp(b"x"))
        assert body_of(connection.receive()) == b'{"a": "x"}'
    # now calls are accepted again, also on the connections whose calls were refused
    for connection in connections:
        connection.begin(token)
        assert isinstance(connection.receive(), ExtraInfoReq)
        connection.send(ExtraInfoResp(b"x"))
        assert body_of(connection.receive()) == b'{"a": "x"}'
        connection.close()

    def refused() -> list[tuple[str, ...]]:
        line = r"plugin asking: (\d+) requests refused: more than (\d+) calls at once \(--limit-concurrency\)"
        return re.findall(line, caplog.text)

    until(lambda: sum(int(count) for count, _ in refused()) == 300)
    assert {limit for _, limit in refused()} == {"100"}
    assert len(refused()) <= 5
    assert caplog.text.count("asking - route 1 - error overload - ") == 300


def test_a_refused_call_costs_at_most_half_of_a_served_one() -> None:
    """It is about a third on a quiet machine. Other processes slow down both by the same amount."""

    class Gone(asyncio.Transport):
        """A transport that drops what is written."""

        written = 0

        def is_closing(self) -> bool:
            return False

        def write(self, data: Any) -> None:
            self.written += 1

    async def cost(limit: int | None) -> float:
        """Return the least processor time of a thousand calls, in seconds."""
        runner = BridgeRunner(sample.bridge.plugins, RunnerOptions(limit_concurrency=limit))
        await runner.start()
        if limit is not None:
            runner.calls.add(Running())  # type: ignore[arg-type]
        token = await runner.store.prepare(b"route#1#ext-plugin-pre-req#1", [(b"passing", b"null")])
        protocol = RunnerProtocol(SimpleNamespace(loaded_app=runner), ServerState())  # type: ignore[arg-type]
        gone = Gone()
        protocol.connection_made(gone)
        frame = Session(Role.GATEWAY).send(request(token))
        times = []
        for _ in range(10):
            begun = time.process_time()
            for number in range(gone.written + 1, gone.written + 1001):
                protocol.data_received(frame)
                while gone.written < number:  # noqa: ASYNC110 as the loop would
                    await asyncio.sleep(0)
            times.append(time.process_time() - begun)
        runner.calls.clear()
        await runner.stop()
        return min(times)

    # other processes can only make a pair worse, so take the best one
    pairs = ((asyncio.run(cost(1)), asyncio.run(cost(None))) for _ in range(5))
    assert any(refused < served / 2 for refused, served in pairs)


class Running:
    """A call that has no deadline."""

    deadline = float("inf")


def test_calls_with_made_up_tokens_are_counted_in_one_line(
    serving: Callable[..., ThreadRunner], caplog: pytest.LogCaptureFixture
) -> None:
    runner = serving(limit_concurrency=1)
    with runner.connect() as busy, runner.connect() as connection:
        busy.begin(busy.token("asking", ["a"]))
        assert isinstance(busy.receive(), ExtraInfoReq)
        assert [connection.call(token) for token in range(1, 2001)] == [UNAVAILABLE] * 2000
        busy.send(ExtraInfoResp(b"x"))
        assert body_of(busy.receive()) == b'{"a": "x"}'

    def counted() -> list[tuple[str, str]]:
        return re.findall(r"plugin (.*): (\d+) requests refused: more than 1 calls at once", caplog.text)

    until(lambda: sum(int(number) for _, number in counted()) == 2000)
    assert {names for names, _ in counted()} == {"?"}
    assert len(counted()) < 200


@pytest.mark.parametrize("plugin", ["hurried", "hurried-stubborn"])
def test_a_call_that_takes_too_long(runner: ThreadRunner, plugin: str, caplog: pytest.LogCaptureFixture) -> None:
    with runner.connect() as connection:
        assert connection.call(connection.token(plugin, 1)) == UNAVAILABLE
        assert body_of(connection.call(connection.token("hello"))) == b"hello"
    assert f"plugin {plugin}: request refused: no answer in time" in caplog.text
    until(lambda: not runner.server.server_state.tasks)


def test_out_of_file_descriptors(start: Callable[..., RunnerProcess], path: str) -> None:
    command = ["sh", "-c", 'ulimit -n 40; exec "$0" "$@"', BIN]
    command += ["run", "sample:bridge", "--app-dir", str(HERE), "--uds", path]
    runner = start(command=command)
    with runner.connect() as connection:
        token = connection.token("hello")
    connections = [runner.connect() for _ in range(60)]
    runner.logged("No more connections can be accepted (Too many open files); they wait.")
    # the connections that wait are accepted when others are closed
    for connection in connections:
        assert body_of(connection.call(token)) == b"hello"
        connection.close()
    assert len(runner.log.splitlines()) < 10
    assert "Traceback" not in runner.log


def test_only_one_line_is_logged_for_many_failures(caplog: pytest.LogCaptureFixture) -> None:
    class Exhausted(socket.socket):
        fails = 0

        def accept(self) -> Any:
            if self.fails < 3:
                self.fails += 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def main() -> None:
        address = b"\0asgi-bridge-%d" % os.getpid()
        with Exhausted(socket.AF_UNIX) as sock:
            sock.bind(address)
            sock.listen()
            sock.setblocking(False)
            made = asyncio.get_running_loop().create_future()

            class Protocol(asyncio.BufferedProtocol):
                def connection_made(self, transport: asyncio.BaseTransport) -> None:
                    transport.close()
                    made.set_result(None)

            acceptor = Acceptor(sock, Protocol)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(address)
                async with asyncio.timeout(60):
                    await made
            assert sock.fails == 3
            acceptor.close()
            await acceptor.wait_closed()
            await asyncio.sleep(0)

    asyncio.run(main())
    assert caplog.text.count("No more connections can be accepted") == 1


def test_an_acceptor_that_is_closed_while_it_waits() -> None:
    class Exhausted(socket.socket):
        def accept(self) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        with Exhausted(socket.AF_UNIX) as sock:
            sock.bind(b"")
            sock.listen()
            sock.setblocking(False)
            acceptor = Acceptor(sock, asyncio.BufferedProtocol)
            acceptor.close()
            acceptor.close()
            assert not asyncio.get_running_loop().remove_reader(sock)

    asyncio.run(main())


class Hurried(asyncio.Protocol, asyncio.BufferedProtocol):
    """Closes its connection as soon as it is made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@pytest.mark.parametrize("kind", LOOPS)
def test_a_flood_of_connects_is_accepted_a_few_in_each_turn_of_the_loop(path: str, kind: str) -> None:
    accepted = 0

    class Counting(socket.socket):
        def accept(self) -> Any:
            nonlocal accepted
            found = super().accept()
            accepted += 1
            return found

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        turns = [0]

        def turn() -> None:
            turns.append(accepted)
            if accepted < 500:
                loop.call_soon(turn)

        acceptor = Acceptor(sock, Hurried)
        loop.call_soon(turn)
        async with asyncio.timeout(60):
            while turns[-1] < 500:  # noqa: ASYNC110 what turns the loop
                await asyncio.sleep(0)
        acceptor.close()
        await asyncio.gather(*acceptor._tasks)
        return turns

    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(Counting(socket.AF_UNIX))
        sock.bind(path)
        sock.listen(500)
        sock.setblocking(False)
        for _ in range(500):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        with asyncio.Runner(loop_factory=lambda: loop_factory(kind)()) as runner:
            turns = runner.run(main())
    assert turns[-1] == 500
    assert max(b - a for a, b in pairwise(turns)) == TURN_ACCEPTS == 32


def test_whoever_goes_on_connecting_does_not_keep_an_acceptor_from_closing() -> None:
    class Flood(socket.socket):
        accepted = 0

        def accept(self) -> Any:
            self.accepted += 1
            mine, other = socket.socketpair()
            other.close()
            return mine, ""

    async def main() -> int:
        with Flood(socket.AF_UNIX) as sock:
            sock.bind(b"")
            sock.listen()
            sock.setblocking(False)
            acceptor = Acceptor(sock, Hurried, backlog=10)
            acceptor.close()
            await asyncio.gather(*acceptor._tasks)
            return sock.accepted

    assert asyncio.run(main()) == 11


FLOOD = """
import socket, sys

held = []
while True:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        sock.connect(sys.argv[1])
    except BlockingIOError:
        sock.close()
    else:
        held.append(sock)
    if len(held) == 500:
        for each in held:
            each.close()
        held.clear()
"""
"""Connects as quickly as it can, and keeps up to 500 connections."""


def test_a_flood_of_connects_leaves_an_innocent_connection_its_calls(
    start: Callable[..., RunnerProcess], path: str
) -> None:
    """The flood takes most of the processor's time, so calls take longer. Without a bound it would be 5,000 times."""

    def seconds(calls: int) -> float:
        times = []
        for _ in range(calls):
            begun = time.perf_counter()
            assert body_of(innocent.call(token)) == b"hello"
            times.append(time.perf_counter() - begun)
        return statistics.median(times)

    runner = start()
    with runner.connect() as innocent:
        token = innocent.token("hello")
        undisturbed = seconds(100)
        files = runner.descriptors()
        flood = subprocess.Popen([sys.executable, "-c", FLOOD, path])
        try:
            until(lambda: runner.descriptors() > files + 20)
            flooded = seconds(20)
        finally:
            flood.kill()
            flood.wait()
    assert flooded < 500 * undisturbed


def test_announced_bytes_that_never_come(start: Callable[..., RunnerProcess]) -> None:
    runner = start()
    with runner.connect() as connection:
        token = connection.token("hello")
        before = runner.rss()
        for _ in range(3):
            connections = [runner.connect() for _ in range(64)]
            for each in connections:
                each.sock.sendall(struct.pack(">I", 2 << 24 | MAX_PAYLOAD) + b"\0" * 1000)
            assert body_of(connection.call(token)) == b"hello"
            for each in connections:
                each.close()
        assert body_of(connection.call(token)) == b"hello"
        assert runner.rss() - before < 64 * 2**20


def test_thousands_of_connections_that_come_and_go(start: Callable[..., RunnerProcess], path: str) -> None:
    runner = start()
    with runner.connect() as idle:
        token = idle.token("hello")
        files = runner.descriptors()
        for _ in range(2000):
            Connection(path, patient=True).close()
        with runner.connect() as connection:
            assert body_of(connection.call(token)) == b"hello"
        # the idle connection is still open
        assert body_of(idle.call(token)) == b"hello"
        until(lambda: runner.descriptors() <= files)
