"""``phase="both"``: the chain runs once, parked between the request half and the response half of a request."""

import asyncio
import gc
import logging
import os
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.adapter import Call, Host, RequestCall, ResponseCall
from asgi_bridge.adapter.parked_calls import KEPT_ROUTES, MAX_PARKED, MISSED_IN_A_ROW, PARK_SECONDS, ParkedCalls
from asgi_bridge.adapter.stage import PARKED
from asgi_bridge.wire import ErrCode, ErrResp, HTTPRespCallResp, ReqBody, Rewrite, Stop, Var

from .apisix import grouped, rewritten
from .calls import REFUSED, errors, request, responding, warnings
from .phases import POST_REQ, PRE_REQ, Exchange, begin, chain, fresh_host, respond, response

TYPE = (b"content-type", b"text/plain")
LENGTH = (b"content-length", b"8")
MANY_PARKED = int(os.environ.get("PARKED_CALLS", "2000"))


def around(word: str, note: Callable[[str], None] = lambda text: None) -> ASGIApp:
    """A plugin that writes its name on the response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        note(f"{word} in")

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-by", word.encode()))
            await send(message)

        await upstream(scope, receive, sending)
        note(f"{word} out")

    return app


def bridge_of(**plugins: tuple[ASGIApp, str]) -> Bridge:
    """Plugins with their phases."""
    bridge = Bridge()
    for name, (app, phase) in plugins.items():
        bridge.mount(name, app, phase=phase)  # type: ignore[arg-type]
    return bridge


def by(exchange: Exchange) -> list[bytes]:
    """Who wrote on the response, innermost first."""
    (answer,) = exchange.answers
    return [value for name, value in answer.headers if name == b"x-by"]


async def end_of(*calls: Call) -> None:
    """Waits for the end of `calls`."""
    tasks = [call.task for call in calls if call.task is not None]
    if tasks:
        await asyncio.wait(tasks)


async def both(
    app: ASGIApp,
    message: Any = None,
    exchange: Exchange | None = None,
    *,
    host: Host | None = None,
    upstream_response: Any = None,
    response_exchange: Exchange | None = None,
    **options: Any,
) -> tuple[Any, Exchange]:
    """Both halves of one request through one plugin; gives the request half's action and the response's exchange."""
    bridge = Bridge()
    bridge.mount("p", app, phase="both", **options)
    host = host or fresh_host()
    call, action = await begin(await chain(bridge, PRE_REQ), host, message, exchange)
    answered = await respond(await chain(bridge), upstream_response or response(TYPE, LENGTH), response_exchange, host)
    await end_of(call)
    assert len(host.parked) == 0
    return action, answered


# one run


def test_a_local_variable_lives_across_the_phases() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        before = f"{scope['method']} {scope['path']}"

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-before", before.encode()))
            await send(message)

        scope["headers"].append((b"x-new", b"1"))
        await upstream(scope, receive, sending)

    exchange = Exchange()
    action, answered = asyncio.run(both(app, exchange=exchange))
    assert action == Rewrite(headers=[(b"x-new", b"1")])
    assert exchange.outcomes == ["rewrite, parked"]
    assert answered.answers == [HTTPRespCallResp(9, 200, [TYPE, (b"x-before", b"GET /x")], None)]


def test_it_runs_once_and_sees_the_real_response() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["extensions"]["apisix"]["phase"])

        async def sending(message: Message) -> None:
            seen.append({**message, "headers": list(message.get("headers", ()))})
            await send(message)

        await upstream(scope, receive, sending)

    exchange = Exchange()
    action, answered = asyncio.run(both(app, exchange=exchange))
    assert (action, exchange.outcomes) == (None, ["parked"])
    assert seen == [
        "request",
        {"type": "http.response.start", "status": 200, "headers": [TYPE, LENGTH]},
        {"type": "http.response.body", "body": b"upstream", "more_body": False, "headers": []},
    ]
    assert answered.bodies == 1


def test_one_round_trip_in_each_half() -> None:
    first, second = Exchange(), Exchange()
    asyncio.run(both(upstream, exchange=first, response_exchange=second))
    assert (len(first.asked), len(second.asked)) == (1, 1)


def test_its_scope_is_exact() -> None:
    found: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append((scope["raw_path"], scope["query_string"], scope["client"], scope["server"]))
        await upstream(scope, receive, send)

    asyncio.run(both(app, exchange=Exchange({"real_request_uri": b"/%78?a=%20"})))
    assert found == [(b"/%78", b"a=%20", ("127.0.0.1", 4711), ("10.0.0.1", 9080))]


def test_what_is_answered_in_the_request_half_is_a_stop_and_nothing_is_parked() -> None:
    app = responding(
        {"type": "http.response.start", "status": 403, "headers": [TYPE]}, {"type": "http.response.body", "body": b"no"}
    )

    async def main() -> tuple[Any, int]:
        host = fresh_host()
        _, action = await begin(await chain({"p": app}, PRE_REQ, phase="both"), host)
        return action, len(host.parked)

    assert asyncio.run(main()) == (Stop(403, [TYPE], b"no"), 0)


def test_a_gateway_that_has_gone_leaves_nothing_parked() -> None:
    async def main() -> tuple[int, list[Any]]:
        host = fresh_host()
        exchange = Exchange()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            exchange.disconnect()
            await upstream(scope, receive, send)

        call = RequestCall(request(), await chain({"p": app}, PRE_REQ, phase="both"), exchange, host)
        exchange.call = call
        await call.run()
        return len(host.parked), exchange.answers

    assert asyncio.run(main()) == (0, [])


@pytest.mark.parametrize("request_id", [None, b""])
def test_without_a_request_id_nothing_parks(request_id: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    """Two requests without one would meet each other's halves."""

    async def main() -> tuple[Any, int]:
        host = fresh_host()
        exchange = Exchange({"request_id": request_id})
        _, action = await begin(await chain({"p": around("p")}, PRE_REQ, phase="both"), host, exchange=exchange)
        return action, len(host.parked)

    assert asyncio.run(main()) == (REFUSED, 0)
    assert errors(caplog) == [
        "plugin p: request refused: the gateway gives no $request_id, by which phase='both' finds the response of a "
        "request"
    ]


