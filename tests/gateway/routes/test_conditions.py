"""What decides at a request: the client's address and variables for a route, ``_meta.filter`` for a plugin."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from asgi_bridge.gateway import GatewayApp, echo, read_routes
from asgi_bridge.wire.messages import HTTPReqCallReq, HTTPReqCallResp, HTTPRespCallReq, HTTPRespCallResp
from tests.gateway.runner_double import RunnerDouble

UP = {"nodes": {"up.test:80": 1}}
CONF = {"conf": [{"name": "a", "value": "{}"}]}


def client(runner: RunnerDouble, *routes: dict[str, Any], **sections: Any) -> TestClient:
    entries = [{"id": f"r{n}", "uri": "/*", "upstream": UP, **route} for n, route in enumerate(routes)]
    found = read_routes({"routes": entries, **sections})
    return TestClient(GatewayApp(found, runner.path, upstream=echo))  # type: ignore[arg-type]


def marked(name: str, **fields: Any) -> dict[str, Any]:
    """A route whose responses say which it was."""
    return {"plugins": {"response-rewrite": {"headers": {"X-Route": name}}}, **fields}


def test_variables_choose_the_route(runner: RunnerDouble) -> None:
    caller = client(
        runner,
        marked("canary", priority=2, vars=[["http_x_canary", "==", "yes"], ["arg_v", "!", "in", ["1", "2"]]]),
        marked("post", priority=1, vars=[["request_method", "==", "POST"], ["post_arg_a", "==", "b"]]),
        marked("rest"),
    )
    requests: list[tuple[str, str, dict[str, Any], str]] = [
        ("GET", "/x", {"headers": {"X-Canary": "yes"}}, "canary"),
        ("GET", "/x?v=2", {"headers": {"X-Canary": "yes"}}, "rest"),
        ("GET", "/x", {"headers": {"X-Canary": "no"}}, "rest"),
        ("POST", "/x", {"data": {"a": "b"}}, "post"),
        ("POST", "/x", {"data": {"a": "c"}}, "rest"),
    ]
    got = [caller.request(method, target, **more).headers["x-route"] for method, target, more, _ in requests]
    assert got == [name for *_, name in requests]
    # the body that a condition has read is still there
    assert caller.post("/x", data={"a": "b"}).json()["body"] == "a=b"


def test_a_route_whose_conditions_do_not_hold_is_none(runner: RunnerDouble) -> None:
    caller = client(runner, marked("a", vars=[["arg_a", "==", "1"]]))
    assert [caller.get(f"/?a={n}").status_code for n in (1, 2)] == [200, 404]


@pytest.mark.parametrize(
    ("fields", "client_address", "status"),
    [
        ({"remote_addr": "10.0.0.0/8"}, "10.9.9.9", 200),
        ({"remote_addr": "10.0.0.0/8"}, "11.9.9.9", 404),
        ({"remote_addrs": ["192.0.2.1", "2001:db8::/32"]}, "2001:db8::7", 200),
        ({"remote_addrs": ["192.0.2.1", "2001:db8::/32"]}, "192.0.2.2", 404),
    ],
)
def test_the_clients_address_chooses_the_route(
    runner: RunnerDouble, fields: dict[str, Any], client_address: str, status: int
) -> None:
    routes = read_routes({"routes": [{"id": "r", "uri": "/*", "upstream": UP, **fields}]})
    app = GatewayApp(routes, runner.path, upstream=echo)  # type: ignore[arg-type]
    assert TestClient(app, client=(client_address, 1)).get("/").status_code == status
    # nginx takes X-Real-IP of a trusted client for it
    trusting = TestClient(app, client=("127.0.0.1", 1))
    assert trusting.get("/", headers={"X-Real-IP": client_address}).status_code == status


def filtered(*comparison: Any) -> dict[str, Any]:
    return {"_meta": {"filter": [list(comparison)]}}


def test_a_plugin_runs_only_where_its_filter_holds(runner: RunnerDouble) -> None:
    runner.calls(
        lambda message, ask: (
            HTTPReqCallResp(message.id) if isinstance(message, HTTPReqCallReq) else HTTPRespCallResp(message.id, 201)
        )
    )
    plugins = {
        "ext-plugin-pre-req": {**CONF, **filtered("arg_pre", "==", "1")},
        "ext-plugin-post-req": {**CONF, **filtered("arg_post", "==", "1")},
        "ext-plugin-post-resp": {**CONF, **filtered("arg_resp", "==", "1")},
        "proxy-rewrite": {"uri": "/new", **filtered("arg_rewrite", "==", "1")},
        "response-rewrite": {"headers": {"X-Made": "1"}, **filtered("status", "==", 201)},
        "cors": filtered("http_origin", "~~", "."),
    }
    caller = client(runner, {"plugins": plugins})

    def calls(query: str, **headers: str) -> tuple[list[type], str, bool, bool]:
        runner.got.clear()
        answer = caller.get(f"/x?{query}", headers=headers)
        kinds: list[type] = [type(got) for got in runner.got if isinstance(got, HTTPReqCallReq | HTTPRespCallReq)]
        allowed = "access-control-allow-origin" in answer.headers
        return kinds, answer.json()["path"], "x-made" in answer.headers, allowed

    assert calls("") == ([], "/x", False, False)
    assert calls("pre=1") == ([HTTPReqCallReq], "/x", False, False)
    assert calls("pre=1&post=1") == ([HTTPReqCallReq, HTTPReqCallReq], "/x", False, False)
    # the status that a filter of a response's plugin sees is the response's
    assert calls("resp=1") == ([HTTPRespCallReq], "/x", True, False)
    assert calls("rewrite=1", origin="https://a.test") == ([], "/new", False, True)


def test_filters_of_global_rules_and_consumers(runner: RunnerDouble) -> None:
    runner.calls(lambda message, ask: HTTPReqCallResp(message.id))
    caller = client(
        runner,
        {"plugins": {"key-auth": filtered("arg_free", "~=", "1"), "ext-plugin-pre-req": CONF}},
        consumers=[
            {
                "username": "bob",
                "plugins": {
                    "key-auth": {"key": "k"},
                    "ext-plugin-post-req": {**CONF, **filtered("consumer_name", "==", "bob")},
                    "request-id": filtered("consumer_name", "==", "ada"),
                },
            }
        ],
        global_rules=[{"id": 1, "plugins": {"cors": filtered("uri", "~~", "^/open")}}],
    )
    assert caller.get("/x").status_code == 401
    assert caller.get("/x?free=1").status_code == 200
    runner.got.clear()
    answer = caller.get("/open", headers={"apikey": "k"})
    assert (answer.status_code, "x-request-id" in answer.headers) == (200, False)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert len([got for got in runner.got if isinstance(got, HTTPReqCallReq)]) == 2
    assert "access-control-allow-origin" not in caller.get("/x", headers={"apikey": "k"}).headers
