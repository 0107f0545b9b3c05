"""``request-id`` gives each request one id, in a header for upstream and client."""

import re
import uuid
from functools import partial
from typing import Any

import pytest
from asgi_bridge_apps import bridge
from asgi_bridge_apps.request_id import request_id
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.testing import Gateway, PluginClient

from .routes import gateway, sent

GOOD = ["1", "0af7651916cd43dd8448eb211c80319c", "Root=1-67891233-abcdef", "a.b_c~d+e/f=:@", "x" * 128]
BAD = ["", " ", "x" * 129, "a b", "a,b", "a;b", "${jndi:x}", "<b>", "a\tb", "ü", '"', "a\x00b"]


def client(conf: Any = None, **kwargs: Any) -> PluginClient:
    made = Bridge()
    made.plugin("request-id")(partial(request_id, make=lambda: "made"))
    return PluginClient(made, "request-id", conf or {}, **kwargs)


def test_a_request_without_an_id_gets_one_for_upstream_and_client() -> None:
    answer = client().get("/")

    assert (sent(answer, "x-request-id"), answer.headers["x-request-id"]) == ([["x-request-id", "made"]], "made")


def test_the_mounted_plugin_makes_uuids() -> None:
    ids = [PluginClient(bridge, "request-id", {}).get("/").headers["x-request-id"] for _ in range(2)]

    assert [uuid.UUID(each).version for each in ids] == [4, 4] and ids[0] != ids[1]


@pytest.mark.parametrize("id_sent", GOOD)
def test_a_good_id_of_the_client_is_kept(id_sent: str) -> None:
    answer = client().get("/", headers={"X-Request-ID": id_sent})

    assert (sent(answer, "x-request-id"), answer.headers["x-request-id"]) == ([["x-request-id", id_sent]], id_sent)


@pytest.mark.parametrize("id_sent", BAD)
def test_a_bad_id_of_the_client_is_replaced(id_sent: str) -> None:
    answer = client().get("/", headers=[(b"x-request-id", id_sent.encode())])

    assert (sent(answer, "x-request-id"), answer.headers["x-request-id"]) == ([["x-request-id", "made"]], "made")


@pytest.mark.parametrize(
    ("conf", "headers"),
    [
        ({"accept": False}, [("x-request-id", "1")]),
        ({}, [("x-request-id", "1"), ("x-request-id", "2")]),
        ({}, [("x-request-id", "1"), ("x_request_id", "2")]),
    ],
)
def test_an_id_that_is_not_accepted_or_repeated_is_replaced(conf: Any, headers: list[tuple[str, str]]) -> None:
    assert sent(client(conf).get("/", headers=headers), "x-request-id", "x_request_id") == [["x-request-id", "made"]]


def test_another_header_and_no_header_for_the_client() -> None:
    answer = client({"header_name": "X-Trace", "include_in_response": False}).get("/", headers={"x-request-id": "1"})

    assert sent(answer, "x-trace", "x-request-id") == [["x-request-id", "1"], ["x-trace", "made"]]
    assert "x-trace" not in answer.headers


def test_the_id_can_be_the_gateways_own() -> None:
    conf = {"algorithm": "gateway"}

    assert client(conf, variables={"request_id": "abc"}).get("/").headers["x-request-id"] == "abc"
    assert client(conf).get("/").headers["x-request-id"] == "made"
    with TestClient(gateway(bridge, "request-id", conf)) as gate:
        answer = gate.get("/")
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert sent(answer, "x-request-id") == [["x-request-id", answer.headers["x-request-id"]]]


def test_answers_of_inner_plugins_have_the_id_too() -> None:
    made = Bridge()
    made.include(bridge)
    plugins = [("request-id", {}), ("stop", {"status": 401})]

    answer = PluginClient(made, plugins).get("/", headers={"x-request-id": "1"})

    assert (answer.status_code, answer.headers["x-request-id"]) == (401, "1")


@pytest.mark.parametrize(("phase", "got"), [("request", ["1", "upstream's"]), ("both", ["1"])])
def test_through_the_gateway_with_an_upstream_that_has_an_id_of_its_own(phase: Any, got: list[str]) -> None:
    made = Bridge()
    made.plugin("request-id", phase=phase, response_body=False)(request_id)
    entry = {"conf": [{"name": "request-id", "value": "{}"}]}
    phases = ["ext-plugin-pre-req", "ext-plugin-post-resp"][: 2 if phase == "both" else 1]
    routes = [{"uri": "/*", "plugins": dict.fromkeys(phases, entry)}]

    with TestClient(Gateway(made, routes, PlainTextResponse("x", headers={"X-Request-ID": "upstream's"}))) as gate:
        answer = gate.get("/", headers={"x-request-id": "1"})

    assert sorted(answer.headers.get_list("x-request-id")) == got


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"header_name": "a b"}, "field 'header_name': String should match pattern"),
        ({"header_name": "Host"}, "field 'header_name': Value error, host has another meaning"),
        ({"algorithm": "snowflake"}, "field 'algorithm': Input should be 'uuid' or 'gateway'"),
        ({"accept": 1}, "field 'accept': Input should be a valid boolean"),
        ({"header": "x"}, "field 'header': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration(conf: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin request-id: {reason}"):
        client(conf).get("/")