# while it is parked


def test_it_is_not_told_of_a_disconnect_when_it_is_parked() -> None:
    """Its request half has been answered, but its response is not over."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listening() -> None:
            await receive()
            while (await receive())["type"] != "http.disconnect":
                raise AssertionError
            seen.append("disconnect")

        listener = asyncio.ensure_future(listening())
        await upstream(scope, receive, send)
        seen.append("response")
        await listener

    asyncio.run(both(app, request_body=False))
    assert seen == ["response", "disconnect"]


def test_the_body_that_another_task_reads_is_waited_for() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reading = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await upstream(scope, receive, send)
        seen.append(await reading)

    message = request((b"content-length", b"3"), method="POST")
    asyncio.run(both(app, message, Exchange(body=b"abc")))
    assert seen == [{"type": "http.request", "body": b"abc", "more_body": False}]


def test_body_and_variables_come_over_the_response_calls_connection() -> None:
    """Also those that were wanted while it was parked, when there is nobody to ask."""
    scopes: list[Any] = []
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append((scope, receive))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.append(await apisix(scope).var("status"))
            await send(message)

        await upstream(scope, receive, sending)

    async def main() -> tuple[Any, Any, Exchange]:
        bridge = bridge_of(p=(app, "both"))
        host = fresh_host()
        message = request((b"content-length", b"3"), method="POST")
        await begin(await chain(bridge, PRE_REQ), host, message, Exchange(body=b"of the first"))
        ((scope, receive),) = scopes
        variable = asyncio.ensure_future(apisix(scope).var("upstream_status"))
        body = asyncio.ensure_future(receive())
        second = Exchange({"upstream_status": b"201", "status": b"200"}, body=b"abc")
        await respond(await chain(bridge), response(TYPE, LENGTH), second, host)
        return await variable, await body, second

    variable, body, second = asyncio.run(main())
    assert (variable, seen) == (b"201", [b"200"])
    assert body == {"type": "http.request", "body": b"abc", "more_body": False}
    assert second.asked.count([ReqBody()]) == 1
    assert second.asked.count([Var(b"upstream_status")]) == 1


def test_a_plugin_that_does_not_wait_any_longer_answers_instead() -> None:
    """Under uvicorn its answer would leave at once; here, with the gateway's response call."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(0):
                await upstream(scope, receive, send)
        except TimeoutError:
            await send({"type": "http.response.start", "status": 504, "headers": [TYPE]})
            await send({"type": "http.response.body", "body": b"too slow"})

    async def main() -> tuple[Any, Exchange, Exchange]:
        host = fresh_host()
        first = Exchange()
        call, action = await begin(await chain({"p": app}, PRE_REQ, phase="both"), host, exchange=first)
        await end_of(call)
        answered = await respond(await chain({"p": app}, phase="both"), response(TYPE, LENGTH), None, host)
        return action, first, answered

    action, first, answered = asyncio.run(main())
    assert action is None
    assert len(first.answers) == 1
    assert answered.answers == [HTTPRespCallResp(9, 504, [TYPE], b"too slow")]


