"""What a plugin receives: the request body, on demand only, and the disconnect."""

import asyncio
from typing import Any

import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, upstream
from asgi_bridge.wire import MAX_PAYLOAD, HTTPReqCallReq, Info, ReqBody, Rewrite, Stop

from .calls import BODY_IF_ANY, REFUSED, Gateway, answer, chain_of, errors, passing, request, responding, run
from .phases import NGINX

POST = request((b"content-length", b"5"), method="POST")
CHUNKED = request((b"transfer-encoding", b"chunked"), method="POST")
BODY: Message = {"type": "http.request", "body": b"hello", "more_body": False}
EMPTY: Message = {"type": "http.request", "body": b"", "more_body": False}
DISCONNECT: Message = {"type": "http.disconnect"}


def run_with(app: ASGIApp, gateway: Gateway, message: HTTPReqCallReq = POST, **options: Any) -> Gateway:
    async def main() -> Gateway:
        return await run(await chain_of(app, **options), message, gateway)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "message",
    [request((b"content-length", b"0"), method="POST"), request((b"content-length", b"00"))],
    ids=["0", "00"],
)
def test_no_body_is_not_asked_for(message: HTTPReqCallReq) -> None:
    received: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await receive())
        await upstream(scope, receive, send)

    assert answer(app, message=message, asked=[]) is None
    assert received == [EMPTY]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    ("protocol", "body"), [(b"HTTP/2.0", b"from HTTP/2"), (b"HTTP/2.0", None), (b"HTTP/1.1", None)]
)
def test_a_body_without_length_or_encoding_is_asked_for(method: str, protocol: bytes, body: bytes | None) -> None:
    """HTTP/2 needs neither header, and a plugin that checks bodies must not be shown an empty one."""
    received: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await receive())
        await upstream(scope, receive, send)

    gateway = run_with(app, Gateway({"server_protocol": protocol}, body=body), request(method=method))
    assert received == [{"type": "http.request", "body": body or b"", "more_body": False}]
    assert gateway.asked == [BODY_IF_ANY]


