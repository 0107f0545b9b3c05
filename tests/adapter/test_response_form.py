"""Plugins in the response phase: the request is rebuilt, the upstream's response goes through them to the client."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.adapter import ResponseCall
from asgi_bridge.adapter.upstream_response import UpstreamBody
from asgi_bridge.plugins.options import REQUEST_HEADERS
from asgi_bridge.wire import (
    MAX_PAYLOAD,
    ErrCode,
    ErrResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    ReqBody,
    RespBody,
    TextEntry,
    Var,
)

from .calls import BODY_IF_ANY, HOST, REFUSED, errors, responding, warnings
from .phases import Exchange, chain, fresh_host, respond, response

TYPE: TextEntry = (b"content-type", b"text/plain")
LENGTH: TextEntry = (b"content-length", b"8")
ALWAYS = ["request_id", "request", "uri", "remote_addr", "scheme"]
FRAMING = [Var(b"http_content_length"), Var(b"http_transfer_encoding")]


def editing(edit: Callable[[Message], Any] = lambda message: None) -> ASGIApp:
    """A plugin that edits the messages of the response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            edit(message)
            await send(message)

        await upstream(scope, receive, sending)

    return app


def of_start(**changes: Any) -> Callable[[Message], None]:
    def edit(message: Message) -> None:
        if message["type"] == "http.response.start":
            message.update(changes)

    return edit