def test_a_plugin_that_fails_while_it_is_parked(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.timeout(0):
            await upstream(scope, receive, send)

    _, answered = asyncio.run(both(app))
    assert answered.answers == [REFUSED]
    assert errors(caplog) == ["plugin p: request refused: TimeoutError: "]


# after it


def test_a_fault_after_it_names_its_plugin(caplog: pytest.LogCaptureFixture) -> None:
    async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream(scope, receive, asyncio.Event().wait)  # type: ignore[arg-type]

    async def main() -> Exchange:
        bridge = bridge_of(a=(around("a"), "both"), faulty=(faulty, "auto"))
        host = fresh_host()
        await begin(await chain(bridge, PRE_REQ), host)
        return await respond(await chain(bridge), response(TYPE, LENGTH), None, host)

    assert asyncio.run(main()).answers == [REFUSED]
    assert [line.split(":")[0] for line in errors(caplog)] == ["plugin faulty"]


def test_a_fault_after_its_response_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream(scope, receive, send)
        raise KeyError("late")

    _, answered = asyncio.run(both(app))
    assert answered.answers == [HTTPRespCallResp(9, 200, [TYPE], None)]
    assert errors(caplog) == ["plugin p: a fault after its answer, which stands: KeyError: 'late'"]


def test_a_plugin_that_swallows_the_response(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def nowhere(message: Message) -> None: ...

        await upstream(scope, receive, nowhere)

    _, answered = asyncio.run(both(app))
    assert answered.answers == [REFUSED]
    assert errors(caplog) == ["plugin p: request refused: it ended without a complete response"]


def test_a_plugin_that_ends_while_it_is_parked(caplog: pytest.LogCaptureFixture) -> None:
    """The response call fails at once, and not after the plugin's timeout."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passing = asyncio.ensure_future(upstream(scope, receive, send))
        while apisix(scope)._call.stage is not PARKED:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0)
        passing.cancel()

    _, answered = asyncio.run(both(app))
    assert answered.answers == [REFUSED]
    assert errors(caplog) == ["plugin p: request refused: it ended without a complete response"]


async def resumed(app: ASGIApp, then: Callable[[ResponseCall, Exchange], None], **options: Any) -> tuple[Any, Any]:
    """A half that waits after it was resumed; `then` is done to the response call."""
    host = fresh_host()
    waiting = asyncio.Event()

    async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            waiting.set()
            await app(scope, receive, send)

        await upstream(scope, receive, sending)

    bridge = Bridge()
    bridge.mount("p", hanging, phase="both", **options)
    half, _ = await begin(await chain(bridge, PRE_REQ), host)
    exchange = Exchange()
    call = ResponseCall(response(TYPE, LENGTH), await chain(bridge), exchange, host)
    exchange.call = call
    call.task = asyncio.ensure_future(call.run())
    await waiting.wait()
    then(call, exchange)
    await end_of(call, half)
    return call, exchange


async def streams(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.Event().wait()


def test_a_half_that_streams_without_end_is_told_why(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        host, started = fresh_host(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def nowhere(message: Message) -> None: ...

            await upstream(scope, receive, nowhere)
            started.set()
            await streams(scope, receive, send)

        bridge = bridge_of(p=(app, "both"))
        half, _ = await begin(await chain(bridge, PRE_REQ), host)
        call = ResponseCall(response(TYPE, LENGTH), await chain(bridge), Exchange(), host)
        call.task = asyncio.ensure_future(call.run())
        await started.wait()
        call.expire()
        await end_of(call, half)

    asyncio.run(main())
    assert errors(caplog) == [
        "plugin p: request refused: no answer in time (option timeout: 30 s); it has begun to answer, but an answer is "
        "one message here: a stream without end cannot be sent"
    ]


def test_an_upstream_that_streams_without_end_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        host, exchange = fresh_host(), Exchange()
        bridge = bridge_of(p=(around("p"), "both"))
        half, _ = await begin(await chain(bridge, PRE_REQ), host)
        exchange = Exchange(holding=True)
        call = ResponseCall(response(TYPE), await chain(bridge), exchange, host)
        exchange.call = call
        call.task = asyncio.ensure_future(call.run())
        await asyncio.sleep(0)
        exchange.release()  # the variables, and not the body
        for _ in range(20):  # steps, until it stands where it waits
            await asyncio.sleep(0)
        assert exchange.bodies == 1
        call.expire()
        await end_of(call, half)

    asyncio.run(main())
    assert errors(caplog) == [
        "plugin p: request refused: no answer in time (option timeout: 30 s); it waits for the upstream's body, which "
        "is handed over whole: a stream without end never is; mount the plugin with response_body=False if it does not "
        "change the body"
    ]


async def for_ever(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


def test_the_response_half_has_a_timeout_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    left: list[float] = []

    def expire(call: ResponseCall, exchange: Exchange) -> None:
        left.append(call.deadline - asyncio.get_running_loop().time())
        call.expire()

    _, exchange = asyncio.run(resumed(for_ever, expire, timeout=5.0))
    assert exchange.answers == [REFUSED]
    assert 4.0 < left[0] <= 5.0
    assert errors(caplog) == ["plugin p: request refused: no answer in time (option timeout: 5 s)"]


def test_a_half_that_ignores_its_end_reaches_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The connection is the next call's by then."""
    seen: list[str] = []

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            try:
                await apisix(scope).var("x")
            except Exception as exc:
                seen.append(str(exc))
            raise KeyError("x") from None

    _, exchange = asyncio.run(resumed(stubborn, lambda call, exchange: call.expire()))
    assert seen == ["the gateway cannot be asked any more: it does not wait for this call"]
    assert exchange.answers == [REFUSED]
    assert errors(caplog) == ["plugin p: request refused: no answer in time (option timeout: 30 s)"]


def test_a_plugin_between_two_halves_that_ignores_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Exchange:
        started, ended = asyncio.Event(), asyncio.Event()

        async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"late"})
            ended.set()

        bridge = bridge_of(a=(around("a"), "both"), stubborn=(stubborn, "response"))
        host = fresh_host()
        await begin(await chain(bridge, PRE_REQ, ["a"]), host)
        exchange = Exchange()
        call = ResponseCall(response(TYPE, LENGTH), await chain(bridge), exchange, host)
        call.task = asyncio.ensure_future(call.run())
        await started.wait()
        call.expire()
        await end_of(call)
        await ended.wait()
        return exchange

    assert asyncio.run(main()).answers == [REFUSED]
    assert errors(caplog) == ["plugin stubborn: request refused: no answer in time (option timeout: 30 s)"]


def test_no_deadline_while_it_is_parked() -> None:
    async def main() -> float:
        half, _ = await begin(await chain({"p": upstream}, PRE_REQ, phase="both", timeout=5.0), fresh_host())
        deadline = half.deadline
        half.abandon()
        return deadline

    assert asyncio.run(main()) == float("inf")


def test_the_gateway_goes_away_in_the_response_half() -> None:
    seen: list[str] = []

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        seen.append((await receive())["type"])
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        except OSError as exc:
            seen.append(str(exc))
            raise

    _, exchange = asyncio.run(resumed(listening, lambda call, exchange: exchange.disconnect(), request_body=False))
    assert seen == ["http.disconnect", "the gateway has closed the connection"]
    assert exchange.answers == []


