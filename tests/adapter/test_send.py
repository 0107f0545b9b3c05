"""What a plugin sends: every order and every type, right and wrong, before and after the answer."""

import asyncio
import http
import logging
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import upstream
from asgi_bridge.adapter.stage import ANSWERED
from asgi_bridge.errors import PluginError
from asgi_bridge.wire import MAX_PAYLOAD, HTTPReqCallResp, Rewrite, Stop

from .calls import REFUSED, Gateway, answer, chain_of, errors, passing, responding, run, warnings

TYPED = (b"content-type", b"text/plain")


def start(status: Any = 200, headers: Any = (TYPED,)) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: Any = b"", more_body: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more_body}


@pytest.mark.parametrize(
    "messages",
    [
        [start(), body(b"hello")],
        [start(), {"type": "http.response.body", "body": b"hello"}],
        [start(), body(b"hel", True), body(b"", True), body(b"lo")],
        [start(), body(b"hello", True), {"type": "http.response.body"}],
        [start(), body(memoryview(b"hel"), True), body(bytearray(b"lo"))],
        [start(), body(memoryview(b"xhello")[1:])],
        [start(), body(None, True), body(b"hello")],
        [start(headers=[[b"Content-Type", b"text/plain"]]), body(b"hello")],
        [start(headers=iter([(b"content-type", memoryview(b"text/plain"))])), body(b"hello")],
        [start(headers=[(bytearray(b"content-type"), b"text/plain")]), body(b"hello")],
        [start(http.HTTPStatus.OK), body(b"hello")],
        [{"type": "http.response.debug", "info": {}}, start(), body(b"hello"), {"type": "http.response.debug"}],
        [start(headers=[TYPED, (b"content-length", b"5")]), body(b"hello")],
    ],
)
def test_what_a_server_takes(messages: list[Message]) -> None:
    found = answer(responding(*messages))
    assert found == Stop(200, [TYPED], b"hello")
    assert type(found.body) is bytes
    assert [(type(name), type(value)) for name, value in found.headers] == [(bytes, bytes)]


@pytest.mark.parametrize("headers", [None, [], ()])
def test_no_headers(headers: Any) -> None:
    # an empty content-type, or APISIX would make one up
    assert answer(responding(start(headers=headers), body(b"x"))) == Stop(200, [(b"content-type", b"")], b"x")
    untold: Message = {"type": "http.response.start", "status": 200}
    assert answer(responding(untold, body(b"x"))) == Stop(200, [(b"content-type", b"")], b"x")


