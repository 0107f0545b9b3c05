"""Shadows: what they would have done is told, and the call is answered as if they were not there."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.adapter import Host, ResponseCall
from asgi_bridge.adapter.shadow import MAX_BODY, shadow_run
from asgi_bridge.plugins import Chain, build_chain
from asgi_bridge.plugins.shadow_record import MAX_IN_FLIGHT
from asgi_bridge.wire import HTTPReqCallReq, HTTPReqCallResp, HTTPRespCallReq, ReqBody, RespBody, Rewrite, Stop, Var

from .calls import KEY, Gateway, passing, request, responding, run
from .phases import POST_RESP, Exchange, response

HOST = Host(Starlette(), shadow=shadow_run)
REFUSING = responding(
    {"type": "http.response.start", "status": 403, "headers": []}, {"type": "http.response.body", "body": b"no"}
)


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 400 unless the body is ``body``."""
    message = await receive()
    await (upstream if message["body"] == b"body" else REFUSING)(scope, receive, send)


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    raise KeyError("on purpose")


async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def spoiling(scope: Scope, receive: Receive, send: Send) -> None:
    """Change all that can be changed in place."""
    scope["headers"].append((b"x-shadow", b"1"))
    scope["path"] = "/elsewhere"
    scope["state"]["shadow"] = scope["session"]["shadow"] = True
    scope["state"]["seen"].append("shadow")
    scope["extensions"]["other"]["shadow"] = True
    await upstream(scope, receive, send)


