"""``otel`` makes a span for each request. It continues the client's trace, and the upstream continues it."""

from functools import partial
from typing import Any

import pytest
from asgi_bridge_apps import bridge
from asgi_bridge_apps.otel import otel
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError, upstream
from asgi_bridge.testing import Gateway, PluginClient

from .routes import sent

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLIENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}


class Recorded:
    """A bridge whose spans a test can read."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.bridge = Bridge()
        self.bridge.plugin("otel", phase="both", response_body=False)(partial(otel, provider=self.provider))

    def span(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return found

    def client(self, conf: Any = None, **kwargs: Any) -> PluginClient:
        return PluginClient(self.bridge, "otel", conf or {}, **kwargs)


def traceparent(span: ReadableSpan) -> str:
    """Return the header that the upstream gets. The SDK sets its own flags on new traces."""
    trace_id, span_id, _ = ids(span)
    context = span.get_span_context()
    assert context is not None and context.trace_flags.sampled
    return f"00-{trace_id}-{span_id}-{context.trace_flags:02x}"


def ids(span: ReadableSpan) -> tuple[str, str, str | None]:
    context = span.get_span_context()
    assert context is not None
    parent = None if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", parent


def test_the_span_is_the_clients_child_and_the_upstreams_parent() -> None:
    recorded = Recorded()

    answer = recorded.client().get("/a?token=hidden", headers=CLIENT)

    span = recorded.span("GET")
    trace_id, span_id, parent = ids(span)
    assert (trace_id, parent, span.kind) == (TRACE, PARENT, SpanKind.SERVER)
    assert sent(answer, "traceparent", "tracestate") == [
        ["traceparent", f"00-{TRACE}-{span_id}-01"],
        ["tracestate", "vendor=1"],
    ]
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/a",
        "client.address": "testclient",
        "server.address": "testserver",
        "user_agent.original": "testclient",
        "apisix.route_id": "1",
        "http.response.status_code": 200,
    }


BAD: list[list[tuple[str, str]]] = [
    [],
    [("traceparent", "")],
    [("traceparent", "garbage")],
    [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
    [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
    [("traceparent", f"ff-{TRACE}-{PARENT}-01")],
    [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("traceparent", f"00-{TRACE}-{PARENT}-01")],
    [("traceparent", "x" * 10000)],
    [("traceparent", "\xff")],
]


@pytest.mark.parametrize("parents", BAD)
def test_without_a_good_parent_a_new_trace_begins(parents: list[tuple[str, str]]) -> None:
    recorded = Recorded()

    answer = recorded.client().get("/", headers=[(name.encode(), value.encode("latin-1")) for name, value in parents])

    trace_id, _, parent = ids(recorded.span("GET"))
    assert (trace_id != TRACE, parent) == (True, None)
    assert sent(answer, "traceparent") == [["traceparent", traceparent(recorded.span("GET"))]]


def test_a_client_need_not_be_trusted() -> None:
    recorded = Recorded()

    answer = recorded.client({"trust_client": False, "attributes": {"team": "a"}}).get(
        "/", headers={**CLIENT, "baggage": "a=1"}
    )

    trace_id, _, parent = ids(recorded.span("GET"))
    assert (trace_id != TRACE, parent) == (True, None)
    got = sent(answer, "traceparent", "tracestate", "baggage")
    assert got == [["traceparent", traceparent(recorded.span("GET"))]]
    assert (recorded.span("GET").attributes or {})["team"] == "a"


def test_spans_of_inner_plugins_are_its_children() -> None:
    recorded = Recorded()
    tracer = recorded.provider.get_tracer("test")

    seen: dict[str, object] = {}

    @recorded.bridge.plugin("working")
    def working(conf: dict[str, str]) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            with tracer.start_as_current_span("work"):
                seen.update(baggage.get_all())
                await upstream(scope, receive, send)

        return app

    plugins: list[tuple[str, Any]] = [("otel", {}), ("working", {})]
    answer = PluginClient(recorded.bridge, plugins).get("/", headers={**CLIENT, "baggage": "a=1"})

    assert sent(answer, "baggage") == [["baggage", "a=1"]]
    assert seen == {"a": "1"}
    outer, inner = ids(recorded.span("GET")), ids(recorded.span("work"))
    assert (inner[0], inner[2]) == (TRACE, outer[1])


@pytest.mark.parametrize(
    ("status", "code"), [(200, StatusCode.UNSET), (404, StatusCode.UNSET), (503, StatusCode.ERROR)]
)
def test_the_span_has_the_status_of_the_response(status: int, code: StatusCode) -> None:
    recorded = Recorded()

    recorded.client(upstream=PlainTextResponse("", status)).get("/")

    span = recorded.span("GET")
    assert ((span.attributes or {})["http.response.status_code"], span.status.status_code) == (status, code)


def test_an_exception_ends_the_span_as_an_error() -> None:
    recorded = Recorded()

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        recorded.client(upstream=failing).get("/")

    assert recorded.span("GET").status.status_code == StatusCode.ERROR


def test_without_an_sdk_the_headers_pass_as_they_are() -> None:
    answer = PluginClient(bridge, "otel", {}).get("/", headers={**CLIENT, "baggage": "a=1"})

    assert sent(answer, "traceparent", "tracestate", "baggage") == [*map(list, CLIENT.items()), ["baggage", "a=1"]]


@pytest.mark.parametrize("both", [True, False])
def test_through_the_gateway_the_span_lasts_until_the_real_response(both: bool) -> None:
    recorded = Recorded()
    if not both:
        recorded.bridge = Bridge()
        recorded.bridge.plugin("otel", phase="request")(partial(otel, provider=recorded.provider))
    ended_before_the_upstream: list[bool] = []
    got: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            ended_before_the_upstream.append(bool(recorded.exporter.get_finished_spans()))
            got.extend(value for name, value in scope["headers"] if name == b"traceparent")
            assert trace.get_current_span() is trace.INVALID_SPAN
            await PlainTextResponse("teapot", 418)(scope, receive, send)

    entry = {"conf": [{"name": "otel", "value": "{}"}]}
    phases = ["ext-plugin-pre-req", "ext-plugin-post-resp"][: 2 if both else 1]
    routes = [{"id": "r", "uri": "/*", "plugins": dict.fromkeys(phases, entry)}]
    with TestClient(Gateway(recorded.bridge, routes, app)) as gate:
        answer = gate.get("/", headers=CLIENT)

    span = recorded.span("GET")
    assert (answer.status_code, answer.text, ended_before_the_upstream) == (418, "teapot", [not both])
    assert (span.attributes or {})["http.response.status_code"] == (418 if both else 200)
    assert (span.attributes or {})["apisix.route_id"] == "r"
    assert got == [f"00-{TRACE}-{ids(span)[1]}-01".encode()]


@pytest.mark.parametrize(("password", "status", "upstream_status"), [("wrong", 401, None), ("pw", 418, 418)])
def test_together_with_a_plugin_that_refuses_in_the_request_phase(
    password: str, status: int, upstream_status: int | None
) -> None:
    recorded = Recorded()
    recorded.bridge.plugin("stopping", phase="request")(stopping)
    conf = [{"name": "otel", "value": "{}"}, {"name": "stopping", "value": "{}"}]
    plugins = {"ext-plugin-pre-req": {"conf": conf}, "ext-plugin-post-resp": {"conf": conf[:1]}}
    routes = [{"id": "r", "uri": "/*", "plugins": plugins}]

    with TestClient(Gateway(recorded.bridge, routes, PlainTextResponse("teapot", 418))) as gate:
        answer = gate.get("/", headers={"x-password": password})

    assert answer.status_code == status
    assert (recorded.span("GET").attributes or {})["http.response.status_code"] == (upstream_status or status)


def stopping(conf: dict[str, str]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        good = scope["type"] != "http" or (b"x-password", b"pw") in scope["headers"]
        await (upstream if good else PlainTextResponse("no", 401))(scope, receive, send)

    return app


def test_it_is_mounted_for_both_phases() -> None:
    options = bridge.plugins["otel"].options

    assert (options.phase, options.response_body) == ("both", False)


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"attributes": {"a": 1}}, "field 'attributes.a': Input should be a valid string"),
        ({"trust_client": "no"}, "field 'trust_client': Input should be a valid boolean"),
        ({"endpoint": "x"}, "field 'endpoint': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration(conf: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin otel: {reason}"):
        PluginClient(bridge, "otel", conf).get("/")
