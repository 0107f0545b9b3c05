"""A call has a span, and each plugin that it enters has one below it."""

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.trace import SpanKind, StatusCode
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.server.protocol import RunnerProtocol
from asgi_bridge.server.runner import RunnerOptions
from asgi_bridge.testing import Gateway
from asgi_bridge.tracing.traced_calls import TracedRequestCall, TracedResponseCall

from .spans import CLIENT, PARENT, TRACE, Spans, Tree, attributes_of, context_of, route


async def passing(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream(scope, receive, send)


async def rewriting(scope: Scope, receive: Receive, send: Send) -> None:
    scope["headers"].append((b"x-a", b"b"))
    await upstream(scope, receive, send)


async def stopping(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("no", 403)(scope, receive, send)


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("no", 502)(scope, receive, send)


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError(f"no database with {apisix(scope).conf}")


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await asyncio.Event().wait()


async def working(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    with trace.get_tracer("shop").start_as_current_span("work"):
        await upstream(scope, receive, send)


def threaded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    with trace.get_tracer("shop").start_as_current_span(f"work on {threading.current_thread().name[:11]}"):
        start_response("403 Forbidden", [])
        return [b"no"]


@pytest.fixture
def bridge() -> Bridge:
    bridge = Bridge()
    for app in (passing, rewriting, stopping, broken, failing, silent, working):
        bridge.mount(app.__name__, app)
    for app in (passing, working):
        bridge.mount(f"both-{app.__name__}", app, phase="both")
    bridge.mount("slow", slow, timeout=0.05)
    bridge.mount("open", failing, on_error="open")
    bridge.mount("shadow", stopping, phase="request", shadow=True)
    bridge.add("threaded", threaded)
    return bridge


def test_a_call_that_stops(spans: Spans, bridge: Bridge) -> None:
    assert spans.request(bridge, [route("stopping")], "/a?key=hidden", headers=CLIENT) == 403

    assert spans.trees() == [("request r", [("plugin stopping", [])])]
    call, plugin = spans.of("request r"), spans.of("plugin stopping")
    assert (call.kind, plugin.kind) == (SpanKind.SERVER, SpanKind.INTERNAL)
    assert attributes_of(call) == {
        "apisix.phase": "request",
        "apisix.route_id": "r",
        "asgi_bridge.action": "stop",
        "asgi_bridge.outcome": "stop 403",
        "asgi_bridge.plugins": "stopping",
        "http.request.method": "GET",
        "http.response.status_code": 403,
        "http.route": "r",
        "url.path": "/a",
        "url.scheme": "http",
    }
    assert attributes_of(plugin) == {"apisix.phase": "request", "asgi_bridge.plugin": "stopping"}
    assert {span.status.status_code for span in spans.all} == {StatusCode.UNSET}
    assert [span.events for span in spans.all] == [(), ()]


@pytest.mark.parametrize(("plugin", "outcome"), [("passing", "pass"), ("rewriting", "rewrite")])
def test_a_call_that_goes_upstream(spans: Spans, bridge: Bridge, plugin: str, outcome: str) -> None:
    got: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.extend(value for name, value in scope.get("headers", ()) if name == b"traceparent")
        await PlainTextResponse("hello")(scope, receive, send)

    assert spans.request(bridge, [route(plugin)], upstream=app, headers=CLIENT) == 200

    assert spans.trees() == [("request r", [(f"plugin {plugin}", [])])]
    attributes = attributes_of(spans.of("request r"))
    assert (attributes["asgi_bridge.outcome"], attributes["asgi_bridge.action"]) == (outcome, outcome)
    assert "http.response.status_code" not in attributes
    assert got == [CLIENT["traceparent"].encode()]  # tracing changes no request


def test_a_plugin_is_below_the_one_that_calls_it(spans: Spans, bridge: Bridge) -> None:
    spans.request(bridge, [route("passing", "rewriting", "stopping")])

    below: Tree = ("plugin passing", [("plugin rewriting", [("plugin stopping", [])])])
    assert spans.trees() == [("request r", [below])]
    assert attributes_of(spans.of("request r"))["asgi_bridge.plugins"] == "passing, rewriting, stopping"


def test_spans_of_a_plugin_are_below_it(spans: Spans, bridge: Bridge) -> None:
    spans.request(bridge, [route("working", "stopping")])

    work: Tree = ("work", [("plugin stopping", [])])
    assert spans.trees() == [("request r", [("plugin working", [work])])]


def test_so_are_those_of_a_plugin_on_a_thread(spans: Spans, bridge: Bridge) -> None:
    assert spans.request(bridge, [route("threaded")]) == 403

    (tree,) = spans.trees()
    (plugin,) = tree[1]
    assert [name.partition(" on ")[0] for name, _ in plugin[1]] == ["work"]
    assert plugin[1][0][0] != f"work on {threading.current_thread().name[:11]}"


def test_a_fault_is_shown_where_it_came_out_and_without_secrets(spans: Spans, bridge: Bridge) -> None:
    conf = '{"password": "hunter2-hunter2"}'

    assert spans.request(bridge, [route("passing", "failing", conf=conf)], "/hunter2-hunter2") == 503

    call, outer, inner = spans.of("request r"), spans.of("plugin passing"), spans.of("plugin failing")
    reason = "ValueError: no database with {'password': '(hidden)'}"
    for span in (call, outer, inner):
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, reason)
        assert attributes_of(span)["error.type"] == "ValueError"
    attributes = attributes_of(call)
    assert (attributes["asgi_bridge.outcome"], attributes["asgi_bridge.failed_plugin"]) == ("error", "failing")
    assert [len(span.events) for span in (call, outer, inner)] == [1, 0, 1]
    event = inner.events[0]
    assert event.name == "exception"
    assert (event.attributes or {})["exception.message"] == "no database with {'password': '(hidden)'}"
    assert "in failing" in str((event.attributes or {})["exception.stacktrace"])
    assert attributes["url.path"] == "/(hidden)"
    assert "hunter2" not in "".join(span.to_json() for span in spans.all)


def test_a_plugin_that_does_not_answer(spans: Spans, bridge: Bridge) -> None:
    assert spans.request(bridge, [route("silent")]) == 503

    call = spans.of("request r")
    assert call.status.description == "it ended without a complete response"
    assert attributes_of(call)["error.type"] == "asgi_bridge.errors.PluginError"
    assert [set(event.attributes or {}) for event in call.events] == [{"exception.type", "exception.message"}]


def test_a_plugin_that_takes_too_long(spans: Spans, bridge: Bridge) -> None:
    assert spans.request(bridge, [route("passing", "slow")]) == 503

    call, plugin = spans.of("request r"), spans.of("plugin slow")
    attributes = attributes_of(call)
    assert (call.status.status_code, attributes["error.type"]) == (StatusCode.ERROR, "timeout")
    assert (attributes["asgi_bridge.outcome"], attributes["asgi_bridge.failed_plugin"]) == ("error timeout", "slow")
    assert (plugin.status.status_code, attributes_of(plugin)["error.type"]) == (StatusCode.ERROR, "cancelled")


def test_a_status_of_500_and_above_is_an_error(spans: Spans, bridge: Bridge) -> None:
    assert spans.request(bridge, [route("broken")]) == 502

    call, plugin = spans.of("request r"), spans.of("plugin broken")
    assert (call.status.status_code, attributes_of(call)["error.type"]) == (StatusCode.ERROR, "502")
    assert plugin.status.status_code == StatusCode.UNSET


def test_a_plugin_that_is_passed_over_has_failed_and_the_call_has_not(spans: Spans, bridge: Bridge) -> None:
    assert spans.request(bridge, [route("open", "stopping")]) == 403

    assert spans.trees() == [("request r", [("plugin open", []), ("plugin stopping", [])])]
    statuses = [span.status.status_code for span in spans.all]
    assert statuses == [StatusCode.UNSET, StatusCode.ERROR, StatusCode.UNSET]


def test_a_shadow_has_a_span_that_says_so(spans: Spans, bridge: Bridge) -> None:
    assert spans.request(bridge, [route("shadow", "passing")]) == 200

    assert spans.trees() == [("request r", [("plugin passing", []), ("plugin shadow", [])])]
    assert attributes_of(spans.of("plugin shadow"))["asgi_bridge.shadow"] is True


def test_a_call_of_the_response_phase(spans: Spans, bridge: Bridge) -> None:
    status = spans.request(
        bridge,
        [route(post_resp=["working", "passing"])],
        upstream=PlainTextResponse("teapot", 418),
        headers=CLIENT,
    )
    assert status == 418

    below: Tree = ("plugin working", [("work", [("plugin passing", [])])])
    assert spans.trees() == [("response r", [below])]
    call = spans.of("response r")
    attributes = attributes_of(call)
    assert len(str(attributes.pop("apisix.request_id"))) == 32
    assert attributes == {
        "apisix.phase": "response",
        "apisix.route_id": "r",
        "asgi_bridge.action": "response",
        "asgi_bridge.outcome": "response 418",
        "asgi_bridge.plugins": "working, passing",
        "http.request.method": "GET",
        "http.response.status_code": 418,
        "http.route": "r",
        "url.path": "/a",
        "url.scheme": "http",
    }
    assert call.parent is not None
    assert (f"{call.parent.trace_id:032x}", f"{call.parent.span_id:016x}") == (TRACE, PARENT)


def test_the_response_phase_sees_no_more_headers_and_makes_no_further_round_trip(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[bytes]] = []
    asked: list[int] = []
    ask = RunnerProtocol.ask

    def counting(protocol: RunnerProtocol, infos: Any) -> Any:
        asked.append(len(infos))
        return ask(protocol, infos)

    async def looking(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.append([name for name, _ in scope["headers"]])
        await upstream(scope, receive, send)

    monkeypatch.setattr(RunnerProtocol, "ask", counting)
    bridge = Bridge()
    bridge.mount("looking", looking)
    for otel in (True, False):
        options = RunnerOptions(otel=otel)
        spans.request(bridge, [route(post_resp=["looking"])], headers=CLIENT, options=options)

    assert len(spans.all) == 2
    assert seen[0] == seen[1]
    assert asked == [asked[1] + 3, asked[1]]  # traceparent, tracestate and baggage


def test_a_fault_of_the_response_phase(spans: Spans, bridge: Bridge) -> None:
    spans.request(bridge, [route(post_resp=["failing"])])

    call = spans.of("response r")
    assert (call.status.status_code, call.status.description) == (StatusCode.ERROR, "ValueError: no database with {}")
    assert attributes_of(call)["asgi_bridge.outcome"] == "error"
    assert [event.name for event in spans.of("plugin failing").events] == ["exception"]


@pytest.mark.parametrize("headers", [CLIENT, None])
def test_a_plugin_in_both_phases(spans: Spans, bridge: Bridge, headers: dict[str, str] | None) -> None:
    both = ["both-working", "both-passing"]
    status = spans.request(
        bridge, [route(*both, post_resp=both)], upstream=PlainTextResponse("teapot", 418), headers=headers
    )
    assert status == 418

    run: Tree = ("plugin both-working", [("work", [("plugin both-passing", [("parked", [])])])])
    request: Tree = ("request r", [run])
    response: Tree = ("response r", [("plugin both-working, both-passing", [])])
    first, second = spans.of("request r"), spans.of("response r")
    if headers is None:
        assert spans.trees() == [("request r", [run, response])]
    else:
        assert spans.trees() == [request, response]
        assert {f"{context_of(span).trace_id:032x}" for span in spans.all} == {TRACE}
    assert len({context_of(span).trace_id for span in spans.all}) == 1
    assert [link.context.span_id for link in second.links] == [context_of(first).span_id]
    assert attributes_of(first)["asgi_bridge.outcome"] == "parked"
    assert attributes_of(second)["asgi_bridge.outcome"] == "response 418"
    # the run of the plugin lasts until the second call resumes it, and what waits for the upstream is a span
    parked, plugin = spans.of("parked"), spans.of("plugin both-passing")
    times = [first.end_time, second.start_time, parked.end_time, plugin.end_time]
    assert times == sorted(times)  # type: ignore[type-var]
    assert {span.status.status_code for span in spans.all} == {StatusCode.UNSET}


def test_a_half_and_a_plugin_of_the_response_phase_stand_side_by_side(spans: Spans, bridge: Bridge) -> None:
    spans.request(bridge, [route("both-passing", post_resp=["both-passing", "working"])], headers=CLIENT)

    request: Tree = ("request r", [("plugin both-passing", [("parked", [])])])
    response: Tree = ("response r", [("plugin working", [("work", [])]), ("plugin both-passing", [])])
    assert spans.trees() == [request, response]


def test_a_half_that_is_resumed_outside_of_any_span_stays_in_its_trace(
    spans: Spans, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume = TracedRequestCall.resume

    async def elsewhere(call: TracedRequestCall, response: Any, connection: Any) -> Any:
        coroutine = resume(call, response, connection)
        return await asyncio.get_running_loop().create_task(coroutine, context=contextvars.Context())

    monkeypatch.setattr(TracedRequestCall, "resume", elsewhere)
    spans.request(bridge, [route("both-passing", post_resp=["both-passing"])], headers=CLIENT)

    below: list[Tree] = [("plugin both-passing", [("parked", [])]), ("plugin both-passing", [])]
    assert spans.trees() == [("request r", below), ("response r", [])]


def test_a_fault_behind_the_upstream(spans: Spans) -> None:
    bridge = Bridge()

    async def failing_late(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Any) -> None:
            raise ValueError("too late")

        await upstream(scope, receive, sending)

    bridge.mount("late", failing_late, phase="both")
    spans.request(bridge, [route("late", post_resp=["late"])])

    run, half = [span for span in spans.all if span.name == "plugin late"]
    first, second = spans.of("request r"), spans.of("response r")
    assert [span.status.status_code.name for span in (first, run, second, half)] == ["UNSET", "ERROR", "ERROR", "ERROR"]
    assert attributes_of(second)["asgi_bridge.failed_plugin"] == "late"
    assert [len(span.events) for span in (first, run, second, half)] == [0, 1, 1, 0]


def test_a_half_whose_response_call_never_comes_is_no_error(spans: Spans, bridge: Bridge) -> None:
    assert spans.request(bridge, [route("both-passing")]) == 200

    plugin = spans.of("plugin both-passing")
    assert [event.name for event in plugin.events] == ["no response call came"]
    assert {span.name: span.status.status_code for span in spans.all} == dict.fromkeys(
        ("request r", "plugin both-passing", "parked"), StatusCode.UNSET
    )


def test_a_call_continues_the_clients_trace(spans: Spans) -> None:
    seen: list[object] = []
    bridge = Bridge()

    async def looking(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.append(baggage.get_all())
        await upstream(scope, receive, send)

    bridge.mount("looking", looking)
    spans.request(bridge, [route("looking")], headers=CLIENT)

    parent = spans.of("request r").parent
    assert parent is not None
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}") == (TRACE, PARENT)
    assert context_of(spans.of("plugin looking")).trace_id == parent.trace_id
    assert parent.is_remote and parent.trace_state == {"vendor": "1"}
    assert seen == [{"a": "1"}]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("traceparent", "garbage")],
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", f"00-{TRACE}-{PARENT}-01")] * 2,
        [("traceparent", "x" * 1000)],
    ],
)
@pytest.mark.parametrize("phase", ["request", "response"])
def test_without_a_good_parent_a_new_trace_begins(
    spans: Spans, bridge: Bridge, phase: str, headers: list[tuple[str, str]]
) -> None:
    listed = route("stopping") if phase == "request" else route(post_resp=["passing"])

    spans.request(bridge, [listed], headers=headers)

    call = spans.of(f"{phase} r")
    assert (call.parent, f"{context_of(call).trace_id:032x}" == TRACE) == (None, False)


def test_a_trace_that_the_client_does_not_sample_is_not_recorded(spans: Spans, bridge: Bridge) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}

    assert spans.request(bridge, [route("stopping")], headers=headers) == 403
    assert spans.request(bridge, [route("failing")], headers=headers) == 503
    assert spans.request(bridge, [route("slow")], headers=headers) == 503

    assert spans.all == []


def test_a_call_is_freed_when_it_ends(spans: Spans, bridge: Bridge) -> None:
    calls = TracedRequestCall, TracedResponseCall
    lists = [
        route("stopping"),
        route("open", "stopping"),
        route("slow"),
        route("both-working", post_resp=["both-working"]),
    ]
    gc.collect()
    gc.disable()
    try:
        for number, listed in enumerate(lists):
            lists[number] = {**listed, "id": f"r{number}", "uri": f"/{number}"}
        with TestClient(Gateway(bridge, lists), raise_server_exceptions=False) as client:
            statuses = [client.get(f"/{number}").status_code for number in range(len(lists))]
            # the second request of a connection, so that nothing refers to the call of the first one any more
            statuses += [client.get("/0").status_code for _ in range(2)]
            left = [each for each in gc.get_objects() if isinstance(each, calls)]
    finally:
        gc.enable()
    assert (statuses, len(left)) == ([403, 403, 503, 200, 403, 403], 0), left