async def asking(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 403 unless nginx knows the consumer, asked in two round trips."""
    await apisix(scope).var("first")
    consumer = await apisix(scope).var("consumer_name")
    await (upstream if consumer == b"ann" else REFUSING)(scope, receive, send)


def bridge_of(shadow: ASGIApp, *, inner: ASGIApp | None = None, outer: ASGIApp | None = None, **options: Any) -> Bridge:
    bridge = Bridge()
    if outer is not None:
        bridge.mount("outer", outer)
    bridge.mount("shadow", shadow, shadow=True, **options)
    if inner is not None:
        bridge.mount("inner", inner)
    return bridge


async def build(bridge: Bridge, key: bytes = KEY) -> Chain:
    return await build_chain(bridge.plugins, key, [(name.encode(), b"") for name in bridge.plugins], None)


def outcomes(bridge: Bridge) -> dict[str, int]:
    record = bridge.plugins["shadow"].shadow
    assert record is not None
    return dict(record.counts)


async def ended(bridge: Bridge) -> None:
    """Wait until no shadow is in flight."""
    await asyncio.gather(*[task for task in asyncio.all_tasks() if task.get_name() == "shadow (shadow)"])
    record = bridge.plugins["shadow"].shadow
    assert record is not None
    assert record.in_flight == 0


def requests(
    bridge: Bridge, number: int = 1, message: HTTPReqCallReq | None = None, body: bytes | None = None
) -> list[Gateway]:
    """Send requests one after the other, each once the shadow of the one before has ended."""

    async def main() -> list[Gateway]:
        chain = await build(bridge)
        gateways = []
        for _ in range(number):
            gateway = Gateway({"consumer_name": b"bob", "first": b"1"}, body)
            gateways.append(await run(chain, message, gateway, HOST))
            await ended(bridge)
        assert chain.calls == 0
        return gateways

    return asyncio.run(main())


def shadow_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {record.name for record in caplog.records} <= {"asgi_bridge.shadow", "asyncio"}
    return [record.getMessage() for record in caplog.records if record.name == "asgi_bridge.shadow"]


@pytest.mark.parametrize(
    ("app", "options", "outcome", "line"),
    [
        (REFUSING, {}, "stop 403", "it would have answered 403"),
        (raising, {}, "error", "it would have refused the request: KeyError: 'on purpose'"),
        (hanging, {"timeout": 0.01}, "timeout", "it would have refused the request: no answer within 0.01 s"),
        (responding(), {}, "error", "it would have refused the request: it ended without a complete response"),
        (
            passing(lambda scope: scope["headers"].append((b"x-a", b"secret"))),
            {},
            "rewrite",
            "it would have changed headers x-a",
        ),
        (
            passing(lambda scope: scope.update(method="PUT")),
            {},
            "error",
            "it would have refused the request: the method was changed to 'PUT', which the protocol cannot express",
        ),
        (passing(), {}, "pass", None),
    ],
)
def test_what_a_shadow_would_have_done_is_told_and_the_request_goes_on(
    caplog: pytest.LogCaptureFixture, app: ASGIApp, options: dict[str, Any], outcome: str, line: str | None
) -> None:
    caplog.set_level(logging.INFO)
    inner = passing(lambda scope: scope["headers"].append((b"x-inner", b"1")))
    bridge = bridge_of(app, inner=inner, **options)
    (gateway,) = requests(bridge)
    assert gateway.answers == [HTTPReqCallResp(5, Rewrite(headers=[(b"x-inner", b"1")]))]
    assert gateway.asked == []
    assert outcomes(bridge) == {outcome: 1}
    assert shadow_lines(caplog) == (
        [] if line is None else [f"plugin shadow: shadow: {outcome}: {line}: GET /x, route 7"]
    )


@pytest.mark.parametrize("inner", [None, passing(), REFUSING])
def test_a_list_of_a_shadow_answers_what_it_answers_without(inner: ASGIApp | None) -> None:
    bridge = bridge_of(REFUSING, inner=inner)
    (gateway,) = requests(bridge)
    expected = None if inner is not REFUSING else Stop(403, [(b"content-type", b"")], b"no")
    assert gateway.answers == [HTTPReqCallResp(5, expected)]
    assert outcomes(bridge) == {"stop 403": 1}


def test_a_shadow_gets_copies_of_scope_and_state() -> None:
    seen: list[Any] = []

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"] = {"user": {"name": "ann"}}
        scope["state"]["seen"] = ["outer"]
        scope["extensions"]["other"] = {}
        await upstream(scope, receive, send)

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)  # the shadow has its turn
        await asyncio.sleep(0)
        seen.append({**scope, "extensions": scope["extensions"]["other"], "state": dict(scope["state"])})
        await upstream(scope, receive, send)

    bridge = bridge_of(spoiling, outer=outer, inner=inner)
    (gateway,) = requests(bridge)
    assert gateway.answers == [HTTPReqCallResp(5, None)]
    assert outcomes(bridge) == {"rewrite": 1}
    (scope,) = seen
    assert scope["session"] == {"user": {"name": "ann"}}
    assert (scope["state"], scope["extensions"], scope["path"]) == ({"seen": ["outer"]}, {}, "/x")
    assert b"x-shadow" not in dict(scope["headers"])


def test_a_shadow_that_asks_comes_too_late_once_and_then_requests_wait_for_its_answers() -> None:
    bridge = bridge_of(asking)
    first, second, third = requests(bridge, 3)
    assert first.asked == []
    assert second.asked == third.asked == [[Var(b"first")], [Var(b"consumer_name")]]
    assert [gateway.answers for gateway in (first, second, third)] == [[HTTPReqCallResp(5, None)]] * 3
    assert outcomes(bridge) == {"unknown": 1, "stop 403": 2}


def test_a_request_does_not_wait_for_a_gateway_that_keeps_a_shadow_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_bridge.adapter.shadow.SETTLE_SECONDS", 0.001)
    bridge = bridge_of(asking)

    async def main() -> Gateway:
        chain = await build(bridge)
        await run(chain, None, Gateway(), HOST)
        await ended(bridge)
        gateway = Gateway(holding=True)
        await run(chain, None, gateway, HOST)
        gateway.fail()  # as the server does behind the answer
        await ended(bridge)
        return gateway

    gateway = asyncio.run(main())
    assert (gateway.asked, gateway.answers) == ([[Var(b"first")]], [HTTPReqCallResp(5, None)])
    assert outcomes(bridge) == {"unknown": 2}


LONG = b"%d" % (MAX_BODY + 1)


@pytest.mark.parametrize(
    ("message", "body", "asked", "outcome"),
    [
        (request((b"content-length", b"4"), method="POST"), b"body", [[ReqBody()]], "pass"),
        (request((b"content-length", b"4"), method="POST"), b"else", [[ReqBody()]], "stop 403"),
        (request(), None, [], "stop 403"),
        (request((b"content-length", LONG), method="POST"), b"body", [], "unknown"),
        (request((b"transfer-encoding", b"chunked"), method="POST"), b"body", [], "unknown"),
        (request((b"content-length", b"4"), (b"expect", b"100-continue"), method="POST"), b"body", [], "unknown"),
        (request(method="POST"), b"body", [], "unknown"),
    ],
)
def test_a_shadow_gets_a_request_body_of_known_and_allowed_length(
    message: HTTPReqCallReq, body: bytes | None, asked: list[Any], outcome: str
) -> None:
    bridge = bridge_of(reading)
    _, gateway = requests(bridge, 2, message, body)
    assert (gateway.asked, gateway.answers) == (asked, [HTTPReqCallResp(5, None)])
    assert outcomes(bridge)[outcome] in (1, 2)


def test_a_shadow_gets_the_body_that_another_plugin_has_read_and_the_other_way_round() -> None:
    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        if (b"x-outer", b"reads") in scope["headers"]:
            assert (await receive())["body"] == b"body"
        await upstream(scope, receive, send)

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        if (b"x-inner", b"reads") in scope["headers"]:
            assert (await receive())["body"] == b"body"
        await upstream(scope, receive, send)

    for header, asks in (((b"x-outer", b"reads"), 1), ((b"x-inner", b"reads"), 2)):
        bridge = bridge_of(reading, outer=outer, inner=inner)
        message = request((b"content-length", b"4"), header, method="POST")
        *_, gateway = requests(bridge, 2, message, b"body")
        assert gateway.asked == [[ReqBody()]] * asks
        assert gateway.answers == [HTTPReqCallResp(5, None)]
        assert outcomes(bridge)["pass"] >= 1


def test_a_shadow_gets_no_body_that_an_outer_plugin_may_change() -> None:
    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        async def receiving() -> Message:
            return await receive()

        await upstream(scope, receiving, send)

    bridge = bridge_of(reading, outer=outer)
    _, gateway = requests(bridge, 2, request((b"content-length", b"4"), method="POST"), b"body")
    assert (gateway.asked, gateway.answers) == ([[ReqBody()]], [HTTPReqCallResp(5, None)])
    assert outcomes(bridge) == {"unknown": 2}


def test_a_fault_of_another_plugin_is_not_the_shadows(caplog: pytest.LogCaptureFixture) -> None:
    bridge = bridge_of(passing(), outer=passing(), inner=raising)
    requests(bridge)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert line == "plugin inner: request refused: KeyError: 'on purpose'"


def test_too_many_shadows_in_flight_are_skipped_and_counted() -> None:
    released = asyncio.Event()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await released.wait()
        await upstream(scope, receive, send)

    bridge = bridge_of(waiting, timeout=600)

    async def main() -> list[Gateway]:
        chain = await build(bridge)
        gateways = [await run(chain, None, Gateway(), HOST) for _ in range(MAX_IN_FLIGHT + 5)]
        released.set()
        await ended(bridge)
        return gateways

    assert [gateway.answers for gateway in asyncio.run(main())] == [[HTTPReqCallResp(5, None)]] * (MAX_IN_FLIGHT + 5)
    counts = outcomes(bridge)
    assert counts == {"skipped": 5, "pass": MAX_IN_FLIGHT}


def test_a_sample_of_the_requests_has_a_shadow(monkeypatch: pytest.MonkeyPatch) -> None:
    rolls = iter([0.05, 0.1, 0.5, 0.0999])
    monkeypatch.setattr("asgi_bridge.plugins.shadow.random.random", lambda: next(rolls))
    bridge = bridge_of(REFUSING, sample=0.1)
    requests(bridge, 4)
    assert outcomes(bridge) == {"stop 403": 2}


def test_a_shadow_keeps_nothing_of_a_request() -> None:
    seen: list[weakref.ref[Any]] = []

    class Token:
        pass

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["token"] = token = Token()
        seen.append(weakref.ref(token))
        await upstream(scope, receive, send)

    gc.collect()
    gc.disable()
    try:
        requests(bridge_of(REFUSING, outer=outer), 3)
        assert [ref() for ref in seen] == [None] * 3
    finally:
        gc.enable()


# the response phase


def respond(bridge: Bridge, message: HTTPRespCallReq, number: int = 2, **exchange: Any) -> list[Exchange]:
    """Send responses one after the other, each once the shadow of the one before has ended."""

    async def main() -> list[Exchange]:
        chain = await build(bridge, POST_RESP)
        exchanges = []
        for _ in range(number):
            gateway = Exchange(**exchange)
            call = ResponseCall(message, chain, gateway, HOST)
            call.task = asyncio.get_running_loop().create_task(call.run())
            await call.task
            await ended(bridge)
            exchanges.append(gateway)
        assert chain.calls == 0
        return exchanges

    return asyncio.run(main())


def sending(edit: Callable[[Message], None]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def edited(message: Message) -> None:
            edit(message)
            await send(message)

        await upstream(scope, receive, edited)

    return app


def teapot(message: Message) -> None:
    if message["type"] == "http.response.start":
        message["status"] = 418
        message["headers"] = [*message["headers"], (b"x-a", b"secret")]


def shout(message: Message) -> None:
    if message["type"] == "http.response.body":
        message["body"] = message["body"].upper()


SIZED = response((b"content-type", b"text/plain"), (b"content-length", b"8"))
STREAMED = response((b"content-type", b"text/plain"))


@pytest.mark.parametrize(
    ("app", "options", "message", "bodies", "outcome", "line"),
    [
        (passing(), {}, SIZED, 0, "pass", None),
        (sending(lambda message: None), {}, SIZED, 1, "pass", None),
        (sending(shout), {}, SIZED, 1, "response 200", "it would have changed body"),
        (
            sending(teapot),
            {"response_body": False},
            STREAMED,
            0,
            "response 418",
            "it would have changed the status 200 to 418, headers x-a",
        ),
        (
            sending(shout),
            {},
            STREAMED,
            0,
            "unknown",
            "nothing is known: it reads the upstream's body, which a shadow gets up to 65536 bytes of known length; "
            "response_body=False if it leaves the body alone",
        ),
        (REFUSING, {}, SIZED, 0, "response 403", "it would have answered 403"),
        (raising, {}, SIZED, 0, "error", "it would have refused the request: KeyError: 'on purpose'"),
        (
            hanging,
            {"timeout": 0.01},
            SIZED,
            0,
            "timeout",
            "it would have refused the request: no answer within 0.01 s",
        ),
        (reading, {}, SIZED, 0, "response 403", "it would have answered 403"),
    ],
)
@pytest.mark.parametrize("inner", [None, passing()])
def test_a_shadow_never_changes_the_response(
    caplog: pytest.LogCaptureFixture, app: ASGIApp, options: dict[str, Any], message: HTTPRespCallReq, bodies: int,
    outcome: str, line: str | None, inner: ASGIApp | None,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    alone = Bridge()
    alone.mount("inner", passing())
    bridge = bridge_of(app, inner=inner, **options)

    async def without() -> list[Any]:
        gateway = Exchange()
        await ResponseCall(message, await build(alone, POST_RESP), gateway, HOST).run()
        return gateway.answers

    expected = asyncio.run(without())
    *_, last = exchanges = respond(bridge, message, 3)
    assert [exchange.answers for exchange in exchanges] == [expected] * 3
    assert last.bodies == bodies
    assert outcomes(bridge)[outcome] >= 2
    lines = [text for text in shadow_lines(caplog) if "too late" not in text]
    assert lines[-1:] == ([] if line is None else [f"plugin shadow: shadow: {outcome}: {line}: GET /x, route 7"])


def test_a_shadow_sees_the_body_that_another_plugin_has_made() -> None:
    seen: list[bytes] = []

    def see(message: Message) -> None:
        if message["type"] == "http.response.body":
            seen.append(message["body"])

    bridge = bridge_of(sending(see), inner=sending(shout))
    exchanges = respond(bridge, STREAMED)
    assert b"".join(seen) == b"UPSTREAM" * 2
    assert [exchange.answers[0].body for exchange in exchanges] == [b"UPSTREAM"] * 2
    assert [exchange.asked.count([RespBody()]) for exchange in exchanges] == [1, 1]


@pytest.mark.parametrize(
    ("length", "body", "bodies", "outcome"),
    [
        (b"4", b"body", 1, "pass"),
        (None, None, 0, "response 403"),  # there is none, so it would have refused
        (b"%d" % (MAX_BODY + 1), b"body", 0, "unknown"),
        (b"odd", b"body", 0, "unknown"),
    ],
)
def test_a_shadow_of_the_response_phase_gets_a_request_body_of_known_and_allowed_length(
    length: bytes | None, body: bytes | None, bodies: int, outcome: str
) -> None:
    bridge = Bridge()
    bridge.mount("shadow", reading, shadow=True, phase="response")
    *_, last = respond(
        bridge, response((b"content-type", b"text/plain")), 3, variables={"http_content_length": length}, body=body
    )
    assert last.asked.count([ReqBody()]) == bodies
    assert outcomes(bridge)[outcome] >= 1
    assert len(last.answers) == 1


def test_a_shadow_of_a_response_that_fails_ends_with_it(caplog: pytest.LogCaptureFixture) -> None:
    bridge = bridge_of(passing(), inner=raising)
    respond(bridge, SIZED)
    assert outcomes(bridge) == {"unknown": 2}
