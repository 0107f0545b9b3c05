"""Many calls that fail leave nothing behind. LEAK_CALLS=100000 makes more of them."""

import json
import os
from collections.abc import Callable

from asgi_bridge.wire import ErrCode, ErrResp, ExtraInfoReq, frame

from ..doubles.connection import BAD_REQUEST, NOT_FOUND, UNAVAILABLE, Connection, body_of, request
from ..doubles.runner_process import RunnerProcess
from ..doubles.waiting import until

CALLS = int(os.environ.get("LEAK_CALLS", "5000"))


def fail(connections: list[Connection], tokens: dict[str, int], runner: RunnerProcess) -> int:
    """Make calls of each kind on each connection, and return their number."""
    for plugin, expected in (("raising", UNAVAILABLE), ("silent", UNAVAILABLE), ("unknown", NOT_FOUND)):
        for connection in connections:
            connection.begin(tokens[plugin])
        assert [connection.receive() for connection in connections] == [expected] * len(connections)
    for connection in connections:
        connection.begin(tokens["hello"])
    assert [body_of(connection.receive()) for connection in connections] == [b"hello"] * len(connections)
    for connection in connections:
        connection.session.send(request(1))
        connection.sock.sendall(frame(2, b"\xff" * 40))
    assert [connection.receive() for connection in connections] == [BAD_REQUEST] * len(connections)
    for connection in connections:
        connection.begin(tokens["asking"])
    for connection in connections:
        assert isinstance(connection.receive(), ExtraInfoReq)
        connection.send(ErrResp(ErrCode.SERVICE_UNAVAILABLE))
    assert [connection.receive() for connection in connections] == [UNAVAILABLE] * len(connections)
    with runner.connect() as leaving:
        leaving.begin(tokens["asking"])
        assert isinstance(leaving.receive(), ExtraInfoReq)
    return 6 * len(connections) + 1


def test_calls_that_fail_leave_nothing(start: Callable[..., RunnerProcess]) -> None:
    runner = start("--log-level", "critical")
    connections = [runner.connect() for _ in range(16)]
    watch = runner.connect()
    tokens = {plugin: watch.token(plugin) for plugin in ("raising", "silent", "hello", "census")}
    tokens |= {"asking": watch.token("asking", ["a"]), "unknown": 4711}

    def census() -> dict[str, int]:
        found: dict[str, int] = json.loads(body_of(watch.call(tokens["census"])))
        return found

    before = census()
    files = runner.descriptors()
    calls = early = 0
    while calls < CALLS:
        calls += fail(connections, tokens, runner)
        if not early and calls >= CALLS // 4:
            early = runner.rss()
    until(lambda: census() == before)
    assert runner.rss() - early < 8 * 2**20
    until(lambda: runner.descriptors() <= files)
    for connection in (*connections, watch):
        connection.close()
