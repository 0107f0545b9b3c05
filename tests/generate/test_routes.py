"""Generated routes: every form is what APISIX reads, and plugins get exactly the configuration that was given."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError, upstream
from asgi_bridge.gateway import Routes, load_routes
from asgi_bridge.generate.lists import ext_plugins
from asgi_bridge.generate.routes import Route, adc, admin_json, plugin_config, standalone, upstream_of
from asgi_bridge.generate.yaml_text import flow, yaml_of
from asgi_bridge.testing import Gateway


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the configuration."""
    await JSONResponse(scope["extensions"]["apisix"]["conf"])(scope, receive, send)


class Conf(BaseModel):
    key: str
    seconds: int = 3


def keyed(conf: Conf) -> ASGIApp:
    return upstream


@pytest.fixture
def bridge() -> Bridge:
    bridge = Bridge()
    bridge.mount("tell", tell)
    for phase in ("request", "response", "both"):
        bridge.plugin(phase, phase=phase)(keyed)
    return bridge


def made(bridge: Bridge, conf: str, name: str = "tell") -> Route:
    plugins = ext_plugins(bridge.plugins, [(name, conf)])
    return Route("gate", ("/a/*", "/b"), ("shop.test",), plugins, upstream_of(["shop:8000", "[::1]:8001"]))


FORMS: dict[str, Callable[[Route], str]] = {
    "route.json": admin_json,
    "apisix.yaml": standalone,
    "adc.yaml": adc,
    "plugin-config.yaml": lambda route: plugin_config(route.name, "apisix", route.plugins),
}


def read(folder: Path, form: str, route: Route) -> Routes:
    path = folder / form
    path.write_text(FORMS[form](route), "utf-8")
    return load_routes(path)


