"""Errors of the bridge that a plugin catches: each is in the log, once, whatever the plugin makes of it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.wire import HTTPRespCallResp, Stop
from asgi_bridge.wsgi import WSGIApp
from asgi_bridge.wsgi import upstream as wsgi_upstream

from .calls import REFUSED, Gateway, answer, chain_of, errors, request, run
from .phases import PRE_REQ, Exchange, begin, chain, fresh_host, respond, response

HUGE = request((b"content-length", b"20000000"), (b"content-type", b"application/json"), method="POST")
TOO_LONG = (
    "the request body has 20000000 bytes, and only 16777215 can be handed over; mount the plugin with "
    "request_body=False if it does not change the body"
)
TYPE = (b"content-type", b"text/plain")

Step = Callable[[Scope, Receive, Send], Awaitable[object]]


def catching(step: Step, status: int = 400) -> ASGIApp:
    """A plugin that answers `status` when `step` raises; 0: it passes the request on then."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await step(scope, receive, send)
        except Exception:
            if not status:
                await upstream(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": status, "headers": [TYPE]})
            await send({"type": "http.response.body", "body": b"no"})
        else:
            raise AssertionError

    return app


def caught(text: str, outcome: str) -> list[str]:
    return [f"plugin p0: {text}; the plugin caught this error and answered: {outcome}"]


async def receives(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


async def asks(scope: Scope, receive: Receive, send: Send) -> None:
    await apisix(scope).var()  # type: ignore[call-overload]


async def changes_the_method(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream({**scope, "method": "PURGE"}, receive, send)


async def splits_the_response(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1\r\nx-b: 2")]})


async def has_no_status(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 101, "headers": []})


async def calls_on_twice(scope: Scope, receive: Receive, send: Send) -> None:
    async def nowhere(message: Message) -> None: ...

    await upstream(scope, receive, nowhere)
    await upstream(scope, receive, send)


CAUGHT: list[tuple[Step, str]] = [
    (receives, TOO_LONG),
    (asks, "var takes names of variables, not ()"),
    (changes_the_method, "the method was changed to 'PURGE', which the protocol cannot express"),
    (splits_the_response, "header x-a: its value holds a CR, LF or NUL"),
    (has_no_status, "status 101: a response has a status from 200 to 999"),
    (calls_on_twice, "the upstream was called twice; the gateway sends a request once"),
]


@pytest.mark.parametrize(("step", "text"), CAUGHT)
def test_a_plugin_that_answers_instead(step: Step, text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(catching(step), message=HUGE) == Stop(400, [TYPE], b"no")
    assert errors(caplog) == caught(text, "stop 400")


@pytest.mark.parametrize(("step", "text"), CAUGHT[:2])
def test_a_plugin_that_passes_the_request_on(step: Step, text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(catching(step, 0), message=HUGE) is None
    assert errors(caplog) == caught(text, "pass")


@pytest.mark.parametrize(("step", "text"), CAUGHT[2:])
def test_what_it_sent_wrongly_lets_nothing_pass(step: Step, text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(catching(step, 0), message=HUGE) == REFUSED
    assert errors(caplog)[-1].startswith("plugin p0: request refused: ")
    assert any(text in line for line in errors(caplog))


def test_a_body_that_fastapi_makes_a_400_of(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()

    @app.post("/x")
    async def take(request: Request, item: dict[str, int]) -> dict[str, int]:
        return item

    found = answer(app, message=HUGE)
    assert (found.status, json.loads(found.body)) == (400, {"detail": "There was an error parsing the body"})
    assert errors(caplog) == caught(TOO_LONG, "stop 400")


def test_a_body_that_the_gateway_could_not_read(caplog: pytest.LogCaptureFixture) -> None:
    message = request((b"content-length", b"5"), method="POST")
    assert answer(catching(receives), message=message, body=None) == Stop(400, [TYPE], b"no")
    assert [line.startswith("plugin p0: the gateway could not read the request body") for line in errors(caplog)] == [
        True
    ]


def test_an_error_that_comes_out_again_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
        finally:
            scope["state"]["ended"] = True

    assert answer(app, message=HUGE) == REFUSED
    assert errors(caplog) == [f"plugin p0: request refused: {TOO_LONG}"]


def test_the_same_error_many_times_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for step in (receives, receives, asks, asks, *[receives] * 100):
            with pytest.raises(Exception):  # noqa: B017
                await step(scope, receive, send)
        await upstream(scope, receive, send)

    assert answer(app, message=HUGE) is None
    assert errors(caplog) == [*caught(TOO_LONG, "pass"), *caught("var takes names of variables, not ()", "pass")]


def test_an_upstreams_body_that_is_too_long(caplog: pytest.LogCaptureFixture) -> None:
    async def reads_the_response(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            await send(message)

        await upstream(scope, receive, sending)

    async def main() -> Exchange:
        found = await chain({"p0": catching(reads_the_response, 502)})
        return await respond(found, response((b"content-length", b"20000000")))

    (found,) = asyncio.run(main()).answers
    assert found == HTTPRespCallResp(9, 502, [TYPE], b"no")
    assert errors(caplog) == caught(
        "the upstream's body has 20000000 bytes, and only 16777215 can be handed over; mount the plugin with "
        "response_body=False if it does not change the body",
        "response 502",
    )


def test_a_call_that_parks_says_it_when_it_does(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Any:
        plugin = await chain({"p0": catching(receives, 0)}, PRE_REQ, phase="both")
        call, action = await begin(plugin, fresh_host(), HUGE)
        lines = errors(caplog)
        call.abandon()
        return action, lines

    assert asyncio.run(main()) == (None, caught(TOO_LONG, "parked"))


def test_after_the_answer_it_is_said_at_once(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream(scope, receive, send)
        with pytest.raises(Exception, match="cannot be asked any more"):
            await apisix(scope).var("x")
        lines.extend(errors(caplog))

    assert answer(app) is None
    assert lines == [
        "plugin p0: a fault after its answer, which stands: the call has been answered: the gateway cannot be asked "
        "any more"
    ]
    assert errors(caplog) == lines


def test_a_gateway_that_has_gone_is_nobodys_fault(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(holding=True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().call_soon(gateway.disconnect)
        with pytest.raises(Exception):  # noqa: B017
            await apisix(scope).var("x")

    async def main() -> None:
        await run(await chain_of(app), request(), gateway)

    asyncio.run(main())
    assert (gateway.answers, errors(caplog)) == ([], [])


def twice(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [])
    try:
        start_response("200 OK", [])
    except Exception:
        return [b"all the same"]
    raise AssertionError


def no_latin_1(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    environ["HTTP_X_A"] = "\u20ac"
    try:
        wsgi_upstream(environ, start_response)
    except Exception:
        start_response("400 Bad Request", [])
        return [b"no"]
    raise AssertionError


def too_long(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    try:
        environ["wsgi.input"].read()
    except Exception:
        start_response("413 Too Long", [])
        return [b"no"]
    raise AssertionError


@pytest.mark.parametrize(
    ("wsgi", "status", "line"),
    [
        (twice, 200, "start_response was called twice without exc_info (PEP 3333); the WSGI application has caught it"),
        (no_latin_1, 400, "environ['HTTP_X_A'] was changed to text that is not latin-1 (PEP 3333); the WSGI "
                          "application has caught it"),
        (too_long, 413, f"{TOO_LONG}; the plugin caught this error and answered: stop 413"),
    ],
)  # fmt: skip
def test_wsgi_code_that_catches(wsgi: Any, status: int, line: str, caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge()
    bridge.mount("p0", WSGIApp(wsgi))
    found = answer(bridge=bridge, message=HUGE)
    assert (found.status, errors(caplog)) == (status, [f"plugin p0: {line}"])
