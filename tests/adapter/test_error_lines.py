"""What error lines say of a call, although nobody logs or counts every call."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.adapter import Call, RequestCall, ResponseCall
from asgi_bridge.plugins import build_chain

from .calls import HOST, KEY, Gateway, passing, request
from .phases import POST_RESP, Exchange, response


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    await apisix(scope).var("request_id")
    raise RuntimeError("no database")


async def late(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream(scope, receive, send)
    raise RuntimeError("too late")


async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


def logged(app: ASGIApp, phase: str, caplog: pytest.LogCaptureFixture, **options: Any) -> dict[str, Any]:
    """Run a plugin inside of another one. Returns what its error line says of the call."""
    bridge = Bridge()
    bridge.mount("outer", passing())
    bridge.mount("inner", app, **options)
    conf = [(b"outer", b""), (b"inner", b"")]

    async def main() -> None:
        call: Call
        if phase == "request":
            chain = await build_chain(bridge.plugins, KEY, conf, None)
            message = request(method="PUT", path=b"/orders")
            call = RequestCall(message, chain, Gateway({"request_id": b"3f2a"}), HOST)
        else:
            chain = await build_chain(bridge.plugins, POST_RESP, conf, None)
            call = ResponseCall(response(), chain, Exchange(), HOST)
        task = call.task = asyncio.get_running_loop().create_task(call.run())
        if app is hanging:
            while call.entered().keys() != {*chain.layers}:  # noqa: ASYNC110 the plugin tells nobody
                await asyncio.sleep(0)
            call.expire()
        await asyncio.wait([task])

    asyncio.run(main())
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    return dict(vars(record)["call"])


@pytest.mark.parametrize(
    ("app", "options", "said"),
    [
        (failing, {}, {"plugin": "inner", "request_id": "3f2a"}),
        (failing, {"on_error": "open"}, {"plugin": "inner", "request_id": "3f2a"}),
        (late, {}, {"plugin": "inner"}),
        (hanging, {"timeout": 0.5}, {"plugin": "inner"}),
    ],
)
def test_an_error_line_of_a_request_names_the_call(
    app: ASGIApp, options: dict[str, Any], said: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    call = logged(app, "request", caplog, **options)
    assert call.pop("milliseconds") >= 0
    assert call == {"method": "PUT", "path": "/orders", "route": "7", "phase": "request", **said}


@pytest.mark.parametrize(
    ("app", "options"), [(failing, {}), (failing, {"on_error": "open"}), (late, {}), (hanging, {"timeout": 0.5})]
)
def test_an_error_line_of_a_response_names_the_call(
    app: ASGIApp, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    call = logged(app, "response", caplog, **options)
    assert call.pop("milliseconds") >= 0
    assert call.pop("request_id", "3f2a")
    assert call == {"method": "GET", "path": "/x", "route": "7", "phase": "response", "plugin": "inner"}