UNKNOWN = "is none of an HTTP response"
WRONG: list[tuple[list[Message], str]] = [
    ([], "it ended without a complete response"),
    ([start()], "it ended without a complete response"),
    ([start(), body(b"x", True)], "it ended without a complete response"),
    ([body(b"x")], "http.response.body before http.response.start"),
    ([start(), start()], "http.response.start twice"),
    ([start(), body(b"x", True), start()], "http.response.start twice"),
    ([start(), {"type": "http.response.trailers"}], f"a message of type 'http.response.trailers' {UNKNOWN}"),
    ([start(), {"type": "http.response.pathsend"}], f"a message of type 'http.response.pathsend' {UNKNOWN}"),
    ([{"type": "http.response.push"}], f"a message of type 'http.response.push' {UNKNOWN}"),
    ([{"type": "websocket.accept"}], f"a message of type 'websocket.accept' {UNKNOWN}"),
    ([start(headers=[(b"x-a", b"1\r\nx-b: 2")])], "header x-a: its value holds a CR, LF or NUL"),
    ([start(headers=[(b"x-a", b"1\n")])], "header x-a: its value holds a CR, LF or NUL"),
    ([start(headers=[(b"x-a", b"\r1")])], "header x-a: its value holds a CR, LF or NUL"),
    ([start(headers=[(b"x-a", b"1\x00")])], "header x-a: its value holds a CR, LF or NUL"),
    ([start(headers=[(b"x-a", bytearray(b"1\n"))])], "header x-a: its value holds a CR, LF or NUL"),
    ([start(headers=[(b"x-a", b"a\x01b")])], "header x-a: its value holds a control character"),
    ([start(headers=[(b"x-a", b"\x1b[31m")])], "header x-a: its value holds a control character"),
    ([start(headers=[(b"x-a", bytearray(b"a\x7f"))])], "header x-a: its value holds a control character"),
    ([start(headers=[(b"x-a", b"a\x0c")])], "header x-a: its value holds a control character"),
    ([start(headers=[(b"x\x7fa", b"1")])], "header b'x\\x7fa': that is no header name"),
    ([start(headers=[(b"", b"1")])], "header b'': that is no header name"),
    ([start(headers=[(b"x a", b"1")])], "header b'x a': that is no header name"),
    ([start(headers=[(b"x-a\n", b"1")])], "header b'x-a\\n': that is no header name"),
    ([start(headers=[(b"x:a", b"1")])], "header b'x:a': that is no header name"),
    ([start(headers=[(b"\xe9", b"1")])], "header b'\\xe9': that is no header name"),
    ([start(headers=[("x-a", b"1")])], "header 'x-a': name and value must be bytes"),
    ([start(headers=[(b"x-a", "1")])], "header b'x-a': name and value must be bytes"),
    ([start(headers=[(b"x-a", None)])], "header b'x-a': name and value must be bytes"),
    ([start(headers=[(b"x-a", 1)])], "header b'x-a': name and value must be bytes"),
    ([start(headers=[(b"x-a",)])], "header (b'x-a',): a header is a pair of name and value"),
    ([start(headers=[(b"x-a", b"1", b"2")])], "header (b'x-a', b'1', b'2'): a header is a pair of name and value"),
    ([start(headers={b"x-a": b"1"})], "header b'x-a': a header is a pair of name and value"),
    ([start(headers=[None])], "header None: a header is a pair of name and value"),
    ([{"type": "http.response.start"}], "status None: a response has a status from 200 to 999"),
    ([start(headers=[(b"content-length", b"4")]), body(b"hello")], "content-length says 4, the body has 5 bytes"),
    ([start(headers=[(b"content-length", b"6")]), body(b"hello")], "content-length says 6, the body has 5 bytes"),
    ([start(headers=[(b"content-length", b"5, 5")]), body(b"hello")], "content-length says 5, 5, the body has 5 bytes"),
    ([start(headers=[(b"content-length", b"5"), (b"Content-Length", b"6")]), body(b"hello")],
     "content-length says 6, the body has 5 bytes"),
    ([start(), body(bytes(MAX_PAYLOAD), True), body(b"x", True)],
     "the response body is longer than the protocol's 16777215 bytes"),
    ([start(), body(memoryview(bytes(MAX_PAYLOAD + 1)).cast("I"))],
     "the response body is longer than the protocol's 16777215 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "reason"), WRONG)
@pytest.mark.parametrize("swallowed", [False, True])
def test_what_is_wrong_is_refused_with_one_line(
    messages: list[Message], reason: str, swallowed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            try:
                await send(message)
            except PluginError:
                if not swallowed:
                    raise

    assert answer(app) == REFUSED
    assert errors(caplog) == [f"plugin p0: request refused: {reason}"]
    assert [record.exc_info for record in caplog.records] == [None]


@pytest.mark.parametrize("wrong", [{}, {**start(), "headers": [(b"x-a",)]}, {**start(), "headers": 5}])
def test_what_is_no_message_at_all(wrong: Message, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(responding(wrong, start(), body())) == REFUSED
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("data", ["text", 5, [1, 2], {"a": 1}])
def test_a_body_that_is_no_bytes(data: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(responding(start(), body(data))) == REFUSED
    reason = f"the body of http.response.body is {type(data).__name__}; it has to be bytes"
    assert errors(caplog) == [f"plugin p0: request refused: {reason}"]


NO_STATUS = "a response has a status from 200 to 999"
BROKEN = "APISIX would close the client's connection without a byte"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (0, NO_STATUS),
        (1, NO_STATUS),
        (99, NO_STATUS),
        (100, NO_STATUS),
        (101, NO_STATUS),
        (199, NO_STATUS),
        (1000, NO_STATUS),
        (65535, NO_STATUS),
        (-1, NO_STATUS),
        (True, NO_STATUS),
        ("200", NO_STATUS),
        (200.0, NO_STATUS),
        (None, NO_STATUS),
        (408, BROKEN),
        (444, BROKEN),
        (499, BROKEN),
    ],
)
def test_statuses_that_no_client_would_get(status: Any, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(responding(start(status), body(b"x"))) == REFUSED
    assert errors(caplog) == [f"plugin p0: request refused: status {status!r}: {reason}"]


@pytest.mark.parametrize("status", [200, 201, 299, 300, 399, 400, 404, 407, 409, 443, 498, 500, 599, 600, 999])
def test_statuses_that_a_client_gets(status: int) -> None:
    assert answer(responding(start(status), body(b"x"))) == Stop(status, [TYPED], b"x")


def test_a_response_that_does_not_fit_beside_its_headers(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(responding(start(), body(bytes(MAX_PAYLOAD)))) == REFUSED
    (line,) = errors(caplog)
    assert line.startswith("plugin p0: request refused: ")


def test_the_largest_response() -> None:
    size = MAX_PAYLOAD - 200
    found = answer(responding(start(), body(bytes(size // 2), True), body(bytes(size - size // 2))))
    assert found == Stop(200, [TYPED], bytes(size))


# faults


def raising(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        raise KeyError("secret")

    return app


@pytest.mark.parametrize("messages", [[], [start()], [start(), body(b"x", True)]])
def test_raising_before_the_end_of_the_response(messages: list[Message], caplog: pytest.LogCaptureFixture) -> None:
    assert answer(raising(*messages)) == REFUSED
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "plugin p0: request refused: KeyError: 'secret'")
    assert record.exc_info is not None and isinstance(record.exc_info[1], KeyError)


def test_the_plugin_that_raised_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(passing(), raising(), passing()) == REFUSED
    assert errors(caplog) == ["plugin p1: request refused: KeyError: 'secret'"]


def test_a_plugin_that_ends_without_a_response_is_one_of_the_chain(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(passing(), responding()) == REFUSED
    assert errors(caplog) == ["plugin p0, p1: request refused: it ended without a complete response"]


def test_raising_after_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(raising(start(), body(b"x"))) == Stop(200, [TYPED], b"x")
    (record,) = caplog.records
    assert record.getMessage() == "plugin p0: a fault after its answer, which stands: KeyError: 'secret'"
    assert record.exc_info is not None and isinstance(record.exc_info[1], KeyError)


@pytest.mark.parametrize("more", [start(500), body(b"more"), {"type": "http.response.trailers"}])
def test_a_second_answer(more: Message, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(responding(start(), body(b"x"), more)) == Stop(200, [TYPED], b"x")
    assert errors(caplog) == [
        f"plugin p0: a fault after its answer, which stands: {more['type']} after the response was complete"
    ]


def test_answering_and_then_calling_the_upstream(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await responding(start(403), body(b"x"))(scope, receive, send)
        await upstream(scope, receive, send)

    assert answer(app) == Stop(403, [TYPED], b"x")
    assert errors(caplog) == [
        "plugin p0: a fault after its answer, which stands: http.response.start after the response was complete"
    ]


def test_beginning_to_answer_and_then_calling_the_upstream(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(403))
        await upstream(scope, receive, send)

    assert answer(app) == REFUSED
    assert errors(caplog) == ["plugin p0: request refused: http.response.start twice"]


def test_background_tasks_outlive_the_answer() -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        done: list[bool] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await responding(start(), body(b"x"))(scope, receive, send)
            await go_on.wait()
            done.append(True)

        gateway = Gateway()
        chain = await chain_of(app)
        task = asyncio.create_task(run(chain, None, gateway))
        await gateway.answered.wait()
        assert gateway.answers == [HTTPReqCallResp(5, Stop(200, [TYPED], b"x"))]
        assert gateway.call is not None and gateway.call.stage is ANSWERED
        assert (done, chain.calls) == ([], 1)
        go_on.set()
        await task
        assert (done, chain.calls) == ([True], 0)

    asyncio.run(main())


@pytest.mark.parametrize("said", [start(), body(b"x")])
def test_sending_to_a_gateway_that_has_gone(said: Message, caplog: pytest.LogCaptureFixture) -> None:
    raised: list[str] = []
    gateway = Gateway()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if said["type"] == "http.response.body":
            await send(start())
        gateway.disconnect()
        try:
            await send(said)
        except OSError as exc:
            raised.append(str(exc))
            raise

    async def main() -> None:
        await run(await chain_of(app), None, gateway)

    caplog.set_level(logging.DEBUG, "asgi_bridge")
    asyncio.run(main())
    assert raised == ["the gateway has closed the connection"]
    assert gateway.answers == []
    records = [(record.levelno, record.getMessage()) for record in caplog.records if "asgi_bridge" in record.name]
    reason = "OSError: the gateway has closed the connection, after the gateway had closed the connection"
    assert records == [(logging.DEBUG, f"plugin p0: {reason}")]


def test_a_swallowed_fault_of_the_plugin_itself_still_lets_it_refuse() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(PluginError):
            await send(start(headers=[(b"x-a", b"\n")]))
        await responding(start(500), body(b"x"))(scope, receive, send)

    assert answer(app) == Stop(500, [TYPED], b"x")


def test_a_swallowed_fault_lets_nothing_pass(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(PluginError):
            await send(start(headers=[(b"x-a", b"\n")]))
        await upstream(scope, receive, send)

    assert answer(app) == REFUSED
    assert errors(caplog) == ["plugin p0: request refused: header x-a: its value holds a CR, LF or NUL"]
    assert warnings(caplog) == []


OWS = [(b" 1", b"1"), (b"1\t ", b"1"), (b"\t a b ", b"a b"), (b"a\tb", b"a\tb"), (b"\xa0", b"\xa0")]


@pytest.mark.parametrize(("value", "sent"), OWS)
@pytest.mark.parametrize("as_given", [bytes, bytearray])
def test_blanks_around_a_value_are_no_part_of_it(value: bytes, sent: bytes, as_given: Any) -> None:
    headers = [(b"X-A", as_given(value))]
    assert answer(responding(start(headers=[TYPED, *headers]), body(b"x"))) == Stop(200, [TYPED, (b"x-a", sent)], b"x")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].extend(headers)
            await send(message)

        await upstream(scope, receive, sending)

    assert answer(app) == Rewrite(resp_headers=[(b"x-a", sent)])


def test_a_value_of_blanks_alone_is_an_empty_one(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(responding(start(headers=[TYPED, (b"x-a", b" \t")]), body(b"x"))) == Stop(200, [TYPED], b"x")
    assert warnings(caplog) == ["plugin p0: an empty header deletes it in APISIX: the client gets no x-a"]
