"""What a plugin does to the response in the request phase: headers are carried to the client, the rest is not."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import upstream
from asgi_bridge.wire import Rewrite, Stop, TextEntry

from .calls import REFUSED, answer, chain_of, errors, run, warnings


def changing(change: Callable[[Message], Any]) -> ASGIApp:
    """A plugin that changes the messages of the response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            change(message)
            await send(message)

        await upstream(scope, receive, sending)

    return app


def starting(**changes: Any) -> ASGIApp:
    """A plugin that changes the start of the response."""

    def change(message: Message) -> None:
        if message["type"] == "http.response.start":
            message.update(changes)

    return changing(change)


def test_the_upstream_answers_an_empty_200() -> None:
    found: list[Message] = []
    assert answer(changing(lambda message: found.append({**message}))) is None
    assert found == [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b"", "more_body": False},
    ]


@pytest.mark.parametrize("headers", [[(b"x-a", b"1")], [(b"X-A", b"1")], [[b"x-a", memoryview(b"1")]]])
def test_headers_are_carried_to_the_client(headers: Any) -> None:
    assert answer(starting(headers=headers)) == Rewrite(resp_headers=[(b"x-a", b"1")])


def test_headers_beside_a_changed_request() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = "/y"
        await starting(headers=[(b"x-a", b"1")])(scope, receive, send)

    assert answer(app) == Rewrite(path=b"/y", resp_headers=[(b"x-a", b"1")])


def test_every_layer_may_add_one() -> None:
    def adding(name: str) -> ASGIApp:
        def change(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("x-layer", name)

        return changing(change)

    assert answer(adding("outer"), adding("inner")) == Rewrite(
        resp_headers=[(b"x-layer", b"inner"), (b"x-layer", b"outer")]
    )


def test_set_cookie_keeps_its_repeats_and_order() -> None:
    cookies: list[TextEntry] = [(b"set-cookie", b"b=2"), (b"vary", b"a"), (b"set-cookie", b"a=1; Path=/")]
    assert answer(starting(headers=cookies)) == Rewrite(resp_headers=cookies)


@pytest.mark.parametrize(
    "name",
    [
        "content-security-policy", "content-security-policy-report-only", "cache-control", "vary", "link", "date",
        "strict-transport-security", "access-control-allow-origin", "x-content-type-options",
    ],
)  # fmt: skip
def test_headers_that_do_not_describe_a_body_are_carried(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(starting(headers=[(name.encode(), b"1")])) == Rewrite(resp_headers=[(name.encode(), b"1")])
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    "name",
    [
        # dropped by APISIX without a word
        "connection", "transfer-encoding", "location", "server", "www-authenticate", "content-encoding",
        "content-type", "content-location", "content-language",
        # of the empty response, not of the upstream's
        "etag", "last-modified", "age", "expires", "digest", "content-md5", "content-range", "content-disposition",
    ],
)  # fmt: skip
def test_headers_that_cannot_be_carried_are_warned_of_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[Any]:
        chain = await chain_of(starting(headers=[(name.encode(), b"1"), (b"x-a", b"1")]))
        return [(await run(chain)).answers[0].action for _ in range(2)]

    assert asyncio.run(main()) == [Rewrite(resp_headers=[(b"x-a", b"1")])] * 2
    assert warnings(caplog) == [
        f"plugin p0: the response header {name} cannot be set in the request phase and is dropped: mount the plugin "
        "for the response phase if its headers matter"
    ]


def test_content_length_is_dropped_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(starting(headers=[(b"content-length", b"0")])) is None
    assert warnings(caplog) == []


def test_an_empty_header(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(starting(headers=[(b"x-a", b"")])) is None
    assert warnings(caplog) == ["plugin p0: an empty header deletes it in APISIX: the client gets no x-a"]


def test_a_header_that_splits_the_response(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(starting(headers=[(b"x-a", b"1\r\nx-b: 2")])) == REFUSED
    assert errors(caplog) == ["plugin p0: request refused: header x-a: its value holds a CR, LF or NUL"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_an_error_status_refuses_the_request(status: int) -> None:
    def change(message: Message) -> None:
        if message["type"] == "http.response.start":
            message.update(status=status, headers=[(b"content-type", b"text/x"), (b"etag", b"1")])
        else:
            message["body"] = b"no"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = "/y"
        await changing(change)(scope, receive, send)

    assert answer(app) == Stop(status, [(b"content-type", b"text/x"), (b"etag", b"1")], b"no")


@pytest.mark.parametrize("status", [201, 204, 206, 301, 304, 399])
def test_any_other_status_is_dropped(status: int, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(starting(status=status, headers=[(b"x-a", b"1")])) == Rewrite(resp_headers=[(b"x-a", b"1")])
    assert warnings(caplog) == [
        "plugin p0: in the request phase the upstream has not answered yet: a change of the status to "
        f"{status} is dropped (400 and above refuse the request)"
    ]


def test_a_body_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[Any]:
        chain = await chain_of(changing(lambda message: message.update(body=b"more")))
        return [(await run(chain)).answers[0].action for _ in range(2)]

    assert asyncio.run(main()) == [None, None]
    assert warnings(caplog) == [
        "plugin p0: in the request phase the upstream has not answered yet: a response body is dropped"
    ]


def test_a_plugin_that_swallows_the_response(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def nowhere(message: Message) -> None: ...

        await upstream(scope, receive, nowhere)

    assert answer(app) == REFUSED
    assert errors(caplog) == ["plugin p0: request refused: it ended without a complete response"]


def test_raising_after_the_upstream_has_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream(scope, receive, send)
        raise KeyError("late")

    assert answer(app) is None
    assert errors(caplog) == ["plugin p0: a fault after its answer, which stands: KeyError: 'late'"]