CONFIGURATIONS = [
    "{}",
    '{"body": "hello"}',
    r'{"quotes": "\"it\\\"s\" \\ done", "single": "it\u0027s", "colon": "a: b # c"}',
    '{"unicode": "Grüße, \u2028 \U0001f600 \\ud83d\\ude00", "control": "\\u0000\\t\\r\\n"}',
    '{\n  "on": "several",\n  "lines": ["#END", "- x", "---", "..."]\n}\n',
    "  [1, 2.50, 1e5, -0.0, 123456789012345678901234567890]  ",
    "1e5",
    "null",
    "true",
    '"on"',
    '{"' + "x" * 300 + '": "' + " y" * 300 + '"}',
    '{"#": "$", "percent": "%s %(x)s {0} {{ x }} {% x %}"}',
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("conf", CONFIGURATIONS, ids=range(len(CONFIGURATIONS)))
def test_the_gateway_gets_the_configuration_as_it_was_given(
    bridge: Bridge, tmp_path: Path, form: str, conf: str
) -> None:
    routes = read(tmp_path, form, made(bridge, conf))
    (route,) = routes.routes
    assert route.plugins.ext["ext-plugin-pre-req"].conf == [(b"tell", conf.strip().encode())]
    assert [finding.severity for finding in routes.findings if finding.severity == "error"] == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("conf", [CONFIGURATIONS[2], CONFIGURATIONS[3], CONFIGURATIONS[4]], ids=["2", "3", "4"])
def test_a_request_through_the_gateway_meets_the_plugin(bridge: Bridge, tmp_path: Path, form: str, conf: str) -> None:
    path = tmp_path / form
    path.write_text(FORMS[form](made(bridge, conf)), "utf-8")
    with TestClient(Gateway(bridge, path), base_url="http://shop.test") as client:
        assert client.get("/a/x").json() == json.loads(conf)


@pytest.mark.parametrize("form", ["route.json", "apisix.yaml", "adc.yaml"])
def test_a_route_has_its_paths_hosts_and_upstream(bridge: Bridge, tmp_path: Path, form: str) -> None:
    (route,) = read(tmp_path, form, made(bridge, "{}")).routes
    assert route.upstream is not None
    nodes = [(node.host, node.port, node.weight) for node in route.upstream.nodes]
    assert (route.uris, route.hosts, route.upstream.scheme, nodes) == (
        ("/a/*", "/b"), ("shop.test",), "http", [("shop", 8000, 1), ("::1", 8001, 1)],
    )  # fmt: skip


def test_one_path_and_no_host(bridge: Bridge, tmp_path: Path) -> None:
    route = Route("gate", ("/*",), (), ext_plugins(bridge.plugins, [("tell", "{}")]), upstream_of(["https://shop:443"]))
    assert json.loads(admin_json(route)) == {
        "id": "gate",
        "uri": "/*",
        "plugins": {"ext-plugin-pre-req": {"conf": [{"name": "tell", "value": "{}"}]}},
        "upstream": {
            "type": "roundrobin", "scheme": "https", "nodes": [{"host": "shop", "port": 443, "weight": 1}],
        },
    }  # fmt: skip
    (read_back,) = read(tmp_path, "adc.yaml", route).routes
    assert (read_back.uris, read_back.hosts) == (("/*",), ())


KEYED = '{"key": "x"}'


def names(plugins: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    return {place: [each["name"] for each in found["conf"]] for place, found in plugins.items()}


def test_each_plugin_stands_in_the_lists_of_its_phase_in_the_order_given(bridge: Bridge) -> None:
    chosen = [("both", KEYED), ("tell", "{}"), ("response", KEYED), ("request", KEYED)]
    assert names(ext_plugins(bridge.plugins, chosen)) == {
        "ext-plugin-pre-req": ["both", "tell", "request"],
        "ext-plugin-post-resp": ["both", "response"],
    }
    assert names(ext_plugins(bridge.plugins, chosen, post_req=["both", "tell"])) == {
        "ext-plugin-pre-req": ["request"],
        "ext-plugin-post-req": ["both", "tell"],
        "ext-plugin-post-resp": ["both", "response"],
    }
    assert names(ext_plugins(bridge.plugins, chosen, post_resp=["both", "tell"])) == {
        "ext-plugin-pre-req": ["request"],
        "ext-plugin-post-resp": ["both", "tell", "response"],
    }


def test_without_a_choice_all_plugins_are_listed() -> None:
    bridge = Bridge()
    bridge.mount("b", tell)
    bridge.mount("a", tell)
    assert ext_plugins(bridge.plugins) == {
        "ext-plugin-pre-req": {"conf": [{"name": "b", "value": "{}"}, {"name": "a", "value": "{}"}]}
    }


@pytest.mark.parametrize(
    ("chosen", "options", "said"),
    [
        ([("tel", "{}")], {}, "plugin tel is not mounted; mounted are: both, request, response, tell; did you mean "
         "'tell'?"),
        ([("tell", "{}"), ("tell", "1")], {}, "--plugin tell: given twice"),
        ([("tell", "{")], {}, "plugin tell: the configuration is not JSON: "),
        ([("tell", '"\udcff"')], {}, "plugin tell: the configuration is not UTF-8"),
        ([("both", "{}")], {}, "plugin both: field 'key': "),
        ([("both", "{}")], {}, """; give its configuration: --plugin 'both={"key": "…"}'"""),
        ([("both", '{"key": "x", "second": 1}')], {}, "plugin both: field 'second'"),
        ([("tell", "{}")], {"post_req": ["both"]}, "--post-req both: the route does not name this plugin"),
        ([("tell", "{}")], {"post_resp": ["Tell"]}, "--post-resp Tell: the route does not name this plugin; did you "
         "mean 'tell'?"),
        ([("request", KEYED)], {"post_resp": ["request"]}, "--post-resp request: this plugin is for the request phase"),
        ([("response", KEYED)], {"post_req": ["response"]}, "--post-req response: this plugin is for the response "
         "phase"),
        ([("tell", "{}")], {"post_req": ["tell"], "post_resp": ["tell"]}, "plugin tell: --post-req and --post-resp "
         "exclude each other"),
    ],
)  # fmt: skip
def test_what_no_route_may_have(
    bridge: Bridge, chosen: list[tuple[str, str]], options: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ext_plugins(bridge.plugins, chosen, **options)
    assert said in str(raised.value)


@pytest.mark.parametrize("address", ["shop", "shop:0", "shop:65536", "ftp://shop:21", "shop:80/x", "", ":80", "a b:1"])
def test_an_upstream_is_host_and_port(address: str) -> None:
    with pytest.raises(ConfigurationError, match="an upstream is like shop:8000 or https://shop:443"):
        upstream_of([address])


def test_servers_of_one_route_have_one_scheme() -> None:
    with pytest.raises(ConfigurationError, match="all servers of a route are http, or all are https"):
        upstream_of(["a:1", "https://b:2"])


TEXTS = [
    "a", "shop", "/a/*", "1e5", "0x10", "1_000", "12", "0o7", "1:30", "yes", "No", "on", "y", "n", "null", "~", "true",
    "inf", "NaN", ".inf", "", " ", " a ", "a b", "a: b", "a #b", "#", "-", "- a", "--uds", "[a]", "{}", "'", '"', "*a",
    "&a", "!a", "%a", "@a", "`a", "|", ">", "a\n", "\na\n\n", "a\tb", "é", "\u2028", "\x00", "\U0001f600", "a:", "=",
    "<<", "?", "...", "---", "2026-01-01", "x" * 500, "a " * 100,
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_yaml_has_the_same_texts_for_every_reader(text: str) -> None:
    assert yaml.safe_load(yaml_of({"key": [text, {text: text}]})) == {"key": [text, {text: text}]}
    assert yaml.safe_load(flow([text, text])) == [text, text]
    assert yaml.safe_load(f"key: {flow(text)}\nnext: 1\n") == {"key": text, "next": 1}


@pytest.mark.parametrize("text", ["1e5", "inf", "y", "0x1p3", "1e+5", "127.0.0.1"])
def test_what_another_reader_may_take_for_a_number_or_a_boolean_is_quoted(text: str) -> None:
    assert yaml_of({"a": text}) == f"a: '{text}'\n"