# several lists, several plugins


def test_halves_of_both_request_phases_the_latter_first() -> None:
    notes: list[str] = []

    async def main() -> Exchange:
        bridge = bridge_of(a=(around("a", notes.append), "both"), b=(around("b", notes.append), "both"))
        host = fresh_host()
        await begin(await chain(bridge, PRE_REQ, ["a"]), host)
        await begin(await chain(bridge, POST_REQ, ["b"]), host)
        return await respond(await chain(bridge), response(TYPE, LENGTH), None, host)

    assert by(asyncio.run(main())) == [b"b", b"a"]
    assert notes == ["a in", "b in", "b out", "a out"]


def test_a_plugin_in_both_request_phases_runs_twice() -> None:
    async def main() -> tuple[list[bytes], int]:
        bridge = bridge_of(a=(around("a"), "both"))
        host = fresh_host()
        await begin(await chain(bridge, PRE_REQ), host)
        await begin(await chain(bridge, POST_REQ), host)
        return by(await respond(await chain(bridge), response(TYPE, LENGTH), None, host)), len(host.parked)

    assert asyncio.run(main()) == ([b"a", b"a"], 0)


@pytest.mark.parametrize(
    ("listed", "order"),
    [
        ("form both form2", [b"form2", b"both", b"form"]),
        ("both form form2", [b"form2", b"form", b"both"]),
        ("form form2 both", [b"both", b"form2", b"form"]),
    ],
)
def test_three_plugins_of_which_one_ran_in_the_request(listed: str, order: list[bytes]) -> None:
    async def main() -> Exchange:
        bridge = bridge_of(
            form=(around("form"), "response"), both=(around("both"), "both"), form2=(around("form2"), "auto")
        )
        host = fresh_host()
        await begin(await chain(bridge, PRE_REQ, ["both"]), host)
        return await respond(await chain(bridge, names=listed.split()), response(TYPE, LENGTH), None, host)

    exchange = asyncio.run(main())
    assert by(exchange) == order
    assert exchange.bodies == 1


def test_a_list_parks_whole() -> None:
    async def main() -> list[bytes]:
        bridge = bridge_of(a=(around("a"), "auto"), b=(around("b"), "both"), c=(around("c"), "response"))
        host = fresh_host()
        await begin(await chain(bridge, PRE_REQ, ["a", "b"]), host)
        return by(await respond(await chain(bridge, names=["a", "c", "b"]), response(TYPE, LENGTH), None, host))

    # the half stands where its first plugin is listed
    assert asyncio.run(main()) == [b"c", b"b", b"a"]


def test_a_fault_of_a_plugin_between_two_halves(caplog: pytest.LogCaptureFixture) -> None:
    async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("x")

    async def main() -> tuple[Exchange, int]:
        bridge = bridge_of(a=(around("a"), "both"), faulty=(faulty, "response"), b=(around("b"), "both"))
        host = fresh_host()
        first, _ = await begin(await chain(bridge, PRE_REQ, ["a"]), host)
        second, _ = await begin(await chain(bridge, POST_REQ, ["b"]), host)
        exchange = await respond(await chain(bridge), response(TYPE, LENGTH), None, host)
        await end_of(first, second)
        return exchange, len(host.parked)

    exchange, parked = asyncio.run(main())
    assert (exchange.answers, parked) == ([REFUSED], 0)
    assert errors(caplog) == ["plugin faulty: request refused: KeyError: 'x'"]