def with_body(body: bytes, *headers: TextEntry) -> ASGIApp:
    """A plugin that puts another body there, without a content-length."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [header for header in message["headers"] if header[0] != b"content-length"]
                message["headers"] = [*kept, *headers]
            elif not message["more_body"]:
                message["body"] = body
            else:
                message["body"] = b""
            await send(message)

        await upstream(scope, receive, sending)

    return app


def answered(
    *apps: ASGIApp, message: HTTPRespCallReq | None = None, exchange: Exchange | None = None, **options: Any
) -> Any:
    """The answer of one call through `apps`."""

    async def main() -> Exchange:
        plugins = {f"p{number}": app for number, app in enumerate(apps)}
        return await respond(await chain(plugins, **options), message or response(TYPE, LENGTH), exchange)

    (answer,) = asyncio.run(main()).answers
    return answer


# the request


def test_the_request_is_rebuilt_in_one_round_trip() -> None:
    found: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append({**scope, "extensions": dict(scope["extensions"]["apisix"])})
        await upstream(scope, receive, send)

    variables = {
        "request_method": b"POST",
        "real_request_uri": b"/%7Ex/?a=%20b",
        "uri": b"/~x/\xc3\xbc",
        "http_host": b"a.test:9080",
        "http_accept_encoding": b"gzip",
        "http_cookie": b"a=1; b=2",
        "http_content_length": b"3",
    }
    exchange = Exchange(variables)
    answered(app, exchange=exchange)
    assert exchange.asked == [
        [Var(name.encode()) for name in [*ALWAYS, *("http_" + name.replace("-", "_") for name in REQUEST_HEADERS)]]
    ]
    assert len(exchange.asked[0]) == 10
    (scope,) = found
    assert callable(scope["extensions"].pop("var"))
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/~x/ü",
        "raw_path": b"/%7Ex/",
        "query_string": b"a=%20b",
        "root_path": "",
        "headers": [
            (b"host", b"a.test:9080"),
            (b"accept-encoding", b"gzip"),
            (b"cookie", b"a=1; b=2"),
        ],
        "client": ("127.0.0.1", 0),
        "server": ("a.test", 9080),
        "state": {},
        "app": scope["app"],
        "extensions": {"plugin": "p0", "phase": "response", "conf": {}, "route_id": "7", "request_id": "r1"},
    }


def test_only_the_headers_that_are_wanted_are_asked_for() -> None:
    bridge = Bridge()
    bridge.mount("one", upstream, request_headers=["Origin", "x-a"])
    bridge.mount("two", upstream, request_headers=["x-a", "cookie"])
    exchange = Exchange()

    async def main() -> None:
        await respond(await chain(bridge), response(TYPE), exchange)

    asyncio.run(main())
    assert exchange.asked == [[Var(name.encode()) for name in [*ALWAYS, "http_origin", "http_x_a", "http_cookie"]]]


@pytest.mark.parametrize(
    ("host", "wanted", "server"),
    [
        (b"a.test:9080", True, ("a.test", 9080)),
        (b"a.test", True, ("a.test", 443)),
        (b"[::1]:80", True, ("::1", 80)),
        (None, True, None),
        (b"a.test", False, None),
    ],
)
def test_the_server_follows_from_the_host(host: bytes | None, wanted: bool, server: Any) -> None:
    found: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append((scope["scheme"], scope["server"]))
        await upstream(scope, receive, send)

    exchange = Exchange({"http_host": host, "scheme": b"https"})
    answered(app, exchange=exchange, request_headers=["host"] if wanted else [])
    assert found == [("https", server)]


def test_exact_takes_server_and_port_from_the_connection_too() -> None:
    found: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append((scope["client"], scope["server"], scope["headers"]))
        await upstream(scope, receive, send)

    exchange = Exchange()
    answered(app, exchange=exchange, exact=True, request_headers=[])
    assert found == [(("127.0.0.1", 4711), ("10.0.0.1", 9080), [])]
    more = ["http_host", "server_addr", "server_port", "remote_port"]
    assert exchange.asked == [[Var(name.encode()) for name in [*ALWAYS, *more]]]


def test_the_request_body_comes_when_it_is_awaited() -> None:
    found: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(await receive())
        await upstream(scope, receive, send)

    exchange = Exchange({"http_content_length": b"3"}, body=b"abc")
    answered(app, exchange=exchange)
    assert found == [{"type": "http.request", "body": b"abc", "more_body": False}]
    assert exchange.asked[1:] == [FRAMING, [ReqBody()]]


def test_a_length_that_is_known_is_not_asked_for_again() -> None:
    found: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(await receive())
        await upstream(scope, receive, send)

    exchange = Exchange({"http_content_length": b"3"}, body=b"abc")
    answered(app, exchange=exchange, request_headers=["content-length"])
    assert found == [{"type": "http.request", "body": b"abc", "more_body": False}]
    assert exchange.asked[1:] == [[ReqBody()]]


def test_tasks_that_read_the_body_at_the_same_time_ask_once() -> None:
    found: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        readers = [asyncio.ensure_future(receive()) for _ in range(2)]
        found.append((await readers[0])["body"])
        await upstream(scope, receive, send)
        found.append((await readers[1])["type"])

    exchange = Exchange({"http_transfer_encoding": b"chunked"}, body=b"abc")
    answered(app, exchange=exchange)
    assert found == [b"abc", "http.disconnect"]
    assert exchange.asked[1:] == [FRAMING, BODY_IF_ANY]


def test_a_body_that_is_too_long_is_not_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    exchange = Exchange({"http_content_length": b"%d" % (MAX_PAYLOAD + 1)}, body=b"abc")
    assert answered(app, exchange=exchange) == REFUSED
    assert exchange.asked[1:] == [FRAMING]
    assert f"the request body has {MAX_PAYLOAD + 1} bytes" in errors(caplog)[0]


@pytest.mark.parametrize("length", [None, b"", b"0"])
def test_without_a_request_body_none_is_asked_for(length: bytes | None) -> None:
    found: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(await receive())
        await upstream(scope, receive, send)

    exchange = Exchange({"http_content_length": length})
    answered(app, exchange=exchange)
    assert found == [{"type": "http.request", "body": b"", "more_body": False}]
    assert exchange.asked[1:] == [FRAMING]


def test_variables_can_be_asked_for() -> None:
    found: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(await apisix(scope).var("consumer_name"))
        await upstream(scope, receive, send)

    answered(app, exchange=Exchange({"consumer_name": b"jack"}))
    assert found == [b"jack"]


# status and headers


def test_a_plugin_that_changes_nothing_keeps_everything() -> None:
    """The list is complete: where it is empty APISIX drops content-type and others."""
    headers: list[TextEntry] = [
        (b"Content-Type", b"text/html"), (b"Set-Cookie", b"a=1"), (b"X-A", b"1"), (b"Set-Cookie", b"b=2"),
        (b"Location", b"/x"), (b"x-a", b"2"),
    ]  # fmt: skip
    exchange = Exchange()
    assert answered(upstream, message=response(*headers, status=201), exchange=exchange) == HTTPRespCallResp(
        9, 201, [(name.lower(), value) for name, value in headers if name is not None], None
    )
    assert exchange.bodies == 0
    assert exchange.outcomes == ["response 201"]


def test_headers_of_the_connection_to_the_upstream_stay_there() -> None:
    found: list[Any] = []
    headers = [TYPE, LENGTH, (b"connection", b"close"), (b"transfer-encoding", b"chunked"), (b"keep-alive", b"x")]
    answer = answered(editing(lambda message: found.append(message.get("headers"))), message=response(*headers))
    assert found[0] == [TYPE, LENGTH]
    assert answer.headers == [TYPE]


def test_without_a_content_type_apisix_is_kept_from_adding_one() -> None:
    assert answered(upstream, message=response((b"x-a", b"1"))).headers == [(b"x-a", b"1"), (b"content-type", b"")]
    assert answered(upstream, message=response((b"x-a", b"1")), cures=False).headers == [(b"x-a", b"1")]


def test_the_upstreams_own_server_and_empty_headers_are_no_fault_of_a_plugin(caplog: pytest.LogCaptureFixture) -> None:
    answer = answered(upstream, message=response(TYPE, (b"server", b"nginx"), (b"x-empty", b"")))
    assert answer.headers == [TYPE]
    assert warnings(caplog) == []


def test_headers_that_a_plugin_cannot_set_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    mine = [TYPE, (b"server", b"mine"), (b"x-empty", b"")]
    assert answered(editing(of_start(headers=mine))).headers == [TYPE]
    assert warnings(caplog) == [
        "plugin p0: APISIX sends its own server header: this one is dropped",
        "plugin p0: an empty header deletes it in APISIX: the client gets no x-empty",
    ]


def test_four_cookies_three_of_the_upstream_and_one_of_the_plugin() -> None:
    cookies: list[TextEntry] = [(b"set-cookie", b"%d=1" % number) for number in range(3)]

    def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append("set-cookie", "mine=1")

    answer = answered(editing(add), message=response(TYPE, *cookies))
    assert answer.headers == [TYPE, *cookies, (b"set-cookie", b"mine=1")]


@pytest.mark.parametrize("status", [200, 299, 404, 503])
def test_the_status_can_be_changed(status: int) -> None:
    assert answered(editing(of_start(status=status))) == HTTPRespCallResp(9, status, [TYPE], None)


def test_a_status_that_apisix_cannot_send(caplog: pytest.LogCaptureFixture) -> None:
    assert answered(editing(of_start(status=444))) == REFUSED
    assert errors(caplog) == [
        "plugin p0: request refused: status 444: APISIX would close the client's connection without a byte"
    ]


def test_a_header_without_a_value_is_refused() -> None:
    assert answered(upstream, message=response((b"x-a", None))) == ErrResp(ErrCode.BAD_REQUEST)


# the body


def test_the_body_is_fetched_for_a_plugin_that_wraps_send_and_only_sent_back_when_it_changed() -> None:
    found: list[Message] = []
    exchange = Exchange()
    assert answered(editing(lambda message: found.append({**message})), exchange=exchange) == HTTPRespCallResp(
        9, 200, [TYPE], None
    )
    assert found == [
        {"type": "http.response.start", "status": 200, "headers": [TYPE, LENGTH]},
        {"type": "http.response.body", "body": b"upstream", "more_body": False},
    ]
    assert exchange.bodies == 1
    assert answered(with_body(b"mine")) == HTTPRespCallResp(9, 200, [TYPE], b"mine")


def test_a_streamed_body_comes_as_one() -> None:
    found: list[Message] = []
    answered(editing(lambda message: found.append({**message})), message=response(TYPE))
    assert found == [
        {"type": "http.response.start", "status": 200, "headers": [TYPE]},
        {"type": "http.response.body", "body": b"upstream", "more_body": True},
        {"type": "http.response.body", "body": b"", "more_body": False},
    ]


def test_of_several_plugins_the_first_is_outermost_and_the_body_is_fetched_once() -> None:
    def adding(word: bytes) -> ASGIApp:
        def edit(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["content-length"]
            else:
                message["body"] += word

        return editing(edit)

    exchange = Exchange()
    answer = answered(adding(b" outer"), upstream, adding(b" inner"), exchange=exchange)
    assert answer.body == b"upstream inner outer"
    assert exchange.bodies == 1


def test_response_body_false_never_fetches_it() -> None:
    exchange = Exchange()
    answer = answered(editing(of_start(status=202)), exchange=exchange, response_body=False)
    assert answer == HTTPRespCallResp(9, 202, [TYPE], None)
    assert exchange.bodies == 0


def test_response_body_false_and_a_body_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    assert answered(with_body(b"mine"), response_body=False) == REFUSED
    assert errors(caplog) == [
        "plugin p0: request refused: the response body was changed by a plugin that is mounted with response_body=False"
    ]


LONG = response(TYPE, (b"content-length", b"%d" % (MAX_PAYLOAD + 1)))


def test_a_body_over_16_mib_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange()
    assert answered(editing(), message=LONG, exchange=exchange) == REFUSED
    assert exchange.bodies == 0
    assert errors(caplog) == [
        "plugin p0: request refused: the upstream's body has 16777216 bytes, and only 16777215 can be handed over; "
        "mount the plugin with response_body=False if it does not change the body"
    ]


def test_a_body_over_16_mib_passes_a_plugin_that_fails_open(caplog: pytest.LogCaptureFixture) -> None:
    def edit(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append("x-a", "1")

    async def main() -> list[Exchange]:
        plugins = await chain({"p0": editing(edit)}, on_error="open")
        return [await respond(plugins, LONG) for _ in range(2)]

    for exchange in asyncio.run(main()):
        assert exchange.answers == [HTTPRespCallResp(9, 200, [TYPE, (b"x-a", b"1")], None)]
        assert exchange.bodies == 0
    assert warnings(caplog) == ["plugin p0: the upstream's body is too long to be handed over, and passes as it is"]


def test_one_plugin_that_fails_closed_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Exchange:
        bridge = Bridge()
        bridge.mount("open", editing(), on_error="open")
        bridge.mount("closed", editing())
        return await respond(await chain(bridge), LONG)

    assert asyncio.run(main()).answers == [REFUSED]


def test_an_upstream_that_broke_off(caplog: pytest.LogCaptureFixture) -> None:
    assert answered(editing(), exchange=Exchange(upstream=None)) == REFUSED
    assert errors(caplog) == ["plugin p0: request refused: the upstream's body could not be read"]


def test_an_emptied_body_is_a_blank(caplog: pytest.LogCaptureFixture) -> None:
    assert answered(with_body(b"")) == HTTPRespCallResp(9, 200, [TYPE], b" ")
    assert warnings(caplog) == [
        "plugin p0: the response body was emptied, which the protocol cannot express: the client gets a blank"
    ]


def test_an_empty_body_that_was_streamed(caplog: pytest.LogCaptureFixture) -> None:
    found: list[Message] = []
    watching = editing(lambda message: found.append({**message}))
    assert answered(watching, message=response(TYPE), exchange=Exchange(upstream=b"")).body == b" "
    assert found[1:] == [{"type": "http.response.body", "body": b"", "more_body": False}]
    assert warnings(caplog) == [
        "plugin p0: the upstream streamed an empty body, which APISIX would fetch again: the client gets a blank"
    ]


def test_a_change_of_the_request_is_told_to_be_too_late(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream({**scope, "path": "/y", "headers": [*scope["headers"], (b"x-a", b"1")]}, receive, send)

    assert answered(app) == HTTPRespCallResp(9, 200, [TYPE], None)
    assert warnings(caplog) == [
        "plugin p0: in the response phase the request has gone upstream already: a change of its path and headers "
        "reaches nobody but the plugins further inside"
    ]


def test_a_scope_may_be_passed_on_without_what_it_does_not_change(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        smaller = {name: scope[name] for name in ("type", "path", "extensions")}
        await upstream({**smaller, "headers": tuple(scope["headers"])}, receive, send)

    assert answered(app) == HTTPRespCallResp(9, 200, [TYPE], None)
    assert warnings(caplog) == []


def test_an_error_page_may_be_emptied(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.update(status=404, headers=[TYPE])
            else:
                message["body"] = b""
            await send(message)

        await upstream(scope, receive, sending)

    assert answered(app) == HTTPRespCallResp(9, 404, [TYPE], b" ")
    assert warnings(caplog) == []


def test_an_empty_body_stays_one() -> None:
    message = response(TYPE, (b"content-length", b"0"))
    assert answered(editing(), message=message, exchange=Exchange(upstream=b"")).body is None


def test_a_content_length_that_is_not_the_bodys(caplog: pytest.LogCaptureFixture) -> None:
    assert answered(with_body(b"mine", (b"content-length", b"5"))) == REFUSED
    assert errors(caplog) == ["plugin p0: request refused: content-length says 5, the body has 4 bytes"]


# HEAD, 204, 304: APISIX fetches a second time where the answer has no body


@pytest.mark.parametrize("app", [upstream, editing()])
@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [(b"HEAD", 200, [TYPE, LENGTH]), (b"GET", 204, [TYPE]), (b"POST", 204, [TYPE]), (b"GET", 304, [TYPE])],
)
def test_no_body_is_asked_for_where_there_is_none(app: ASGIApp, method: bytes, status: int, headers: Any) -> None:
    exchange = Exchange({"request_method": method})
    message = response(TYPE, LENGTH, status=status)
    assert answered(app, message=message, exchange=exchange) == HTTPRespCallResp(9, status, headers, b" ")
    assert exchange.bodies == 0
    assert answered(app, message=message, exchange=Exchange({"request_method": method}), cures=False) == (
        HTTPRespCallResp(9, status, [TYPE], None)
    )


def test_a_head_response_that_would_be_too_long_is_none_to_warn_of(caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange({"request_method": b"HEAD"})
    length = (b"content-length", b"%d" % (MAX_PAYLOAD + 1))
    assert answered(editing(), message=LONG, exchange=exchange, on_error="open").headers == [TYPE, length]
    assert warnings(caplog) == []


def test_a_response_becomes_one_without_a_body() -> None:
    assert answered(editing(of_start(status=204))) == HTTPRespCallResp(9, 204, [TYPE], b" ")


def test_a_response_without_a_body_gets_one() -> None:
    message = response(TYPE, status=204)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["status"] = 200
            else:
                message["body"] = b"mine"
            await send(message)

        await upstream(scope, receive, sending)

    assert answered(app, message=message) == HTTPRespCallResp(9, 200, [TYPE], b"mine")


# plugins that do something else


def test_a_plugin_may_answer_in_the_upstreams_place() -> None:
    app = responding(
        {"type": "http.response.start", "status": 503, "headers": [TYPE]},
        {"type": "http.response.body", "body": b"mine"},
    )
    exchange = Exchange()
    assert answered(app, exchange=exchange) == HTTPRespCallResp(9, 503, [TYPE], b"mine")
    assert exchange.bodies == 0


def test_calling_the_upstream_twice(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def nowhere(message: Message) -> None: ...

        await upstream(scope, receive, nowhere)
        await upstream(scope, receive, send)

    assert answered(app) == REFUSED
    assert errors(caplog) == [
        "plugin p0: request refused: the upstream was called twice; the gateway sends a request once"
    ]


def test_raising(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("x")

    assert answered(upstream, app) == REFUSED
    assert errors(caplog) == ["plugin p1: request refused: KeyError: 'x'"]


def test_a_plugin_of_the_request_phase_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Exchange:
        # a gateway before 2.9, whose keys do not tell the phase
        return await respond(await chain({"p0": upstream}, b"", phase="request"), response(TYPE))

    assert asyncio.run(main()).answers == [REFUSED]
    assert errors(caplog) == [
        "plugin p0: request refused: it is for the request phase: list it in ext-plugin-pre-req or ext-plugin-post-req"
    ]


def test_a_chain_without_plugins_changes_nothing() -> None:
    assert answered() == HTTPRespCallResp(9, 200, [TYPE], None)


# its end


def test_the_gateway_goes_away() -> None:
    found: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listening() -> None:
            found.extend([await receive(), await receive()])

        listener = asyncio.ensure_future(listening())
        await asyncio.sleep(0)
        exchange.disconnect()
        await listener
        await upstream(scope, receive, send)

    exchange = Exchange()

    async def main() -> None:
        await respond(await chain({"p0": app}), response(TYPE), exchange)

    asyncio.run(main())
    assert [message["type"] for message in found] == ["http.disconnect", "http.disconnect"]
    assert exchange.answers == []


def test_a_call_that_takes_too_long_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Exchange:
        started = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            started.set()
            await asyncio.Event().wait()

        exchange = Exchange()
        call = ResponseCall(response(TYPE), await chain({"p0": app}, timeout=5.0), exchange, HOST)
        loop = asyncio.get_running_loop()
        before = loop.time()
        call.task = asyncio.ensure_future(call.run())
        await started.wait()
        assert before + 5 <= call.deadline <= loop.time() + 5
        call.expire()
        await asyncio.wait([call.task])
        return exchange

    exchange = asyncio.run(main())
    assert exchange.answers == [REFUSED]
    assert errors(caplog) == ["plugin p0: request refused: no answer in time (option timeout: 5 s)"]


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    raise KeyError("x")


@pytest.mark.parametrize("app", [upstream, editing(), with_body(b"x"), raising])
def test_a_call_is_freed_without_the_garbage_collector(app: ASGIApp) -> None:
    async def main() -> list[Any]:
        plugins = await chain({"p0": app})
        exchange = Exchange()
        call = ResponseCall(response(TYPE), plugins, exchange, fresh_host())
        await call.run()
        dead = weakref.ref(call)
        del call
        return [dead()]

    gc.collect()
    gc.disable()
    logging.disable()  # a record holds the exception, and so the frames
    try:
        assert asyncio.run(main()) == [None]
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


def test_the_upstreams_body_is_asked_for_once_whoever_reads_it() -> None:
    async def main() -> tuple[bytes, bytes, int]:
        exchange = Exchange()
        body = UpstreamBody(lambda: exchange.ask([RespBody()]), None, bodyless=False)
        return await body.read(), await body.read(), exchange.bodies

    assert asyncio.run(main()) == (b"upstream", b"upstream", 1)
