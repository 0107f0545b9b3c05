"""``shadow=True``: what can be mounted so, and what a chain with shadows is to the gateway."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError, upstream
from asgi_bridge.plugins.shadow import ShadowLayer, copied
from asgi_bridge.plugins.shadow_record import SUMMARY_SECONDS, ShadowRecord, Verdict

from .calls import FakeCall, answering, chain_of


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"shadow": True, "phase": "both"},
            "option shadow: a plugin of phase 'both' waits for the response inside of the request, which a shadow "
            "cannot: mount it with phase='request' or phase='response', or with phase='auto' and list it in both",
        ),
        (
            {"shadow": True, "exact": True},
            "option shadow: exact=True asks the gateway before the plugins of the route run, and all of them would see "
            "other values: remove exact=True",
        ),
        ({"sample": 0.1}, "option sample: it is the share of requests of a shadow: add shadow=True"),
        ({"shadow": True, "sample": 0.0}, "option sample: Input should be greater than 0"),
        ({"shadow": True, "sample": 1.5}, "option sample: Input should be less than or equal to 1"),
        ({"shadow": 1}, "option shadow: Input should be a valid boolean"),
    ],
)
def test_a_shadow_that_cannot_work_is_refused_where_it_is_mounted(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Bridge().mount("x", upstream, **options)
    assert str(raised.value) == f"plugin x: {reason}"


def test_a_table_of_a_pyproject_mounts_a_shadow() -> None:
    bridge = Bridge()
    table = {"app": "asgi_bridge:upstream", "shadow": True, "sample": 0.1}
    bridge.configure({"plugins": {"x": table}})
    plugin = bridge.plugins["x"]
    assert (plugin.options.shadow, plugin.options.sample) == (True, 0.1)
    assert plugin.shadow is not None
    assert plugin.acting().shadow is None
    assert not plugin.acting().options.shadow


def test_a_chain_is_to_the_gateway_what_it_is_without_its_shadows() -> None:
    bridge = Bridge()
    bridge.mount("a", upstream, request_headers=["x-a"])
    bridge.mount("shadow", upstream, shadow=True, phase="response", cures=False, request_headers=["x-shadow"])
    chain, plain = chain_of(bridge, "shadow", "a", key=None), chain_of(bridge, "a", key=None)
    words = ("names", "exact", "cures", "both", "request", "response", "request_headers")
    assert [getattr(chain, word) for word in words] == [getattr(plain, word) for word in words]
    assert [type(layer) is ShadowLayer for layer in chain.layers] == [True, False]


def refusing_factory(conf: dict[str, str]) -> ASGIApp:
    raise ValueError("no")


def test_a_shadow_that_cannot_be_built_does_not_refuse_the_route(caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge()
    bridge.plugin("shadow", shadow=True)(refusing_factory)
    bridge.mount("late", upstream, shadow=True, phase="response")
    bridge.mount("stop", answering(418))
    chain = chain_of(bridge, ("shadow", "{}"), ("shadow", "{"), "late", "stop")
    said = "it is mounted with shadow=True, so requests pass without it"
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(said)[0] for line in lines] == [
        "plugin late: route 1: ", "plugin shadow: route 1: ", "plugin shadow: route 1: ",
    ]  # fmt: skip
    assert lines[2].endswith("it could not be built: ValueError: no")
    call = FakeCall()
    asyncio.run(call.through(chain))
    assert call.status() == 418
    counts = [bridge.plugins[name].shadow.counts["skipped"] for name in ("shadow", "late")]  # type: ignore[union-attr]
    assert counts == [2, 1]


def test_a_factory_that_hangs_holds_a_route_up_for_a_second_at_most(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_bridge.plugins.build.SHADOW_SECONDS", 0.01)

    async def factory(conf: dict[str, str]) -> ASGIApp:
        await asyncio.Event().wait()
        raise AssertionError

    bridge = Bridge()
    bridge.plugin("shadow", shadow=True)(factory)
    bridge.mount("stop", answering(418))
    call = FakeCall()
    asyncio.run(call.through(chain_of(bridge, ("shadow", "{}"), "stop")))
    assert call.status() == 418
    assert "building took more than 0.01 s" in caplog.text


def test_without_a_runner_no_shadow_runs() -> None:
    ran: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ran.append(scope)

    bridge = Bridge()
    bridge.mount("shadow", app, shadow=True)
    call = FakeCall()
    asyncio.run(call.through(chain_of(bridge, "shadow")))
    assert (call.status(), ran) == (200, [])


class Session(dict[str, Any]):
    modified = False


def test_copies_have_containers_of_their_own_and_share_everything_else() -> None:
    shared = object()
    session = Session(user={"roles": ["a"]})
    session.modified = True
    value = {"list": [1, [2], {3}], "session": session, "bytes": bytearray(b"x"), "tuple": (shared,), "object": shared}
    copy = copied(value)
    assert copy == value
    copy["list"][1].append(4)
    copy["list"][2].clear()
    copy["session"]["user"]["roles"].append("b")
    copy["session"]["new"] = 1
    copy["bytes"].extend(b"y")
    assert value == {
        "list": [1, [2], {3}], "session": {"user": {"roles": ["a"]}}, "bytes": b"x", "tuple": (shared,),
        "object": shared,
    }  # fmt: skip
    assert (type(copy["session"]), copy["session"].modified, copy["object"] is shared) == (Session, True, True)


def test_the_counts_are_logged_once_a_minute_and_at_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    now = 1000.0
    monkeypatch.setattr("asgi_bridge.plugins.shadow_record.monotonic", lambda: now)
    record = ShadowRecord("auth")
    for outcome in ("pass", "pass", "stop 401"):
        record.note(Verdict(outcome, "", "GET /"), "7")
    record.sweep(now + SUMMARY_SECONDS / 2)
    assert caplog.messages == []
    now += SUMMARY_SECONDS
    record.sweep(now)
    record.sweep(now + SUMMARY_SECONDS)
    assert caplog.messages == ["plugin auth: shadow: 3 requests: 2 pass, 1 stop 401"]
    record.note(Verdict("error", "", "GET /"), "7")
    record.sweep(float("inf"))
    assert caplog.messages[1:] == ["plugin auth: shadow: 1 requests: 1 error"]
