"""What is the same, what differs, and what cannot be compared: one call of each kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.replay import Replayed, text_lines
from asgi_bridge.wire import HTTPReqCallReq, HTTPRespCallReq, HTTPRespCallResp

from ..doubles.connection import HEADERS, Connection
from .test_replay import recorded, replayed
from .traffic import ask_gateway, make_bridge, prepare, respond

Application = Callable[[Scope, Receive, Send], Any]
VARIABLES: dict[bytes, bytes | None] = {
    b"scheme": b"https", b"http_host": b"b.test", b"server_addr": b"10.0.0.1", b"server_port": b"443",
    b"server_protocol": b"HTTP/1.1", b"real_request_uri": b"/x", b"remote_port": b"4711", b"request_id": b"r1",
    b"request_method": b"GET", b"uri": b"/x", b"remote_addr": b"192.0.2.1",
}  # fmt: skip


def request(token: int, *headers: tuple[bytes, bytes], args: Any = None) -> HTTPReqCallReq:
    return HTTPReqCallReq(1, b"\x7f\0\0\1", "GET", b"/x", args, [*HEADERS, *headers], token)


def alone(plugin: Application) -> Bridge:
    bridge = Bridge()
    bridge.mount("it", plugin)
    return bridge


def recorded_call(
    path: Path, bridge: Bridge, *headers: tuple[bytes, bytes], conf: str = "{}", args: Any = None, **options: Any
) -> None:
    """Record one call of the plugin ``it``."""
    with recorded(path, bridge, **options) as runner, runner.connect() as connection:
        ask_gateway(connection, request(prepare(connection, ("it",), "1", conf=conf), *headers, args=args), VARIABLES)


def verdict(path: Path, bridge: Bridge) -> tuple[str, str, list[str]]:
    """Replay the one call; return its verdict, the reason, and what is shown of it."""
    (call,) = replayed(path, bridge.plugins)
    return call.verdict.value, call.why, list(text_lines(call))


async def passing(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream(scope, receive, send)


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, 403, b"no")


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    raise KeyError("key")


async def asking(scope: Scope, receive: Receive, send: Send) -> None:
    await apisix(scope).var("remote_user")
    await upstream(scope, receive, send)


async def session(scope: Scope, receive: Receive, send: Send) -> None:
    known = Headers(scope=scope).get("cookie") == "sid=12345678abcdef"
    MutableHeaders(scope=scope)["x-user"] = "alice" if known else "nobody"
    await upstream(scope, receive, send)


async def key_in_query(scope: Scope, receive: Receive, send: Send) -> None:
    if "api_key=12345678" in scope["query_string"].decode():
        await upstream(scope, receive, send)
    else:
        await respond(send, 401, b"")


def test_an_action_that_differs_is_shown_with_what_went_wrong(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    recorded_call(path, alone(passing))
    assert verdict(path, alone(passing)) == ("same", "", ["GET /x - request phase, route 1, plugin it (line 3)"])
    first = "GET /x - request phase, route 1, plugin it (line 3)"
    assert verdict(path, alone(refusing)) == (
        "differs",
        "",
        [first, "  - pass", "  + stop 403", "  + header content-type: text/plain", "  + body no"],
    )
    assert verdict(path, alone(raising)) == (
        "differs",
        "",
        [first, "  - pass", "  + error SERVICE_UNAVAILABLE", "  today: KeyError: 'key'"],
    )


def test_what_the_recorded_plugins_did_not_ask_for_cannot_be_compared(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    recorded_call(path, alone(passing))
    found, why, _ = verdict(path, alone(asking))
    assert (found, why) == ("unknown", "today's plugins ask for $remote_user, which the recording does not have")


def test_a_plugin_that_reads_a_redacted_value_may_differ_only_here(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    recorded_call(path, alone(session), (b"cookie", b"sid=12345678abcdef"))
    found, why, lines = verdict(path, alone(session))
    assert (found, why) == ("differs", "today's plugins look at what is redacted: header cookie")
    assert lines[1:] == [
        "  may differ only here: today's plugins look at what is redacted: header cookie",
        "  - header x-user: alice",
        "  + header x-user: nobody",
    ]


@pytest.mark.parametrize("secrets", [True, False])
def test_an_argument_that_is_a_key(secrets: bool, tmp_path: Path) -> None:
    path = tmp_path / "calls"
    args = [(b"page", b"2"), (b"api_key", b"12345678")]
    recorded_call(path, alone(key_in_query), args=args, secrets=secrets)
    reason = "today's plugins refuse it, and look at what is redacted: argument api_key"
    assert verdict(path, alone(key_in_query))[:2] == (("same", "") if secrets else ("unknown", reason))
    # a refusal of a plugin that does not read it is one
    assert verdict(path, alone(refusing))[:2] == ("differs", "")


class Short(BaseModel):
    note: str = ""
    code: SecretStr = Field(default=SecretStr(""), max_length=64)


class Numbers(BaseModel):
    note: int = 0
    code: SecretStr = Field(default=SecretStr(""), max_length=4)


def configured(model: type[BaseModel]) -> Bridge:
    bridge = Bridge()

    def it(app: ASGIApp, conf: Any) -> ASGIApp:
        return app

    it.__annotations__["conf"] = model
    bridge.plugin("it")(it)
    return bridge


def test_a_configuration_that_todays_plugin_refuses_differs_unless_the_field_is_redacted(tmp_path: Path) -> None:
    plain, hidden = tmp_path / "plain", tmp_path / "hidden"
    recorded_call(plain, configured(Short), conf='{"note": "x"}')
    recorded_call(hidden, configured(Short), conf='{"code": "12345678"}')
    assert b"12345678" not in hidden.read_bytes()
    assert verdict(plain, configured(Short))[0] == verdict(hidden, configured(Short))[0] == "same"
    found, why, lines = verdict(plain, configured(Numbers))
    assert (found, why, lines[1:3]) == ("differs", "", ["  - pass", "  + error BAD_REQUEST"])
    assert lines[3].startswith("  + reason plugin it: ")
    assert "note" in lines[3]
    assert verdict(hidden, configured(Numbers))[:2] == ("unknown", "configuration code is redacted")


def test_a_plugin_that_is_not_mounted_any_more_differs(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    recorded_call(path, alone(passing))
    other = Bridge()
    other.mount("other", passing)
    found, why, lines = verdict(path, other)
    assert (found, why) == ("differs", "")
    assert "it" in lines[3]


def record_both(connection: Connection) -> None:
    before, after = (prepare(connection, ("stamp",), "1", phase) for phase in ("pre-req", "post-resp"))
    ask_gateway(connection, request(before), VARIABLES)
    answer = ask_gateway(connection, HTTPRespCallReq(1, 200, [(b"a", b"b")], after), VARIABLES, None, b"hello")
    assert isinstance(answer, HTTPRespCallResp)
    assert (b"x-stamp", b"x 200") in (answer.headers or [])


def both(path: Path) -> list[Replayed]:
    with recorded(path, make_bridge()) as runner, runner.connect() as connection:
        record_both(connection)
    return replayed(path, make_bridge().plugins)


def test_the_halves_of_a_request_belong_together(tmp_path: Path) -> None:
    calls = both(tmp_path / "calls")
    assert [(call.verdict.value, call.phase, call.method, call.path, call.then["kind"]) for call in calls] == [
        ("same", "request", "GET", "/x", "pass"), ("same", "response", "GET", "/x", "response"),
    ]  # fmt: skip


def test_a_response_half_without_its_request_half_cannot_be_compared(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    both(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"parked":true' not in line))
    plugins = make_bridge().plugins
    (call,) = replayed(path, plugins)
    # the request of the response form is not known either
    assert (call.verdict.value, call.why) == ("unknown", "its request half is not in the recording")

    def stamp(app: ASGIApp) -> ASGIApp:
        async def stamped(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope, receive, send)

        return stamped

    changed = Bridge()
    changed.add_middleware("stamp", stamp, phase="both")
    (call,) = replayed(path, changed.plugins)
    assert (call.verdict.value, call.why) == ("unknown", "its request half is not in the recording")


def test_requests_whose_origin_was_asked_for_are_replayed_so(tmp_path: Path) -> None:
    async def origin(scope: Scope, receive: Receive, send: Send) -> None:
        MutableHeaders(scope=scope)["x-origin"] = f"{scope['scheme']} {scope['server']}"
        await upstream(scope, receive, send)

    path = tmp_path / "calls"
    with recorded(path, alone(origin), ask_origin=True) as runner, runner.connect() as connection:
        ask_gateway(connection, request(prepare(connection, ("it",), "1")), VARIABLES)
    (call,) = replayed(path, alone(origin).plugins)
    assert (call.verdict.value, call.then["headers"]) == ("same", [["x-origin", "https ('10.0.0.1', 443)"]])