@pytest.mark.parametrize(("version", "asked"), [(b"HTTP/1.1", False), (b"HTTP/2.0", True), (b"HTTP/3.0", True)])
def test_with_exact_any_method_may_have_such_a_body(version: bytes, asked: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == (b"evil" if asked else b"")
        await upstream(scope, receive, send)

    gateway = run_with(app, Gateway({"server_protocol": version}, body=b"evil"), request(method="DELETE"), exact=True)
    assert (BODY_IF_ANY in gateway.asked) is asked
    assert [answer.action for answer in gateway.answers] == [None]


@pytest.mark.parametrize("message", [POST, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize(("body", "received"), [(b"hello", BODY), (b"", EMPTY)])
def test_body_is_asked_for_once(message: HTTPReqCallReq, body: bytes | None, received: Message) -> None:
    found: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(await receive())
        await upstream(scope, receive, send)

    asks: list[Info] = [ReqBody()] if message is POST else BODY_IF_ANY
    assert answer(app, message=message, body=body, asked=[asks]) is None
    assert found == [received]


def test_body_is_not_asked_for_before_somebody_wants_it() -> None:
    assert answer(passing(), message=POST, body=b"hello", asked=[]) is None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        coroutine = receive()
        coroutine.close()  # type: ignore[attr-defined]
        await upstream(scope, receive, send)

    assert answer(app, message=POST, body=b"hello", asked=[]) is None


@pytest.mark.parametrize("message", [POST, request((b"content-length", b"0"))], ids=["body", "none"])
def test_is_disconnected_does_not_swallow_the_body(message: HTTPReqCallReq) -> None:
    found: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        starlette_request = Request(scope, receive)
        found.append(await starlette_request.is_disconnected())
        found.append(await starlette_request.is_disconnected())
        found.append(await starlette_request.body())
        found.append(await starlette_request.is_disconnected())
        await upstream(scope, receive, send)
        found.append(await starlette_request.is_disconnected())

    has_body = message is POST
    assert answer(app, message=message, body=b"hello", asked=[[ReqBody()]] if has_body else []) is None
    assert found == [False, False, b"hello" if has_body else b"", False, True]


def test_is_disconnected_does_not_swallow_a_body_that_nothing_tells_of() -> None:
    found: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        starlette_request = Request(scope, receive)
        found.extend([await starlette_request.is_disconnected() for _ in range(2)])
        found.append(await starlette_request.body())
        found.append(await starlette_request.is_disconnected())
        await upstream(scope, receive, send)

    assert answer(app, message=request(), body=b"hello", asked=[BODY_IF_ANY]) is None
    assert found == [False, False, b"hello", False]


def test_is_disconnected_does_not_swallow_a_body_that_has_come_meanwhile() -> None:
    found: list[Any] = []
    gateway = Gateway(body=b"hello", holding=True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        starlette_request = Request(scope, receive)
        found.append(await starlette_request.is_disconnected())
        gateway.release()
        found.append(await starlette_request.is_disconnected())
        found.append(await starlette_request.body())
        await upstream(scope, receive, send)

    run_with(app, gateway)
    assert found == [False, False, b"hello"]
    assert gateway.asked == [[ReqBody()]]
    assert gateway.outcomes == ["pass"]


def test_cancelled_receive_loses_nothing() -> None:
    found: list[Message] = []
    gateway = Gateway(body=b"hello", holding=True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        asyncio.get_running_loop().call_soon(gateway.release)
        found.append(await receive())
        await upstream(scope, receive, send)

    run_with(app, gateway)
    assert found == [BODY]
    assert gateway.asked == [[ReqBody()]]


@pytest.mark.parametrize("message", [POST, request((b"content-length", b"0"))], ids=["body", "none"])
def test_of_two_receives_at_once_one_gets_the_body(message: HTTPReqCallReq) -> None:
    found: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        first, second = asyncio.ensure_future(receive()), asyncio.ensure_future(receive())
        found.append(await first)
        assert not second.done()
        await upstream(scope, receive, send)
        found.append(await second)

    has_body = message is POST
    assert answer(app, message=message, body=b"hello", asked=[[ReqBody()]] if has_body else []) is None
    assert found == [BODY if has_body else EMPTY, DISCONNECT]


def test_disconnect_after_the_answer() -> None:
    found: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream(scope, receive, send)
        found.extend([await receive(), await receive()])

    assert answer(app, message=POST, body=b"hello", asked=[]) is None
    assert found == [DISCONNECT, DISCONNECT]


@pytest.mark.parametrize("read_first", [True, False])
def test_gateway_goes_away_while_a_plugin_waits_for_it(read_first: bool, caplog: pytest.LogCaptureFixture) -> None:
    found: list[Message] = []
    gateway = Gateway(body=b"hello", holding=not read_first)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if read_first:
            found.append(await receive())
        asyncio.get_running_loop().call_soon(gateway.disconnect)
        found.extend([await receive(), await receive()])

    run_with(app, gateway)
    assert found == ([BODY] if read_first else []) + [DISCONNECT, DISCONNECT]
    assert (gateway.answers, errors(caplog)) == ([], [])


def test_all_that_wait_for_the_end_are_told_but_who_gave_up() -> None:
    found: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        impatient, *ends = [asyncio.ensure_future(receive()) for _ in range(3)]
        await asyncio.sleep(0)
        impatient.cancel()
        await upstream(scope, receive, send)
        found.extend(await asyncio.gather(*ends))

    assert answer(app) is None
    assert found == [DISCONNECT, DISCONNECT]


def test_nothing_is_asked_of_a_gateway_that_has_gone() -> None:
    found: list[Message] = []
    gateway = Gateway(body=b"hello")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        gateway.disconnect()
        found.append(await receive())
        await upstream(scope, receive, send)

    run_with(app, gateway)
    assert found == [DISCONNECT]
    assert (gateway.asked, gateway.answers) == ([], [])


def test_a_gateway_that_cannot_give_the_body(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(holding=True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().call_soon(gateway.fail)
        await receive()

    assert run_with(app, gateway).answers == [REFUSED]
    assert errors(caplog) == ["plugin p0: request refused: the gateway could not tell"]


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await upstream(scope, receive, send)


@pytest.mark.parametrize("length", [b"16777216", b"9" * 30, b"1e3", b"-1"])
def test_a_body_over_the_protocols_limit_is_refused(length: bytes, caplog: pytest.LogCaptureFixture) -> None:
    message = request((b"content-length", length), method="POST")
    assert answer(reading, message=message, asked=[]) == REFUSED
    assert errors(caplog) == [
        f"plugin p0: request refused: the request body has {length.decode()} bytes, and only 16777215 can be handed "
        "over; mount the plugin with request_body=False if it does not change the body"
    ]
    assert answer(passing(), message=message, asked=[]) is None


UNREADABLE = "its error log says why; is its disk full, or client_body_temp_path not readable?"


@pytest.mark.parametrize(
    ("headers", "variables", "size"),
    [
        ([(b"content-length", b"5")], {}, "5 bytes"),
        ([(b"content-length", b"0005")], {}, "0005 bytes"),
        ([(b"transfer-encoding", b"chunked")], {"request_body_file": b"/tmp/1"}, "a body without content-length"),
        ([], {"request_body_file": b"/tmp/1", "server_protocol": b"HTTP/2.0"}, "a body without content-length"),
    ],
)
@pytest.mark.parametrize("app", ["reads", "compares"])
def test_nil_for_a_body_that_there_is(
    headers: Any, variables: dict[str, bytes | None], size: str, app: str, caplog: pytest.LogCaptureFixture
) -> None:
    """APISIX says nil for an empty body, and for one that it could not read: a check would see nothing, and pass it."""
    message = request(*headers, method="POST")
    found = answer({"reads": reading, "compares": wrapping}[app], message=message, variables=variables, body=None)
    assert found == REFUSED
    assert errors(caplog) == [
        f"plugin p0: request refused: the gateway could not read the request body ({size}): {UNREADABLE}"
    ]


@pytest.mark.parametrize("phase", ["both", "request"])
def test_nil_in_both_phases(phase: Any) -> None:
    message = request((b"content-length", b"5"), method="PUT")
    assert answer(reading, message=message, variables=NGINX, body=None, phase=phase) == REFUSED


@pytest.mark.parametrize(("options", "expected"), [({}, REFUSED), ({"request_body": False}, None)])
def test_a_body_that_middleware_reads_as_a_stream(
    options: Any, expected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """``request.form()`` does so, and Starlette hands on an empty body then, under every server. That cannot be told
    from a plugin that empties the body on purpose, so it is refused, and the line says what to do."""

    class Form(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            assert b"".join([chunk async for chunk in request.stream()]) == b"a=1"
            return await call_next(request)

    bridge = Bridge()
    bridge.add_middleware("form", Form, **options)
    message = request((b"content-length", b"3"), method="POST")
    assert answer(bridge=bridge, message=message, body=b"a=1") == expected
    assert all("request.form()" in line and "request_body=False" in line for line in errors(caplog))


def test_a_body_of_the_protocols_limit() -> None:
    message = request((b"content-length", b"%d" % MAX_PAYLOAD), method="POST")
    assert answer(reading, message=message, body=bytes(MAX_PAYLOAD), asked=[[ReqBody()]]) is None


# a changed body


def replacing(*messages: Message) -> ASGIApp:
    """A middleware that hands on `messages` in place of the body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        rest = list(messages)

        async def replaced() -> Message:
            return rest.pop(0)

        await upstream(scope, replaced, send)

    return app


def part(body: Any, more_body: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more_body}


@pytest.mark.parametrize(
    "messages",
    [
        [part(b"other body")],
        [part(b"other ", True), part(b"", True), part(b"body")],
        [part(memoryview(b"other "), True), part(bytearray(b"body"))],
        [part(b"other body", True), {"type": "http.request"}],
    ],
)
@pytest.mark.parametrize("message", [POST, CHUNKED, request()], ids=["length", "chunked", "none"])
def test_a_changed_body(messages: list[Message], message: HTTPReqCallReq) -> None:
    assert answer(replacing(*messages), message=message, body=b"hello") == Rewrite(body=b"other body")


async def wrapping(scope: Scope, receive: Receive, send: Send) -> None:
    async def same() -> Message:
        return await receive()

    await upstream(scope, same, send)


def test_a_wrapped_receive_that_changes_nothing_is_no_rewrite() -> None:
    assert answer(wrapping, message=POST, body=b"hello", asked=[[ReqBody()]]) is None
    assert answer(wrapping, message=CHUNKED, body=None, asked=[BODY_IF_ANY]) is None
    assert answer(wrapping, message=request(), asked=[BODY_IF_ANY]) is None
    assert answer(wrapping, message=request((b"content-length", b"0")), asked=[]) is None


def test_an_empty_body_in_place_of_none() -> None:
    assert answer(replacing(part(b"")), message=request(), asked=[BODY_IF_ANY]) is None


def test_request_body_false_is_not_drained() -> None:
    assert answer(wrapping, message=POST, body=b"hello", asked=[], request_body=False) is None
    huge = request((b"content-length", b"99999999"), method="POST")
    assert answer(wrapping, message=huge, asked=[], request_body=False) is None
    assert answer(reading, message=POST, body=b"hello", asked=[[ReqBody()]], request_body=False) is None


def test_a_huge_body_behind_a_wrapped_receive_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(wrapping, message=request((b"content-length", b"99999999"), method="POST"), asked=[]) == REFUSED
    assert "request_body=False" in errors(caplog)[0]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([part(b"")],
         "the request body was emptied, which the protocol cannot express; a plugin that only reads the body and does "
         "not hand it on (as after request.form()) is mounted with request_body=False"),
        ([part(b"x", True), DISCONNECT], "receive gave 'http.disconnect' before the end of the request body"),
        ([part(bytes(MAX_PAYLOAD), True), part(b"x")],
         "the request body was changed to more than the protocol's 16777215 bytes"),
        ([part(memoryview(bytes(MAX_PAYLOAD + 1)).cast("I"))],
         "the request body was changed to more than the protocol's 16777215 bytes"),
    ],
)  # fmt: skip
def test_changes_of_a_body_that_cannot_be_told(
    messages: list[Message], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer(replacing(*messages), message=POST, body=b"hello") == REFUSED
    assert errors(caplog) == [f"plugin p0: request refused: {reason}"]


@pytest.mark.parametrize("data", ["text", 5, [1, 2]])
def test_a_changed_body_that_is_no_bytes(data: Any) -> None:
    assert answer(replacing(part(data)), message=POST, body=b"hello") == REFUSED


def test_gateway_goes_away_while_the_body_is_compared(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(body=b"hello", holding=True)
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def same() -> Message:
            return await receive()

        asyncio.get_running_loop().call_soon(gateway.disconnect)
        try:
            await upstream(scope, same, send)
        except BaseException as exc:
            raised.append(exc)
            raise

    assert run_with(app, gateway).answers == []
    assert [repr(exc) for exc in raised] == ["OSError('the client went away')"]
    assert errors(caplog) == []


def test_a_body_read_by_the_plugin_and_handed_on_again() -> None:
    def handing_on(change: bytes) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            body = await Request(scope, receive).body() + change

            async def again() -> Message:
                return part(body)

            await upstream(scope, again, send)

        return app

    assert answer(handing_on(b""), message=POST, body=b"hello", asked=[[ReqBody()]]) is None
    assert answer(handing_on(b"!"), message=POST, body=b"hello", asked=[[ReqBody()]]) == Rewrite(body=b"hello!")


def test_reading_and_answering() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await responding(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]},
            {"type": "http.response.body", "body": body},
        )(scope, receive, send)

    assert answer(app, message=POST, body=b"hello") == Stop(200, [(b"content-type", b"text/plain")], b"hello")