def test_a_plugin_between_two_halves_has_a_deadline(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> tuple[Exchange, float]:
        started = asyncio.Event()

        async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
            started.set()
            await asyncio.Event().wait()

        bridge = bridge_of(a=(around("a"), "both"))
        bridge.mount("hanging", hanging, phase="response", timeout=5.0)
        host = fresh_host()
        half, _ = await begin(await chain(bridge, PRE_REQ, ["a"]), host)
        exchange = Exchange()
        call = ResponseCall(response(TYPE, LENGTH), await chain(bridge), exchange, host)
        call.task = asyncio.ensure_future(call.run())
        await started.wait()
        left = call.deadline - asyncio.get_running_loop().time()
        call.expire()
        await end_of(call, half)
        await asyncio.sleep(0)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        return exchange, left

    exchange, left = asyncio.run(main())
    assert exchange.answers == [REFUSED]
    assert 4.0 < left <= 5.0
    assert errors(caplog) == ["plugin hanging: request refused: no answer in time (option timeout: 5 s)"]


def test_the_gateway_goes_away_from_a_plugin_between_two_halves() -> None:
    seen: list[str] = []

    async def main() -> Exchange:
        exchange = Exchange()

        async def listening(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            exchange.disconnect()
            seen.append((await receive())["type"])
            await upstream(scope, receive, send)

        bridge = bridge_of(a=(around("a"), "both"))
        bridge.mount("listening", listening, phase="response", request_body=False)
        host = fresh_host()
        half, _ = await begin(await chain(bridge, PRE_REQ, ["a"]), host)
        await respond(await chain(bridge), response(TYPE, LENGTH), exchange, host)
        await end_of(half)
        return exchange

    assert asyncio.run(main()).answers == []
    assert seen == ["http.disconnect"]


def test_a_fault_behind_the_answer_of_a_plugin_between(caplog: pytest.LogCaptureFixture) -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream(scope, receive, send)
        raise KeyError("late")

    async def main() -> Exchange:
        bridge = bridge_of(a=(around("a"), "both"), late=(late, "response"))
        host = fresh_host()
        await begin(await chain(bridge, PRE_REQ, ["a"]), host)
        return await respond(await chain(bridge), response(TYPE, LENGTH), None, host)

    assert by(asyncio.run(main())) == [b"a"]
    assert errors(caplog) == ["plugin late: a fault after its answer, which stands: KeyError: 'late'"]


def test_an_outer_plugin_that_answers_itself_ends_the_half_inside() -> None:
    answer = responding(
        {"type": "http.response.start", "status": 200, "headers": [TYPE]},
        {"type": "http.response.body", "body": b"mine"},
    )

    async def main() -> tuple[Any, bool, int]:
        bridge = bridge_of(cache=(answer, "response"), a=(around("a"), "both"))
        host = fresh_host()
        half, _ = await begin(await chain(bridge, PRE_REQ, ["a"]), host)
        exchange = await respond(await chain(bridge), response(TYPE, LENGTH), None, host)
        await end_of(half)
        return exchange.answers[0].body, half.waits, len(host.parked)

    assert asyncio.run(main()) == (b"mine", False, 0)


def test_calling_inwards_twice_past_a_half(caplog: pytest.LogCaptureFixture) -> None:
    async def twice(scope: Scope, receive: Receive, send: Send) -> None:
        async def nowhere(message: Message) -> None: ...

        await upstream(scope, receive, nowhere)
        await upstream(scope, receive, send)

    async def main() -> Exchange:
        bridge = bridge_of(twice=(twice, "response"), a=(around("a"), "both"))
        host = fresh_host()
        await begin(await chain(bridge, PRE_REQ, ["a"]), host)
        return await respond(await chain(bridge), response(TYPE, LENGTH), None, host)

    assert asyncio.run(main()).answers == [REFUSED]
    assert errors(caplog) == ["plugin twice: request refused: its request half has ended"]


def test_a_consumer_changes_the_key_between_the_halves() -> None:
    async def main() -> list[bytes]:
        bridge = bridge_of(a=(around("a"), "both"))
        host = fresh_host()
        await begin(await chain(bridge, PRE_REQ), host)
        key = b"route&consumer#7&jack#ext-plugin-post-resp#1&1"
        return by(await respond(await chain(bridge, key), response(TYPE, LENGTH), None, host))

    assert asyncio.run(main()) == [b"a"]


def test_the_halves_of_different_requests_are_not_mixed_up() -> None:
    async def main() -> list[Any]:
        seen: list[Any] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope["path"]

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    seen.append((path, dict(message["headers"])[b"x-path"].decode()))
                await send(message)

            await upstream(scope, receive, sending)

        bridge = bridge_of(p=(app, "both"))
        requests, responses = await chain(bridge, PRE_REQ), await chain(bridge)
        host = fresh_host()
        for number in range(20):
            exchange = Exchange({"request_id": b"r%d" % number})
            await begin(requests, host, request(path=b"/%d" % number), exchange)
        for number in reversed(range(20)):
            exchange = Exchange({"request_id": b"r%d" % number})
            await respond(responses, response(TYPE, LENGTH, (b"x-path", b"/%d" % number)), exchange, host)
        return seen

    assert asyncio.run(main()) == [(f"/{number}", f"/{number}") for number in reversed(range(20))]


# the half is gone


@pytest.mark.parametrize(("on_missing", "found"), [("rerun", [b"a"]), ("refuse", None)])
def test_the_request_half_is_gone(on_missing: Any, found: list[bytes] | None, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Exchange:
        return await respond(
            await chain({"a": around("a")}, phase="both", on_missing=on_missing), response(TYPE, LENGTH)
        )

    exchange = asyncio.run(main())
    if found is None:
        assert exchange.answers == [REFUSED]
        assert errors(caplog) == [
            "plugin a: request refused: plugin a: its request half is gone, and on_missing is 'refuse'"
        ]
    else:
        assert by(exchange) == found


class Car:
    """What the lot knows of a call."""

    def __init__(self, request_id: str, *names: str, route_id: str = "7") -> None:
        self.route_id: str | None = route_id
        self.request_id: str | None = request_id
        self.names = names or ("a",)
        self.abandoned = False

    def abandon(self) -> None:
        self.abandoned = True


async def in_a_lot(test: Callable[[], Any]) -> Any:
    return test()


def test_the_lot_is_bounded_in_number(caplog: pytest.LogCaptureFixture) -> None:
    """The oldest end, which is said once, until there is room again."""

    def test() -> list[Any]:
        lot = ParkedCalls(limit=4)
        cars = [Car(f"r{number}") for number in range(7)]
        for car in cars:
            lot.park(car)
        found: list[Any] = [[car.abandoned for car in cars], len(lot), len(warnings(caplog))]
        for car in cars[:5]:
            lot.remove(car)
        for number in range(3):
            lot.park(Car(f"s{number}"))
        return [*found, len(lot), len(warnings(caplog))]

    assert asyncio.run(in_a_lot(test)) == [[True] * 3 + [False] * 4, 4, 1, 4, 2]
    assert (
        warnings(caplog)
        == [
            "plugin a: a parked call was ended early, since 4 are parked; so will be the oldest of all that come on top"
        ]
        * 2
    )


def test_the_lot_is_bounded_in_time() -> None:
    def test() -> list[Any]:
        now = asyncio.get_running_loop().time()
        lot = ParkedCalls(seconds=10.0)
        car = Car("r")
        lot.park(car)
        lot.sweep(now + 9.0)
        before = car.abandoned
        lot.sweep(now + 11.0)
        return [before, car.abandoned, len(lot), lot.take("7", "r", ["a"])]

    assert asyncio.run(in_a_lot(test)) == [False, True, 0, []]
    assert PARK_SECONDS > 60.0, "longer than APISIX waits for an upstream"


NEVER = (
    "plugin a, b: no response call came for route 7: list it in ext-plugin-post-resp of that route too; until one "
    "comes it runs there as in the request phase alone"
)


def test_a_route_that_never_sends_its_response_half_is_told_of_once_and_parks_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def test() -> list[Any]:
        later = asyncio.get_running_loop().time() + 100
        lot = ParkedCalls()
        cars = [Car(f"r{number}", "a", "b") for number in range(3)]
        for car in cars:
            lot.park(car)
        admitted = [lot.admits(Car("r", "a", "b"))]
        lot.sweep(later)
        admitted += [
            lot.admits(Car("r", "a", "b")),
            lot.admits(Car("r", "a", "b", route_id="8")),
            lot.admits(Car("r", "c")),
        ]
        lot.take("7", "r9", ["a", "b"])
        return [*admitted, lot.admits(Car("r", "a", "b"))]

    assert asyncio.run(in_a_lot(test)) == [True, False, True, True, True]
    assert warnings(caplog) == [NEVER]


def test_a_request_whose_upstream_failed_says_nothing_about_its_route(caplog: pytest.LogCaptureFixture) -> None:
    def test() -> bool:
        lot = ParkedCalls()
        lot.take("7", "r1", ["a"])
        lot.park(Car("r2"))
        lot.sweep(asyncio.get_running_loop().time() + 100)
        return lot.admits(Car("r3"))

    assert asyncio.run(in_a_lot(test)) is True
    assert warnings(caplog) == []


class Clock:
    """Monotonic seconds, as fast as a test wants them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("asgi_bridge.adapter.parked_calls.monotonic", lambda: self.now)


@pytest.mark.parametrize("rate", [1, 200, 5000])
def test_a_busy_route_that_never_sends_its_response_half_is_told_of_too(
    rate: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At more than 10,000 in 75 seconds no half gets old: the oldest are ended before."""
    clock, lot = Clock(monkeypatch), ParkedCalls()
    parked = 0
    for number in range(rate * 100):
        car = Car(f"r{number}", "a", "b")
        if lot.admits(car):
            lot.park(car)
            parked += 1
        clock.now += 1 / rate
        lot.sweep(clock.now)
    assert parked <= max(75 * rate, 10_000) + 1 and not lot.admits(Car("r", "a", "b"))
    assert warnings(caplog).count(NEVER) == 1


def test_a_burst_before_the_first_response_says_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, lot = Clock(monkeypatch), ParkedCalls(limit=10)
    for number in range(100):
        lot.park(Car(f"r{number}"))
        clock.now += 0.001
    assert lot.admits(Car("r")) and NEVER.replace("a, b", "a") not in warnings(caplog)


def test_a_route_that_does_not_send_its_response_half_any_longer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, lot = Clock(monkeypatch), ParkedCalls()
    lot.take("7", "r", ["a"])
    admitted = []
    for number in range(MISSED_IN_A_ROW + 1):
        admitted.append(lot.admits(Car("r")))
        lot.park(Car(f"r{number}"))
        clock.now += PARK_SECONDS + 1
        lot.sweep(clock.now)
    assert admitted == [True] * (MISSED_IN_A_ROW + 1), "the upstream may be down, and come back"
    assert warnings(caplog) == [
        "plugin a: no response call came for the last 100 requests of route 7: is the upstream down, or the plugin not "
        "listed in ext-plugin-post-resp any longer?"
    ]


def test_a_route_that_does_not_send_it_any_longer_does_not_push_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lot = Clock(monkeypatch), ParkedCalls(limit=100)
    lot.take("7", "r", ["a"])
    number = 0
    while lot.admits(Car("r")):
        lot.park(Car(f"r{number}"))
        number += 1
        clock.now += 0.1
    assert number <= 100 + MISSED_IN_A_ROW


def test_a_list_with_plugins_of_the_request_phase_parks_again_when_a_response_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, lot = Clock(monkeypatch), ParkedCalls()
    lot.park(Car("r1", "auth", "both"))
    clock.now += PARK_SECONDS + 1
    lot.sweep(clock.now)
    admitted = [lot.admits(Car("r2", "auth", "both"))]
    lot.take("7", "r2", ["both"])
    assert [*admitted, lot.admits(Car("r3", "auth", "both"))] == [False, True]


def test_a_half_of_a_global_rule_whose_response_comes_from_a_route(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lot = Clock(monkeypatch), ParkedCalls()

    def rule(request_id: str) -> Car:
        car = Car(request_id)
        car.route_id = None
        return car

    lot.park(rule("r1"))
    clock.now += PARK_SECONDS + 1
    lot.sweep(clock.now)
    admitted = [lot.admits(rule("r2"))]
    lot.take("7", "r2", ["a"])
    admitted.append(lot.admits(rule("r3")))
    half = rule("r3")
    lot.park(half)
    taken = lot.take("7", "r3", ["a"])
    lot.park(rule("r4"))
    clock.now += PARK_SECONDS + 1
    lot.sweep(clock.now)  # one that was missed, of many that were not
    assert (admitted, taken, lot.admits(rule("r5"))) == ([False, True], [half], True)


def test_what_is_remembered_of_routes_is_bounded() -> None:
    lot = ParkedCalls()
    for number in range(KEPT_ROUTES + 100):
        lot.take(f"{number}", "r", ["a"])
        lot.park(Car(f"r{number}", route_id=f"x{number}"))
    lot.sweep(float("inf"))
    assert (len(lot._missed), len(lot._unanswered)) == (KEPT_ROUTES, KEPT_ROUTES)


def test_the_defaults() -> None:
    assert (MAX_PARKED, PARK_SECONDS) == (10_000, 75.0)


def test_at_the_end_of_the_process_all_are_ended() -> None:
    def test() -> tuple[list[bool], int]:
        lot = ParkedCalls()
        cars = [Car("r1"), Car("r1"), Car("r2")]
        for car in cars:
            lot.park(car)
        lot.close()
        lot.remove(cars[0])
        return [car.abandoned for car in cars], len(lot)

    assert asyncio.run(in_a_lot(test)) == ([True, True, True], 0)


def test_an_abandoned_call_is_told_and_cancelled() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listening() -> None:
            await receive()
            seen.append((await receive())["type"])
            with pytest.raises(Exception, match="the gateway cannot be asked any more"):
                await apisix(scope).var("x")
            seen.append("no variables")

        listener = asyncio.ensure_future(listening())
        try:
            await upstream(scope, receive, send)
        except asyncio.CancelledError:
            await listener
            seen.append("cancelled")
            raise

    async def main() -> None:
        host = fresh_host()
        call, _ = await begin(await chain({"p": app}, PRE_REQ, phase="both", request_body=False), host)
        host.parked.close()
        await end_of(call)

    asyncio.run(main())
    assert seen == ["http.disconnect", "no variables", "cancelled"]


def test_an_abandoned_call_that_will_not_end_bothers_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await upstream(scope, receive, send)
        except asyncio.CancelledError:
            await send({"type": "http.response.start", "status": 500, "headers": []})

    async def main() -> None:
        host = fresh_host()
        call, _ = await begin(await chain({"p": app}, PRE_REQ, phase="both"), host)
        host.parked.close()
        await end_of(call)

    asyncio.run(main())
    assert errors(caplog) == []


def test_a_shutdown_ends_a_parked_call_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> tuple[int, Exchange]:
        host = fresh_host()
        bridge = bridge_of(p=(upstream, "both"))
        call, _ = await begin(await chain(bridge, PRE_REQ), host)
        assert call.task is not None
        call.task.cancel()
        await end_of(call)
        # its response call, if one comes at this moment
        exchange = await respond(await chain(bridge), response(TYPE, LENGTH), None, host)
        return len(host.parked), exchange

    parked, exchange = asyncio.run(main())
    assert parked == 0
    assert exchange.answers == [REFUSED]
    assert errors(caplog) == ["plugin p: request refused: it was cut off by the shutdown"]


# what APISIX's own fetch cannot carry


def test_a_chunked_request_body_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Any:
        message = request((b"transfer-encoding", b"chunked"), method="POST")
        return (await begin(await chain({"p": upstream}, PRE_REQ, phase="both"), fresh_host(), message))[1]

    action = asyncio.run(main())
    assert action == Stop(
        411, [(b"content-type", b"text/plain; charset=utf-8")], b"a request body needs a content-length here\n"
    )
    assert warnings(caplog) == [
        "plugin p: request refused with 411: APISIX hangs in ext-plugin-post-resp on a chunked request body"
    ]


def changing_the_body(body: bytes, *, swallow: bool = False) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def changed() -> Message:
            return {**await receive(), "body": body}

        try:
            await upstream(scope, changed, send)
        except Exception:
            if not swallow:
                raise
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    return app


@pytest.mark.parametrize("swallow", [False, True])
def test_a_request_body_of_another_length_is_refused(swallow: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Any:
        message = request((b"content-length", b"3"), method="POST")
        plugins = await chain({"p": changing_the_body(b"longer", swallow=swallow)}, PRE_REQ, phase="both")
        return (await begin(plugins, fresh_host(), message, Exchange(body=b"abc")))[1]

    assert asyncio.run(main()) == REFUSED
    assert errors(caplog) == [
        "plugin p: request refused: the length of the request body was changed; APISIX hangs on that in "
        "ext-plugin-post-resp. Change the body in a plugin of the request phase, on a route without "
        "ext-plugin-post-resp"
    ]


def test_a_request_body_of_the_same_length_may_be_changed() -> None:
    message = request((b"content-length", b"3"), method="POST")
    action, _ = asyncio.run(both(changing_the_body(b"xyz"), message, Exchange(body=b"abc")))
    assert action == Rewrite(body=b"xyz")


@pytest.mark.parametrize(
    ("path", "uri", "cures", "action"),
    [
        (b"/a b?c", b"/a b?c", True, Rewrite(path=b"/a b?c")),
        (b"/a b?c", b"/a b?c", False, None),
        (b"/plain", b"/plain", True, None),
        # another plugin has rewritten it: what the gateway tells is encoded
        (b"/a%20b", b"/", True, None),
    ],
)
def test_a_path_that_needs_escaping_is_rewritten_to_itself(path: bytes, uri: bytes, cures: bool, action: Any) -> None:
    found, _ = asyncio.run(both(upstream, request(path=path), Exchange({"uri": uri}), cures=cures))
    assert found == action


@pytest.mark.parametrize(
    ("query", "args", "cures", "sent"),
    [
        (b"a=<b", [(b"a", b"<b")], True, [(b"_", None)]),
        (b"a=b%3E>", [(b"a", b"b>>")], True, [(b"_", None)]),
        (b"`", [(b"`", None)], True, [(b"_", None)]),
        (b"flag&_=<&__&a=1&a=2", [(b"flag", None), (b"_", b"<"), (b"__", None), (b"a", b"1"), (b"a", b"2")], True,
         [(b"___", None)]),
        (b"a=<b", [(b"a", b"<b")], False, None),
        # these pass as they are
        (b"a=%3Cb", [(b"a", b"<b")], True, None),
        (b'a="{|}^\\', [(b"a", b'"{|}^\\')], True, None),
        (b"a=1", [(b"a", b"1")], True, None),
        # APISIX drops what has no name, and a query of nothing else cannot be saved
        (b"=<", None, True, None),
    ],
)  # fmt: skip
def test_a_query_that_apisix_refuses_to_fetch_is_encoded_again(query: bytes, args: Any, cures: bool, sent: Any) -> None:
    exchange = Exchange({"real_request_uri": b"/x?" + query})
    found, _ = asyncio.run(both(upstream, request(args=args), exchange, cures=cures))
    assert found == (None if sent is None else Rewrite(args=sent))
    # the arguments stay as they are
    assert rewritten(request(args=args), None, found)[1] == grouped(args)


def test_a_changed_query_is_encoded_anyway() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream({**scope, "query_string": scope["query_string"] + b"&b=`"}, receive, send)

    exchange = Exchange({"real_request_uri": b"/x?a=<"})
    found, _ = asyncio.run(both(app, request(args=[(b"a", b"<")]), exchange))
    assert found == Rewrite(args=[(b"b", b"`")])


def test_path_and_query_that_apisix_refuses_to_fetch() -> None:
    exchange = Exchange({"real_request_uri": b"/a%20b?a=<", "uri": b"/a b"})
    found, _ = asyncio.run(both(upstream, request(path=b"/a b", args=[(b"a", b"<")]), exchange))
    assert found == Rewrite(path=b"/a b", args=[(b"_", None)])


def test_an_answer_that_does_not_fit_into_a_frame_is_not_parked(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"].append((b"x-long", b"x" * (1 << 24)))
        await upstream(scope, receive, send)

    async def main() -> tuple[Any, int]:
        host = fresh_host()
        _, action = await begin(await chain({"p": app}, PRE_REQ, phase="both"), host)
        return action, len(host.parked)

    assert asyncio.run(main()) == (ErrResp(ErrCode.SERVICE_UNAVAILABLE), 0)
    assert len(errors(caplog)) == 1


# memory


async def raising_late(scope: Scope, receive: Receive, send: Send) -> None:
    async def sending(message: Message) -> None:
        raise KeyError("x")

    await upstream(scope, receive, sending)


@pytest.mark.parametrize("app", [upstream, around("a"), raising_late])
@pytest.mark.parametrize("halves", [1, 2])
def test_both_halves_are_freed_without_the_garbage_collector(app: ASGIApp, halves: int) -> None:
    async def main() -> list[Any]:
        bridge = bridge_of(a=(app, "both"), form=(around("form"), "response"), b=(app, "both"), end=(app, "response"))
        requests, last = await chain(bridge, PRE_REQ, ["a"]), await chain(bridge, POST_REQ, ["b"])
        responses = await chain(bridge)
        host = fresh_host()
        calls = [(await begin(requests, host))[0]]
        if halves == 2:
            calls.append((await begin(last, host))[0])
        exchange = Exchange()
        response_call = ResponseCall(response(TYPE, LENGTH), responses, exchange, host)
        response_call.task = asyncio.ensure_future(response_call.run())
        await response_call.task
        for call in calls:
            await end_of(call)
        await asyncio.sleep(0)
        dead = [weakref.ref(call) for call in [*calls, response_call]]
        for call in calls:
            call._connection.call = None  # type: ignore[attr-defined]
            call.task = None
        response_call.task = None
        calls.clear()
        del call, response_call
        return [ref() for ref in dead]

    gc.collect()
    gc.disable()
    logging.disable()  # a record holds the exception, and so the frames
    try:
        assert asyncio.run(main()) == [None] * (halves + 1)
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


def test_very_many_parked_calls_whose_response_never_comes(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        lot = ParkedCalls(limit=2 * MANY_PARKED)
        host = Host(fresh_host().app, parked=lot)
        plugins = await chain({"p": around("p")}, PRE_REQ, phase="both")
        loop = asyncio.get_running_loop()

        async def park(number: int) -> None:
            call, _ = await begin(plugins, host, exchange=Exchange({"request_id": b"%d" % number}))
            call._connection.call = None  # type: ignore[attr-defined]

        await park(-1)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(MANY_PARKED):
                await park(number)
            assert (len(lot), plugins.calls) == (MANY_PARKED + 1, MANY_PARKED + 1)
            full, _ = tracemalloc.get_traced_memory()
            lot.sweep(loop.time() + PARK_SECONDS + 1)
            for _ in range(5):  # cancelled, resumed, done
                await asyncio.sleep(0)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        assert (len(lot), plugins.calls) == (0, 0)
        assert full - before < MANY_PARKED * 20_000
        assert after - before < (full - before) / 20

    asyncio.run(main())
    assert warnings(caplog) == [NEVER.replace("a, b", "p")]
