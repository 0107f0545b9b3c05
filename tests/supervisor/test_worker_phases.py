"""Plugins of ``phase="both"`` in several workers: all calls of a request meet in one of them."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from asgi_bridge.gateway import GatewayApp, read_routes
from asgi_bridge.gateway.runner.connection import Limits

from ..doubles.clients import UPSTREAM, client_of
from ..doubles.runner_process import RunnerProcess
from ..doubles.waiting import until
from . import HERE

Start = Callable[..., RunnerProcess]

CALLS = int(os.environ.get("BOTH_CALLS", "600"))
CONCURRENT = 64
PATIENT = Limits(connect=60.0)
"""On a busy machine this process may not run for a second."""


@pytest.fixture
def runner(start: Start) -> RunnerProcess:
    runner = start("--workers", "3", target="several:both", app_dir=str(HERE))
    for _ in range(3):
        runner.line_with("takes calls")
    return runner


def lists(**plugins: list[str]) -> dict[str, Any]:
    return {
        f"ext-plugin-{phase.replace('_', '-')}": {"conf": [{"name": name, "value": "{}"} for name in names]}
        for phase, names in plugins.items()
    }


def gateway_of(runner: RunnerProcess, upstream: Any, rule: dict[str, Any], route: dict[str, Any]) -> GatewayApp:
    data = {
        "routes": [{"id": "7", "uri": "/*", "plugins": route, "upstream": UPSTREAM}],
        "global_rules": [{"id": "1", "plugins": rule}] if rule else [],
    }
    return GatewayApp(read_routes(data), runner.path, upstream=upstream, limits=PATIENT)


async def numbered(scope: Scope, receive: Receive, send: Send) -> None:
    for _ in range(int(scope["path"][1:]) % 5):  # other requests may overtake this one
        await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


def test_no_two_requests_are_mixed_up(runner: RunnerProcess) -> None:
    gateway = gateway_of(
        runner, numbered, lists(pre_req=["rule"]),
        lists(pre_req=["pre"], post_req=["post"], post_resp=["rule", "pre", "post"]),
    )  # fmt: skip
    processes: Counter[str] = Counter()
    wrong: list[Any] = []

    async def main() -> None:
        numbers = iter(range(CALLS))
        async with client_of(gateway) as client:

            async def ask() -> None:
                for number in numbers:
                    answer = await client.get(f"/{number}")
                    found = {answer.headers.get(f"x-{name}") for name in ("rule", "pre", "post")}
                    (one,) = found if len(found) == 1 else (None,)
                    path, first, process, phase = (one or "- - - -").split()
                    if (path, first, phase) == (f"/{number}", f"/{number}", "request"):
                        processes[process] += 1
                    else:
                        wrong.append((number, answer.status_code, found))

            await asyncio.gather(*[ask() for _ in range(CONCURRENT)])

    asyncio.run(main())
    assert wrong == []
    assert processes.total() == CALLS and len(processes) == 3
    assert "ERROR" not in runner.log and "WARNING" not in runner.log


@pytest.mark.parametrize(("name", "status", "phase"), [("pre", 200, "response"), ("strict", 503, None)])
def test_a_worker_that_is_killed_with_parked_halves(
    runner: RunnerProcess, name: str, status: int, phase: str | None
) -> None:
    """The client gets the upstream's response, changed by the response form, or is refused if the plugin says so."""
    killing = True

    async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
        if killing:
            killed = children(runner)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            while children(runner) & killed:  # noqa: ASYNC110  # they end at any time
                await asyncio.sleep(0.01)
        await numbered(scope, receive, send)

    gateway = gateway_of(runner, upstream, {}, lists(pre_req=[name], post_resp=[name]))

    async def main() -> tuple[Any, Any]:
        nonlocal killing
        async with client_of(gateway) as client:
            first = await client.get("/1")
            killing = False
            return first, await client.get("/2")

    first, second = asyncio.run(main())
    assert first.status_code == status
    assert first.headers.get(f"x-{name}", "").rpartition(" ")[2] == (phase or "")
    assert (second.status_code, second.headers[f"x-{name}"].rpartition(" ")[2]) == (200, "request")


def children(runner: RunnerProcess) -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()}


def test_a_worker_that_retires_waits_for_its_parked_calls(runner: RunnerProcess) -> None:
    before = children(runner)

    async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/1":
            runner.process.send_signal(signal.SIGHUP)
            while runner.log.count("takes calls") < 4:  # noqa: ASYNC110  # the new worker is ready at any time
                await asyncio.sleep(0.01)
        await numbered(scope, receive, send)

    gateway = gateway_of(runner, upstream, {}, lists(pre_req=["pre"], post_resp=["pre"]))

    async def main() -> Any:
        async with client_of(gateway) as client:
            return await client.get("/1")

    answer = asyncio.run(main())
    path, _, process, phase = answer.headers["x-pre"].split()
    assert (path, phase) == ("/1", "request") and int(process) in before
    until(lambda: not children(runner) & before)


@pytest.mark.parametrize("requests", [1, 12])
def test_halves_that_wait_in_a_predecessor_are_resumed_there(
    runner: RunnerProcess, start: Start, requests: int
) -> None:
    """The response calls reach the successor. Several of them may be in the same connection, one after the other."""
    before = children(runner)
    waiting = 0
    taken_over = asyncio.Event()

    async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == requests:
            successor = start("--workers", "2", target="several:both", app_dir=str(HERE))
            while "Runner listens on" not in successor.log:  # noqa: ASYNC110  # another process writes it
                await asyncio.sleep(0.01)
            taken_over.set()
        await taken_over.wait()
        await numbered(scope, receive, send)

    gateway = gateway_of(
        runner, upstream, lists(pre_req=["rule"]), lists(pre_req=["pre"], post_resp=["rule", "pre"])
    )  # fmt: skip

    async def main() -> list[Any]:
        async with client_of(gateway) as client:
            answers = await asyncio.gather(*[client.get(f"/{number}") for number in range(requests)])
            return [*answers, await client.get("/99")]

    *answers, last = asyncio.run(main())
    for number, answer in enumerate(answers):
        for name in ("rule", "pre"):
            path, _, process, phase = answer.headers[f"x-{name}"].split()
            assert (path, phase, int(process) in before) == (f"/{number}", "request", True)
    assert int(last.headers["x-pre"].split()[2]) not in before
    assert runner.wait() == 0 and not runner.left()
